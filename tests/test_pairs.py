"""Collections of captioned images: every layout gives the same pairs, and whatever is wrong is said in a sentence."""

import json
import os
import pickle
import random
import subprocess
import sys
import time
import zipfile

import datasets
import numpy as np
import photos
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tipsv2.collections.pairs import FALLBACK, Pair, Pairs, open_pairs
from tipsv2.collections.sources import repository
from tipsv2.images import ImageError

COUNT = 6


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def contents(pairs):
    return [(photos.number_of(pair.open()), pair.captions) for pair in pairs]


EXPECTED = [(i, {"web": (f"picture number {i}",)}) for i in range(COUNT)]


def as_csv(path, separator=",", name="table.csv"):
    photos.folder(path / "images", COUNT)
    rows = [separator.join(["file", "Title", "views"])]
    rows += [separator.join([f"images/{i:03}.png", f"picture number {i}", "3"]) for i in range(COUNT)]
    (path / name).write_text("\n".join(rows) + "\n")
    return path / name


def as_jsonl(path, name="table.jsonl", image="image"):
    photos.folder(path / "images", COUNT)
    rows = [{image: f"images/{i:03}.png", "text": f"picture number {i}"} for i in range(COUNT)]
    (path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path / name


def as_parquet(path, kind):
    photos.folder(path / "images", COUNT)
    data = [photos.encoded(i) for i in range(COUNT)]
    image = {
        "bytes": data,
        "struct": [{"bytes": d, "path": None} for d in data],  # as `datasets` writes an Image
        "path": [f"images/{i:03}.png" for i in range(COUNT)],
    }[kind]
    table = pa.table({"image": image, "alt_text": [f"picture number {i}" for i in range(COUNT)], "n": range(COUNT)})
    pq.write_table(table, path / "table.parquet")
    return path / "table.parquet"


def as_metadata(path, kind):
    as_csv(path, name="metadata.csv") if kind == "csv" else as_jsonl(path, "metadata.jsonl", "file_name")
    return path


LAYOUTS = {
    "folder": lambda path: photos.folder(path / "x", COUNT),
    "csv": as_csv,
    "tsv": lambda path: as_csv(path, "\t", "table.tsv"),
    "jsonl": as_jsonl,
    "parquet of bytes": lambda path: as_parquet(path, "bytes"),
    "parquet of Image": lambda path: as_parquet(path, "struct"),
    "parquet of paths": lambda path: as_parquet(path, "path"),
    "metadata.csv": lambda path: as_metadata(path, "csv"),
    "metadata.jsonl": lambda path: as_metadata(path, "jsonl"),
    "folder of tars": lambda path: photos.shards(path / "x", 2, 3, 1),
    "pattern of tars": lambda path: photos.shards(path / "x", 4, 2) / "*.tar",
    "one tar": lambda path: photos.shards(path / "x", COUNT) / "00000.tar",
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_pairs(layout, tmp_path):
    pairs = open_pairs(LAYOUTS[layout](tmp_path))
    assert contents(pairs) == EXPECTED
    again = pickle.loads(pickle.dumps(pairs))  # workers of a DataLoader may be new processes
    assert contents(again) == EXPECTED
    if pairs.indexed:
        assert len(pairs) == COUNT and contents([pairs[4]]) == EXPECTED[4:5]
    assert list(pairs.texts(100)) == [f"picture number {i}" for i in range(COUNT)]
    assert len(set(pairs.texts(3))) == 3


def test_tars_are_read_as_the_library_reads_them(tmp_path):
    """Where nothing is wrong with a shard, our reader gives what `datasets`' own gives."""
    path = photos.shards(tmp_path / "x", 4, 3)
    files = [str(p) for p in sorted(path.glob("*.tar"))]
    theirs = datasets.load_dataset("webdataset", data_files=files, split="train", streaming=True).decode(False)
    ours = open_pairs(path)
    assert [(p.read(), p.captions["web"][0]) for p in ours] == [(r["png"]["bytes"], r["txt"]) for r in theirs]
    assert ours.shards == theirs.num_shards == 2


def test_roles_sidecars_and_masks(tmp_path):
    """A .json gives roles, lists hold several captions, a png of the same name is the mask, jpg before png."""
    (tmp_path / "x" / "deep").mkdir(parents=True)
    at = tmp_path / "x" / "deep"
    for name in ("a", "b.v2", "c"):
        photos.picture(9).save(at / f"{name}.jpg", quality=95)
    (at / "a.json").write_text(json.dumps({"web": ["one", " two ", ""], "short": "brief", "detailed": "at length"}))
    (at / "b.v2.txt").write_text("\nfirst line\n\nsecond line\n")
    Image.new("L", (40, 30), 3).save(at / "a.png")
    Image.new("L", (40, 30), 4).save(at / "c.mask.png")
    (at / "c.json").write_text("{broken")
    (tmp_path / "x" / "names.json").write_text('["sky", "grass"]')
    pairs = open_pairs(tmp_path / "x")
    a, b, c = pairs
    assert a.captions == {"web": ("one", "two"), "short": ("brief",), "detailed": ("at length",)}
    assert b.name == "deep/b.v2.jpg" and pairs.label_names == ("sky", "grass")
    assert np.asarray(Image.open(a.mask)).max() == 3 and np.asarray(Image.open(c.mask)).max() == 4 and b.mask is None
    with pytest.raises(ValueError, match=r"c\.jpg: its \.json cannot be read"):
        c.caption("web", random.Random(0))
    drawn = {a.caption("web", random.Random(seed)) for seed in range(20)}
    assert drawn == {"one", "two"}


def test_a_missing_role_falls_back():
    rng = random.Random(0)
    for missing in (set(), {"web"}, {"short"}, {"detailed"}, {"web", "short"}, {"short", "detailed"}):
        pair = Pair("x", {role: (role,) for role in FALLBACK if role not in missing}, b"")
        expected = {
            "web": "web" if "web" not in missing else "short" if "short" not in missing else "detailed",
            "short": "short" if "short" not in missing else "detailed" if "detailed" not in missing else "web",
            "detailed": "detailed" if "detailed" not in missing else "short" if "short" not in missing else "web",
        }
        assert {role: pair.caption(role, rng) for role in FALLBACK} == expected
    with pytest.raises(ValueError, match="x: it has no caption"):
        Pair("x", {}, b"").caption("web", rng)


def test_columns_are_found_by_name_or_named(tmp_path):
    as_csv(tmp_path)
    table = tmp_path / "t.csv"
    table.write_text("id,picture_of,alt,long_caption,Short Caption,NA\n1,images/000.png,NA,None,12,x\n")
    pairs = open_pairs(table)
    assert pairs.mapping == {
        "image": "picture_of", "web": "alt", "short": "Short Caption", "detailed": "long_caption",
    }  # fmt: skip
    assert pairs[0].captions == {"web": ("NA",), "short": ("12",), "detailed": ("None",)}  # text stays text
    other = open_pairs(table, {"web": "long_caption", "detailed": "NA", "short": ""})
    assert other[0].captions == {"web": ("None",), "short": ("12",), "detailed": ("x",)}
    with pytest.raises(ValueError, match=r"no column 'titel' \(data.web\); its columns are id, picture_of, alt"):
        open_pairs(table, {"web": "titel"})


@pytest.mark.parametrize(
    "name, text, hint",
    [
        ("a.csv", "", "first line must name the columns"),
        ("a.csv", "image,caption\n", "no row"),
        (
            "a.csv",
            "number,caption\n1,hello\n",
            r"no column of images; its columns are number, caption. Name it: d",
        ),
        ("a.csv", "image,likes\na.png,3\n", r"no captions; its columns are image, likes. Name the column \(data.web="),
        ("a.csv", 'image,caption\na.png,"open\nb.png,x\n', "cannot be read as csv"),
        ("a.jsonl", '{"image": "a.png", "web"\n', "cannot be read as json"),
        ("a.parquet", "no parquet", "cannot be read as parquet"),
        ("a.tar", "no tar", "truncated or damaged"),
        ("a.txt", "x", r"is .txt: give a folder"),
    ],
)
def test_what_cannot_be_opened_is_said_in_a_sentence(name, text, hint, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=hint) as caught:
        open_pairs(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_folders_that_hold_nothing(tmp_path):
    (tmp_path / "captions.csv").write_text("image,caption\na.png,x\n")
    with pytest.raises(ValueError, match="did you mean one of captions.csv"):
        open_pairs(tmp_path)
    photos.picture(0).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="images but no captions"):
        open_pairs(tmp_path)
    assert [pair.name for pair in open_pairs(tmp_path, captions=False)] == ["a.png"]
    with pytest.raises(ValueError, match="no file matches"):
        open_pairs(str(tmp_path / "*.tar"))
    with pytest.raises(ValueError, match="no file or folder"):
        open_pairs(tmp_path / "nowhere")


def test_a_damaged_shard_costs_only_what_is_damaged(tmp_path):
    """Broken json with and without a txt, no image, an empty image; then a shard cut off in the middle."""

    def change(i, files):
        if i == 1:
            files["json"] = b"{broken"
        if i == 2:
            files["json"] = b"{broken"
            del files["txt"]
        if i == 3:
            del files["png"]
        if i == 4:
            files["png"] = b""
        return files

    photos.tar(tmp_path / "0.tar", range(7), change)
    whole = photos.tar(tmp_path / "1.tar", range(7, 12)).read_bytes()
    (tmp_path / "1.tar").write_bytes(whole[: len(whole) // 2 + 300])
    found = []
    for pair in open_pairs(tmp_path):
        try:
            found.append((photos.number_of(pair.open()), pair.caption("web", random.Random(0))))
        except ValueError as error:
            found.append(str(error))
    texts = [f"picture number {i}" for i in range(12)]
    assert found[0] == (0, texts[0]) and found[5:9] == [(i, texts[i]) for i in (5, 6, 7, 8)]
    assert found[1] == (1, texts[1]) and "000000002.png in 0.tar: its .json cannot be read" in found[2]
    assert "no image" in found[4]
    assert "no image" in found[3] and found[9] == (9, texts[9]) and len(found) == 11
    assert found[10] == "1.tar: it is truncated or damaged (not a header): the rest of it cannot be read."


def test_a_tar_may_mix_kinds_of_images_as_a_folder_may(tmp_path):
    """Per sample the first of jpg, webp, png, ... is the image; a png is a mask only where another image is there."""
    kinds = [["png"], ["jpg"], ["webp"], ["jpg", "png"], ["png"]]

    def write(kinds, name):
        files = {
            i: {k: photos.encoded(i, {"jpg": "JPEG"}.get(k, k.upper())) for k in held} for i, held in kinds.items()
        }
        photos.tar(tmp_path / f"{name}.tar", kinds, lambda i, _: files[i] | {"txt": b"x"})
        (tmp_path / name).mkdir()
        for i, held in files.items():
            (tmp_path / name / f"{i:09}.txt").write_text("x")
            for kind, data in held.items():
                (tmp_path / name / f"{i:09}.{kind}").write_bytes(data)
        return open_pairs(tmp_path / f"{name}.tar"), open_pairs(tmp_path / name)

    tar, folder = write(dict(enumerate(kinds)), "mixed")
    expected = [f"{i:09}.{held[0]}" for i, held in enumerate(kinds)]
    assert [pair.name for pair in folder] == expected
    assert [pair.name for pair in tar] == [f"{name} in mixed.tar" for name in expected]
    for pairs in (tar, folder):
        assert all(pair.open().size == (40, 30) for pair in pairs) and "mask" in pairs.mapping
        assert [pair.mask is not None for pair in pairs] == [False, False, False, True, False]
    assert tar.images == ("png", "jpg", "webp")
    tar, folder = write(dict(enumerate(kinds[:3])), "none")
    for pairs in (tar, folder):
        assert "mask" not in pairs.mapping and [pair.mask for pair in pairs] == [None] * 3
    late = {i: ["png"] for i in range(30)} | {30: ["jpg"], 31: ["webp", "png"]}  # after what is probed
    assert all(pair.open() for pairs in write(late, "late") for pair in pairs)
    chosen = open_pairs(tmp_path / "mixed.tar", {"image": "png"})
    assert [pair.image is not None for pair in chosen] == [True, False, False, True, True]
    masked = open_pairs(tmp_path / "mixed.tar", {"mask": "png"})
    assert [pair.mask is not None for pair in masked] == [False, False, False, True, False]
    assert all(pair.open() for pair in masked)


def test_unreadable_images_say_which(tmp_path):
    path = photos.folder(tmp_path / "x", 4)
    (path / "001.png").write_bytes(b"")
    (path / "002.png").write_bytes(photos.encoded(2)[:60])
    pairs = open_pairs(path)
    (path / "003.png").unlink()
    for number, hint in ((1, "empty"), (2, "truncated or damaged"), (3, "no file")):
        with pytest.raises(ImageError, match=f"^00{number}.png: .*{hint}"):
            pairs[number].open()
    broken = photos.tar(tmp_path / "t.tar", range(2), lambda i, files: files | {"png": b"xx"})
    with pytest.raises(ImageError, match="^000000000.png in t.tar: it is not a picture"):
        next(iter(open_pairs(broken))).open()


@pytest.mark.parametrize("column", ["image", "mask"])
@pytest.mark.parametrize(
    "name", ["/dev/zero", "../secret.png", "{}/secret.png", "a/../../secret.png", "link.png", "pipe.png", "x" * 300]
)
def test_confined_rows_read_nothing_outside_their_folder(name, column, tmp_path):
    """Also what is no regular file, and what comes to be there only after the rows were looked through."""
    folder = tmp_path / "data"
    folder.mkdir()
    for k in range(3):
        (folder / f"{k}.png").write_bytes(photos.encoded(k))
    rows = [{"image": f"{k}.png", "mask": f"{k}.png", "caption": "own"} for k in range(3)]
    rows[2][column] = name.format(tmp_path)
    (folder / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    confined, free = (open_pairs(folder / "t.jsonl", confined=each) for each in (True, False))
    (tmp_path / "secret.png").write_bytes(photos.encoded(3))
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    os.mkfifo(folder / "pipe.png")
    for own, same in zip(list(confined)[:2], list(free)[:2], strict=True):
        assert own.open() == same.open()
    last, unbound = confined[2], free[2]
    assert (last.image, last.mask)[column == "mask"] is None and (unbound.image, unbound.mask)[column == "mask"]
    if column == "image":
        with pytest.raises(ImageError, match="it names no file in the folder of these data, and no other file is read"):
            last.open()
    else:
        assert last.open()


def test_a_copy_of_a_hub_repository_is_a_stream(tmp_path):
    """What `datasets` streams from the Hub, from a local repository: parquet and tars, shard by shard, undecoded."""
    as_parquet(tmp_path, "struct")
    for kind, numbers in (("train-00000-of-00002", range(4)), ("train-00001-of-00002", range(4, 6))):
        rows = {"picture": [{"bytes": photos.encoded(i), "path": None} for i in numbers], "label": list(numbers)}
        data = datasets.Dataset.from_dict(rows | {"caption": [f"picture number {i}" for i in numbers]})
        (tmp_path / "repo" / "data").mkdir(parents=True, exist_ok=True)
        data.cast_column("picture", datasets.Image()).to_parquet(tmp_path / "repo" / "data" / f"{kind}.parquet")
    pairs = Pairs(repository(str(tmp_path / "repo")), {}, captions=True)
    assert pairs.shards == 2 and contents(pairs) == EXPECTED and contents(pairs.read(1)) == EXPECTED[4:]
    with pytest.raises(ValueError, match="(?s)Bad split: test.*data.split="):
        repository(str(tmp_path / "repo"), split="test")
    tars = Pairs(repository(str(photos.shards(tmp_path / "tars", 3, 3))), {}, captions=True)
    assert contents(tars) == EXPECTED


@pytest.mark.parametrize("form", ["{}", "file://{}", "local://{}", "zip://secret.png::{}.zip", "zip://a::file://{}"])
def test_a_data_set_of_the_hub_names_no_file_of_this_machine(form, tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(photos.encoded(0))
    with zipfile.ZipFile(f"{secret}.zip", "w") as archive:
        archive.write(secret, "secret.png")
    (tmp_path / "repo").mkdir()
    address = form.format(secret)
    rows = {"image": [address] * 2, "mask": [{"bytes": None, "path": address}] * 2, "caption": ["one", "two"]}
    pq.write_table(pa.table(rows), tmp_path / "repo" / "train.parquet")
    for pair in Pairs(repository(str(tmp_path / "repo")), {"image": "image", "mask": "mask"}, captions=True):
        assert pair.image == pair.mask != secret
        with pytest.raises(ImageError, match="is named elsewhere|cannot be fetched"):
            pair.open()


def test_the_hub_out_of_reach_is_said_at_once(tmp_path):
    """Offline by setting, and with a network that leads nowhere."""
    code = "from tipsv2.collections.pairs import open_pairs\nopen_pairs('hf:nobody/nothing')"
    dead = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"}
    for environment in ({"HF_HUB_OFFLINE": "1"}, dead):
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", code], env=os.environ | environment | {"HF_HOME": str(tmp_path)},
            capture_output=True, text=True, cwd=os.getcwd(),
        )  # fmt: skip
        last = done.stderr.strip().splitlines()[-1]
        assert last.startswith("ValueError: there is no folder 'nobody/nothing' here, and the Hub cannot be reached")
        assert time.perf_counter() - started < 30  # most of it is importing
