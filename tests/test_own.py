"""Retrieval in anybody's captioned images: the same numbers from every form, repeated captions, what is left out.

python -m pytest tests/test_own.py
"""

import io
import json
import tarfile

import datasets
import layout_trees as trees
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tipsv2.__main__ import main
from tipsv2.evaluation.shared.own_captions import is_own, open_own, read_own
from tipsv2.evaluation.tasks.retrieval import evaluate

SHOWN = ("red", "green", "blue", "yellow", "red")  # two pictures with the same caption


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def folder(path, names=SHOWN):
    """A picture of one colour each, no two of them of one size, and NAME.txt."""
    for k, name in enumerate(names):
        trees.paint(path / f"{k}.png", name, (28, 28 + k))
        (path / f"{k}.txt").write_text(f"a {name} card\n")
    return path


def table(path):
    folder(path / "images")
    rows = [f"images/{k}.png,a {name} card" for k, name in enumerate(SHOWN)]
    (path / "cards.csv").write_text("\n".join(["file,caption", *rows]) + "\n")
    return path / "cards.csv"


def tar(path):
    pictures = folder(path / "unpacked")
    with tarfile.open(path / "cards.tar", "w") as file:
        for each in sorted(pictures.iterdir()):
            data = each.read_bytes()
            info = tarfile.TarInfo(each.name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path / "cards.tar"


def parquet(path):
    pictures = folder(path / "unpacked")
    images = [(pictures / f"{k}.png").read_bytes() for k in range(len(SHOWN))]
    pq.write_table(pa.table({"image": images, "alt": [f"a {name} card" for name in SHOWN]}), path / "cards.parquet")
    return path / "cards.parquet"


@pytest.mark.parametrize(
    "form", [lambda path: folder(path / "x"), table, tar, parquet], ids="folder csv tar parquet".split()
)
def test_every_form_is_measured_and_a_repeated_caption_is_right_at_all_that_have_it(form, tmp_path):
    """Ties count against the encoder, so were the other red picture wrong, no red card would be found first."""
    record = evaluate(trees.Colours(), str(form(tmp_path)), progress=False)
    assert json.loads(json.dumps(record)) == record
    assert (record["images"], record["texts"], record["repeated"], record["left_out"]) == (5, 5, 2, 0)
    assert record["captions"] == {"web": 5} and set(record["cls"].values()) == {1.0}
    # CLS 2 shows red whatever it sees: all scores of a text are equal, and 3 or 4 wrong ones stand first.
    assert record["caption_cls"]["t2i_r1"] == 0.0 and record["caption_cls"]["i2t_r1"] == 0.4
    # Of five candidates three queries have one right answer, two have two: C(3, 1) / C(5, 1) = 0.6 miss.
    assert record["chance"]["i2t_r1"] == record["chance"]["t2i_r1"] == pytest.approx((3 * 0.2 + 2 * 0.4) / 5)
    assert record["interval"] == {"i2t_r1": [1.0, 1.0], "t2i_r1": [1.0, 1.0]} and record["fingerprint"]


def test_one_role_is_measured_with_the_token_trained_for_it(tmp_path):
    """The alt-texts of green and blue are mixed up, their short captions are not; red has an alt-text only."""
    for k, (name, alt) in enumerate((("red", "red"), ("green", "blue"), ("blue", "green"))):
        trees.paint(tmp_path / f"{k}.png", name)
        trees.write_json(tmp_path / f"{k}.json", {"web": alt} | ({"short": f"a {name} card"} if k else {}))
    short = evaluate(trees.Colours(), str(tmp_path), progress=False)
    assert short["captions"] == {"web": 1, "short": 2} and set(short["cls"].values()) == {1.0}
    assert short["interval"]["t2i_r1"] == [0.0, 0.0]  # CLS 2's, which finds nothing
    web = evaluate(trees.Colours(), str(tmp_path), captions="web", progress=False)
    assert web["captions"] == {"web": 3} and web["cls"]["t2i_r1"] == web["cls"]["i2t_r1"] == 0.3333
    assert web["interval"]["t2i_r1"] == [0.0, 1.0]  # CLS 1's
    assert web["fingerprint"] != short["fingerprint"]
    again = evaluate(trees.Colours(), str(tmp_path), cls="cls", progress=False)
    assert again["interval"]["t2i_r1"] == [1.0, 1.0]
    with pytest.raises(ValueError, match=r"no detailed captions; it has short \(column short\), web \(column web\)"):
        evaluate(trees.Colours(), str(tmp_path), captions="detailed")


def test_columns_can_be_named(tmp_path):
    folder(tmp_path)
    rows = ["wrong,photo,said", *(f"red,{k}.png,a {name} card" for k, name in enumerate(SHOWN))]
    (tmp_path / "t.csv").write_text("\n".join(rows) + "\n")
    with pytest.raises(ValueError, match="no captions; its columns are wrong, photo, said"):
        evaluate(trees.Colours(), str(tmp_path / "t.csv"))
    record = evaluate(trees.Colours(), str(tmp_path / "t.csv"), columns=["data.web=said"], progress=False)
    assert record["cls"]["i2t_r1"] == 1.0
    with pytest.raises(ValueError, match="--data-columns web: write data.KEY=COLUMN"):
        evaluate(trees.Colours(), str(tmp_path / "t.csv"), columns=["web"])


def test_rows_of_one_picture_are_one_image_with_several_captions(tmp_path):
    folder(tmp_path, ("red", "green"))
    said = [("0", "a red card"), ("1", "a green card"), ("0", "red and yellow"), ("0", "a red card")]
    (tmp_path / "t.csv").write_text("file,caption\n" + "".join(f"{k}.png,{text}\n" for k, text in said))
    images = [(tmp_path / f"{k}.png").read_bytes() for k, _ in said]
    pq.write_table(pa.table({"image": images, "caption": [text for _, text in said]}), tmp_path / "t.parquet")
    for name in ("t.csv", "t.parquet"):
        split, left_out = read_own(open_own(str(tmp_path / name)))
        assert [sample.truth() for sample in split.samples] == [("a red card", "red and yellow"), ("a green card",)]
        assert not left_out and [sample.image.size for sample in split.samples] == [(28, 28), (28, 29)]


def test_a_known_tree_is_never_taken_for_a_collection(tmp_path):
    coco = trees.coco(tmp_path / "coco")
    folder(coco)
    record = evaluate(trees.Colours(), str(coco), progress=False)
    assert record["images"] == 10 and "captions" not in record
    with pytest.raises(ValueError, match="leave --captions and --data-columns out"):
        evaluate(trees.Colours(), str(coco), captions="web")
    mine = folder(tmp_path / "mine")
    with pytest.raises(ValueError, match="lacks annotations/captions_val2017.json, which COCO 2017 captions has"):
        evaluate(trees.Colours(), f"coco:{mine}")
    with pytest.raises(ValueError, match=f"there is no data set 'coko:{mine}': did you mean coco:{mine}"):
        evaluate(trees.Colours(), f"coko:{mine}")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ValueError, match="holds no images and no tar.* LAYOUT:ROOT, of coco, coco-karpathy"):
        evaluate(trees.Colours(), str(tmp_path / "nothing"))
    assert is_own("retrieval", str(mine)) and not is_own("segmentation", str(mine))
    assert is_own("retrieval", "hf:owner/name") and is_own("retrieval", "owner/name")
    assert not any(is_own("retrieval", data) for data in ("scenes:val", "scenes", "coco", f"coco:{mine}", str(coco)))


