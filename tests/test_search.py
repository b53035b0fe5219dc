"""Search in embeddings: exact, best first, by words or by a picture, shown from the data that was embedded.

python -m pytest tests/test_search.py
"""

import shutil

import numpy as np
import photos
import pytest
import torch.nn.functional as F
from PIL import Image

from tipsv2.__main__ import main
from tipsv2.analysis.render import contact_sheet
from tipsv2.collections import nearest as module
from tipsv2.collections.embed import embed
from tipsv2.collections.search import draw, search
from tipsv2.collections.store import read_embeddings


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(params=["folder", "tars"])
def made(request, tmp_path, tiny_encoder):
    """(data, embeddings of its twelve pictures), each picture another."""
    data = tmp_path / "data"
    photos.folder(data, 12) if request.param == "folder" else photos.shards(data, 5, 7)
    embed(tiny_encoder, data, tmp_path / "out", shard_size=4, progress=False)
    return data, tmp_path / "out"


@pytest.mark.parametrize("chunk", [2, 100])
def test_hits_are_those_of_a_sort_of_all_cosines(made, tiny_encoder, monkeypatch, chunk):
    monkeypatch.setattr(module, "PIECE", chunk)
    ids, arrays = read_embeddings(made[1])
    query = tiny_encoder.encode_text(["a dog on grass"])[0].numpy()
    for vectors in ("cls", "caption_cls"):
        cosines = arrays[vectors].astype(np.float64) @ query
        for top in (1, 5, 50):
            hits = search(made[1], query, top, vectors)
            assert [hit.id for hit in hits] == [ids[row] for row in np.argsort(-cosines)[:top]]
            assert np.allclose([hit.score for hit in hits], np.sort(cosines)[::-1][:top], atol=1e-6)


def test_equal_scores_keep_the_order_of_the_data(made, monkeypatch):
    monkeypatch.setattr(module, "PIECE", 3)
    ids, arrays = read_embeddings(made[1])
    assert [hit.id for hit in search(made[1], np.zeros(arrays["cls"].shape[1]), 7)] == ids[:7]


def test_a_picture_finds_itself_and_the_sheet_shows_it(made, tiny_encoder, tmp_path):
    query = F.normalize(tiny_encoder.encode_image(photos.picture(7)).cls, dim=-1).numpy()
    hits = search(made[1], query, 3)
    assert "007.png" in hits[0].id or "000000007.png" in hits[0].id
    assert hits[0].score == pytest.approx(1, abs=1e-5) and hits[0].score > hits[1].score
    sheet = draw(made[1], hits[:1])
    blue = sheet[40:150, 20:200, 2]
    assert (blue == 7).all()  # the picture's number is its blue


def test_the_command(made, tiny_folder, tmp_path, capsys):
    data, out = made
    command = ["search", str(out)]
    assert main([*command, "a dog", "--top", "6", "--out", str(tmp_path / "deep" / "found.png")]) == 0
    lines = capsys.readouterr().out.splitlines()
    scores = [float(line.split()[0]) for line in lines[1:7]]
    assert lines[0] == "score   id" and scores == sorted(scores, reverse=True) and lines[7].startswith("written to")
    with Image.open(tmp_path / "deep" / "found.png") as sheet:
        assert sheet.width > 5 * 224 and sheet.height > 2 * 224  # six pictures in rows of five
    photos.picture(3).save(tmp_path / "asked.png")
    assert main([*command, "--image", str(tmp_path / "asked.png"), "--top", "1"]) == 0
    assert "1.000" in (printed := capsys.readouterr().out) and "3.png" in printed
    shutil.rmtree(data)
    assert main([*command, "a dog", "--out", str(tmp_path / "again.png")]) == 0
    told = capsys.readouterr()
    assert len(told.out.splitlines()) == 11 and "no picture: there is no file or folder" in told.err
    assert not (tmp_path / "again.png").exists()


def test_data_that_has_changed_is_not_drawn(tmp_path, tiny_encoder):
    data = photos.folder(tmp_path / "data", 3)
    embed(tiny_encoder, data, tmp_path / "out", progress=False)
    hits = search(tmp_path / "out", np.zeros(48), 3)
    (data / "000.png").unlink()
    with pytest.raises(ValueError, match="has changed: where 000.png was, there is 001.png now"):
        draw(tmp_path / "out", hits)


def test_bad_input_is_one_sentence(made, tiny_folder, tiny_encoder, tmp_path, capsys):
    from conftest import make_model

    out, other = made[1], tmp_path / "other"
    make_model(len(tiny_encoder.tokenizer), seed=1).save_pretrained(other)
    tiny_encoder.tokenizer.save_pretrained(other)
    for words, said in (
        ([str(out)], "either a phrase or --image"),
        ([str(out), "a dog", "--image", "x.png"], "either a phrase or --image"),
        ([str(out), "--image", str(tmp_path / "x.png")], "There is no file"),
        ([str(out), "a dog", "--top", "0"], "at least one image"),
        ([str(out), " "], "A text is empty"),
        ([str(out), "a dog", "--out", "found.txt"], "call it something like found.png"),
        ([str(out), "a dog", "--model", str(other)], "made with other weights"),
        ([str(made[0]), "a dog"], "has no readable manifest.json"),
    ):
        assert main(["search", *words]) == 2
        errors = capsys.readouterr().err
        assert said in errors.strip().splitlines()[-1] and "Traceback" not in errors, (words, errors)
    for file in (out / "images").iterdir():
        file.unlink()
    assert main(["search", str(out), "a dog"]) == 2
    assert "no shard is finished" in capsys.readouterr().err


def test_contact_sheet_places_pictures_and_cuts_titles():
    red, blue = np.zeros((10, 20, 3), np.uint8), np.zeros((30, 10, 3), np.uint8)
    red[..., 0], blue[..., 2] = 255, 255
    sheet = contact_sheet([red, blue, red], ["one", "a title far too long for the picture" * 3, "three"], 2, 60)
    found = [(sheet == color).all(axis=-1) for color in ((255, 0, 0), (0, 0, 255))]
    assert found[0].sum() == 2 * 60 * 30 and found[1].sum() == 20 * 60  # long sides of 60, shapes kept
    rows, columns = np.nonzero(found[1])
    assert columns.min() > sheet.shape[1] // 2 and rows.max() < sheet.shape[0] // 2  # second of the first row
    assert (sheet[:, -7:] == 255).all()  # no title runs out of its column


def test_parts_that_are_missing_are_told(made, tiny_folder, capsys):
    out = made[1]
    command = ["search", str(out), "a dog", "--model", str(tiny_folder)]
    assert main(command) == 0
    assert "only what is there" not in capsys.readouterr().err
    gone = sorted((out / "images").iterdir())[1]
    content = gone.read_bytes()
    gone.unlink()
    assert main(command) == 0
    said = capsys.readouterr().err
    what = "1 of 3 parts" if made[0].name == "data" and (made[0] / "000.png").exists() else "parts of 1 of 2 shards"
    assert f"only what is there is searched: '{out}' lacks {what}; the command that made it goes on: " in said
    gone.write_bytes(content[:-5])
    assert main(command) == 2
    assert f"'{gone}' is torn (" in capsys.readouterr().err.strip().splitlines()[-1]