def test_what_cannot_be_used_is_left_out_and_the_rest_goes_on_where_it_was(tmp_path, capsys):
    data, out = folder(tmp_path / "x", trees.NAMES[:6]), tmp_path / "out"
    out.mkdir()
    whole = (data / "4.png").read_bytes()
    (data / "4.png").write_bytes(whole[:60])
    (data / "5.txt").unlink()
    encoder = trees.Colours()
    record = evaluate(encoder, str(data), out=out, progress=False)
    assert (record["images"], record["left_out"], encoder.seen) == (4, 2, 4) and record["cls"]["i2t_r1"] == 1.0
    said = capsys.readouterr().err
    assert (
        "cannot be used: 2" in said
        and "4.png: it is truncated or damaged" in said
        and "5.png: it has no caption" in said
    )
    (data / "4.png").write_bytes(whole)
    assert evaluate(encoder, str(data), out=out, progress=False)["images"] == 5 and encoder.seen == 5
    (data / "0.txt").write_text("a pink card\n")
    with pytest.raises(ValueError, match="another captions: choose another --out"):
        evaluate(encoder, str(data), out=out, progress=False)
    for file in data.glob("*.png"):
        file.write_bytes(b"")
    with pytest.raises(ValueError, match=r"none of the images can be opened. 0\.png: it is empty"):
        evaluate(trees.Colours(), str(data), progress=False)
    for file in data.glob("*.txt"):
        file.write_text("\n")
    with pytest.raises(ValueError, match="no image with a caption: 0.png: it has no caption"):
        evaluate(trees.Colours(), str(data), progress=False)


def test_a_limit_may_grow_and_a_stream_is_read_no_further(tmp_path):
    data, out, encoder = folder(tmp_path / "x"), tmp_path / "out", trees.Colours()
    out.mkdir()
    for limit, seen in ((2, 2), (4, 4), (None, 5)):
        record = evaluate(encoder, str(data), limit=limit, out=out, progress=False)
        assert record["images"] == seen == encoder.seen
    (tmp_path / "tars").mkdir()
    path = tar(tmp_path / "tars")
    assert [s.name for s in read_own(open_own(str(path)), 2)[0].samples] == ["0.png in cards.tar", "1.png in cards.tar"]
    assert evaluate(encoder, str(path), limit=3, progress=False)["images"] == 3
    with pytest.raises(ValueError, match="limit=0: at least one image"):
        evaluate(encoder, str(path), limit=0, progress=False)


def test_command_line(tiny_folder, tmp_path, capsys):
    data, out = folder(tmp_path / "photos"), tmp_path / "out"
    command = ["evaluate", "retrieval", "--model", str(tiny_folder), "--device", "cpu", "--data"]
    assert main([*command, str(data), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert ["captions", "web", "5"] in map(str.split, printed.splitlines()) and "t2i_r10" in printed
    record = json.loads((out / "record.json").read_text())
    assert record["images"] == 5 and record["fingerprint"] and record["captions"] == {"web": 5}
    assert main([*command, "scenes:val", "--captions", "web"]) == 2
    assert "leave --captions and --data-columns out" in capsys.readouterr().err
    (tmp_path / "bare").mkdir()
    trees.paint(tmp_path / "bare" / "0.png", "red")
    assert main(["evaluate", "retrieval", "--model", "tipsv2-l14", "--data", str(tmp_path / "bare")]) == 2
    assert "has images but no captions" in capsys.readouterr().err  # before the model
