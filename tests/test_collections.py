"""Data as people have it: what each layout and each program's habits give, on files of a few kilobytes.

python -m pytest tests/test_collections.py
"""

import codecs
import gzip
import io
import json
import re
import subprocess
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import datasets
import numpy as np
import photos
import pyarrow as pa
import pytest
import test_pairs

from tipsv2.__main__ import main as embed_or_evaluate
from tipsv2.collections.pairs import open_pairs
from tipsv2.collections.repeated_rows import RepeatedRows
from tipsv2.collections.text_files import encoding_of, listed
from tipsv2.images import ImageError
from train.recipe.settings import Data
from train.tools.check import look_through

COUNT = 4
EXPECTED = [(i, (f"picture number {i}",)) for i in range(COUNT)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def contents(pairs):
    return [(photos.number_of(pair.open()), pair.captions["web"]) for pair in pairs]


def table(path, separator=",", encoding="utf-8", name="table.csv", text="picture number {}"):
    photos.folder(path / "images", COUNT)
    rows = [separator.join(["image", "caption"])]
    rows += [separator.join([f"images/{i:03}.png", f'"{text.format(i)}"']) for i in range(COUNT)]
    (path / name).write_bytes(("\r\n".join(rows) + "\r\n").encode(encoding))
    return path / name


def pictures(path, names=None):
    path.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names or [f"{i:03}.png" for i in range(COUNT)]):
        (path / name).write_bytes(photos.encoded(i))
    return path


def coco(path):
    pictures(path / "train2017")
    names = [{"id": 10 + i, "file_name": f"{i:03}.png"} for i in range(COUNT)]
    rows = [{"image_id": 10 + i, "id": i, "caption": f"picture number {i} "} for i in reversed(range(COUNT))]
    (path / "annotations").mkdir()
    file = path / "annotations" / "captions_train2017.json"
    file.write_text(json.dumps({"info": {}, "images": names, "annotations": rows}))
    return file


def karpathy(path):
    pictures(path / "train2014")
    images = [
        {"filepath": "train2014", "filename": f"{i:03}.png", "split": ("train", "restval", "train", "test")[i % 4],
         "sentences": [{"raw": f"picture number {i}", "tokens": []}, {"raw": f"again {i}"}]} for i in range(COUNT)
    ]  # fmt: skip
    (path / "dataset_coco.json").write_text(json.dumps({"dataset": "coco", "images": images}))
    return path / "dataset_coco.json"


def img2dataset(path):
    """output_format=files: a folder a shard, and its records as parquet and json beside it."""
    for shard in range(2):
        at = path / f"{shard:05}"
        for i in range(2 * shard, 2 * shard + 2):
            pictures(at)
            (at / f"{i:03}.txt").write_text(f"picture number {i}")
            (at / f"{i:03}.json").write_text(json.dumps({"caption": f"picture number {i}", "status": "success"}))
        for file in [*at.glob("*.png")]:
            if int(file.stem) // 2 != shard:
                file.unlink()
        rows = {"url": ["http://example.org/a.jpg"], "caption": ["a"], "status": ["success"]}
        pa.parquet.write_table(pa.table(rows), path / f"{shard:05}.parquet")
        (path / f"{shard:05}_stats.json").write_text("{}")
    return path


def saved(path, kind):
    rows = {"image": [f"{i}.png" for i in range(COUNT)], "caption": [text for _, (text,) in EXPECTED]}
    rows["image"] = [{"bytes": photos.encoded(i), "path": None} for i in range(COUNT)]
    data = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
    whole = data if kind == "one" else datasets.DatasetDict({"train": data, "test": data.select([0])})
    whole.save_to_disk(path / "saved")
    return path / "saved"


def class_folders(path, part=""):
    for i, name in enumerate(("golden_retriever", "tabby-cat", "red fox", "snow")):
        pictures(path / part / name, ["x.png"])
        (path / part / name / "x.png").write_bytes(photos.encoded(i))
    return path


def tar(path, members, suffix=""):
    with tarfile.open(path, "w" + suffix) as file:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


def members(image, text):
    return [
        (form.format(i), data)
        for i in range(COUNT)
        for form, data in ((image, photos.encoded(i)), (text, f"picture number {i}".encode()))
    ]


LAYOUTS = {  # what was given -> how it is made, the note that says what was guessed
    "semicolons": (lambda path: table(path, ";"), "parted by semicolons"),
    "tabs in a csv": (lambda path: table(path, "\t"), "parted by tabs"),
    "commas in a tsv": (lambda path: table(path, name="table.tsv"), "parted by commas"),
    "UTF-8 with a mark": (lambda path: table(path, encoding="utf-8-sig"), ""),
    "UTF-16": (lambda path: table(path, encoding="utf-16"), "is UTF-16, not UTF-8"),
    "COCO's captions": (coco, ""),
    "img2dataset's files": (img2dataset, ""),
    "save_to_disk": (lambda path: saved(path, "one"), ""),
    "save_to_disk of splits": (lambda path: saved(path, "splits"), ""),
    "a.b.png in a tar": (lambda path: tar(path / "x.tar", members("img.{}.png", "img.{}.txt")), ""),
    "versions in a tar": (lambda path: tar(path / "x.tar", members("d/{}.v2.png", "d/{}.v2.txt")), ""),
    "input and outputs": (lambda path: tar(path / "x.tar", members("{}.input.png", "{}.outputs.txt")), ""),
    "the same in a tar.gz": (
        lambda path: tar(path / "x.tar.gz", members("{}.input.png", "{}.outputs.txt"), ":gz"), ""),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_its_pairs_and_says_what_it_guessed(layout, tmp_path):
    make, note = LAYOUTS[layout]
    pairs = open_pairs(make(tmp_path))
    assert contents(pairs) == EXPECTED
    assert bool(pairs.notes) == bool(note) and all(note in each for each in pairs.notes)
    assert "mask" not in pairs.mapping


def test_the_page_has_a_row_for_every_layout():
    """The first column of the first table of docs/data.md."""
    page = (Path(__file__).parents[1] / "docs" / "data.md").read_text("utf-8")
    table = page.split("\n| given |")[1].split("\n\n")[0]
    assert re.findall(r"^\| (.+?) \|", table, re.MULTILINE) == [*test_pairs.LAYOUTS, *LAYOUTS]


def test_splits_are_chosen_and_said(tmp_path):
    chosen = open_pairs(karpathy(tmp_path / "k"))
    assert contents(chosen) == [(i, (f"picture number {i}", f"again {i}")) for i in (0, 1, 2)]
    assert "of its splits train, restval, test, train and restval is read" in chosen.notes[0]
    assert [number for number, _ in contents(open_pairs(karpathy(tmp_path / "t"), split="test"))] == [3]
    with pytest.raises(ValueError, match="no split 'val'; it has train, restval, test: set data.split"):
        open_pairs(tmp_path / "t" / "dataset_coco.json", split="val")
    assert contents(open_pairs(saved(tmp_path, "splits"), split="test")) == EXPECTED[:1]
    with pytest.raises(ValueError, match="no split 'val', but train, test: set data.split"):
        open_pairs(tmp_path / "saved", split="val")
    for part in ("train", "test"):
        class_folders(tmp_path / "root", part)
    (tmp_path / "root" / "test" / "snow" / "x.png").unlink()
    pairs = open_pairs(tmp_path / "root")
    assert len(pairs) == 4 and len(open_pairs(tmp_path / "root", split="test")) == 3
    assert "has the parts test, train: train is read" in pairs.notes[0]
    with pytest.raises(ValueError, match="no folder dev; it has test, train"):
        open_pairs(tmp_path / "root", split="dev")
    table(tmp_path / "with" / "train", name="metadata.csv")
    pictures(tmp_path / "with" / "test")
    assert contents(open_pairs(tmp_path / "with")) == EXPECTED


def test_folders_of_classes_are_names(tmp_path):
    pairs = open_pairs(class_folders(tmp_path / "x"))
    said = {photos.number_of(pair.open()): pair.captions["web"] for pair in pairs}
    assert said == {0: ("golden retriever",), 1: ("tabby cat",), 2: ("red fox",), 3: ("snow",)}
    assert "no captions: the names of its 4 folders are taken for them (golden retriever, red fox" in pairs.notes[0]
    for numbered in ("00000", "n01440764"):
        pictures(tmp_path / "y" / numbered)
    with pytest.raises(ValueError, match="images but no captions"):
        open_pairs(tmp_path / "y")


def test_a_tree_of_coco_is_read_by_its_captions(tmp_path):
    """Not by the names of its folders, which say nothing of the images."""
    coco(tmp_path / "coco")
    pictures(tmp_path / "coco" / "val2017")
    pairs = open_pairs(tmp_path / "coco")
    assert contents(pairs) == EXPECTED and "captions are read from" in pairs.notes[0]
    with pytest.raises(ValueError, match="captions_train2017.json, 0 of them for data.split=val: give one"):
        open_pairs(tmp_path / "coco", split="val")
    karpathy(tmp_path / "k")
    assert [number for number, _ in contents(open_pairs(tmp_path / "k", split="test"))] == [3]
    for folder in ("train2017", "val 2017"):
        pictures(tmp_path / "bare" / folder)
    with pytest.raises(ValueError, match="images but no captions"):
        open_pairs(tmp_path / "bare")


def test_annotations_without_their_images_say_where_to_put_them(tmp_path):
    file = coco(tmp_path)
    for image in (tmp_path / "train2017").iterdir():
        image.unlink()
    with pytest.raises(
        ValueError, match=r"names images such as 000.png, and none is near it: put them into .*train2017"
    ):
        open_pairs(file)
    for content in ("{}", "[]", '{"images": [1]}', "{", '{"images": [], "annotations": []}', "[" * 10**5):
        file.write_text(content)
        with pytest.raises(ValueError, match="does not hold captions as COCO's|names no image") as error:
            open_pairs(file)
        assert "\n" not in str(error.value)


# Encodings


@pytest.mark.parametrize("name", ["table.csv", "table.jsonl"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16", "utf-16-le", "utf-16-be"])
def test_letters_survive_every_encoding(tmp_path, encoding, name):
    text = "Zürich, naïve café “{}”"
    if name.endswith("csv"):
        file = table(tmp_path, encoding=encoding, text=text)
    else:
        photos.folder(tmp_path / "images", COUNT)
        rows = [{"image": f"images/{i:03}.png", "caption": text.format(i)} for i in range(COUNT)]
        file = tmp_path / name
        file.write_bytes("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode(encoding))
    pairs = open_pairs(file)
    assert contents(pairs) == [(i, (text.format(i),)) for i in range(COUNT)]
    assert bool(pairs.notes) == (not encoding.startswith("utf-8"))


def test_a_broken_character_is_refused_and_not_taken_for_another_encoding(tmp_path):
    file = table(tmp_path, text="Zürich {}")
    whole = file.read_bytes()
    for broken in (whole.replace(b"\xc3\xbcrich 2", b"\xc3rich 2"), whole.replace("ü".encode(), b"\x81")):
        file.write_bytes(broken)
        with pytest.raises(ValueError, match=r"table.csv: it is neither UTF-8 nor .* Windows-1252: save it as UTF-8\."):
            open_pairs(file)
    file.write_bytes(codecs.BOM_UTF16_LE + b"a\0\0\xd8b\0")
    with pytest.raises(ValueError, match="begins as UTF-16 and does not go on"):
        open_pairs(file)


@pytest.mark.parametrize(
    ("name", "start", "advice"),
    [
        ("table.csv", None, "it is a spreadsheet .* save it as CSV"),
        ("table.tsv", bytes.fromhex("d0cf11e0a1b11ae1"), "it is an old spreadsheet .* save it as CSV"),
        ("table.csv", gzip.compress(b"image,caption"), "it is packed with gzip: unpack it"),
        ("table.jsonl", b"PAR1", "it is parquet: name it .parquet"),
    ],
    ids=["spreadsheet", "old_spreadsheet", "gzip", "parquet"],
)
def test_a_file_that_was_renamed_to_a_table_is_refused_as_what_it_is(tmp_path, name, start, advice):
    file = tmp_path / name
    if start is None:
        with zipfile.ZipFile(file, "w") as book:
            book.writestr("xl/workbook.xml", "<workbook/>")
    else:
        file.write_bytes(start)
    with pytest.raises(ValueError, match=rf"{re.escape(name)}: {advice}"):
        open_pairs(file)


def test_a_row_whose_image_cell_is_empty_is_named_by_its_number(tmp_path):
    pictures(tmp_path, ["000.png"])
    (tmp_path / "table.csv").write_text("image,caption\n000.png,a cat\n,an orphan\n")
    pairs = open_pairs(tmp_path / "table.csv")
    assert [pair.name for pair in pairs] == ["000.png", "row 2"]
    with pytest.raises(ImageError, match=r"^row 2: it has no image\.$"):
        pairs[1].open()


def test_sidecars_and_tars_in_other_encodings(tmp_path):
    pictures(tmp_path / "x", ["a.png", "b.png", "c.png"])
    (tmp_path / "x" / "a.txt").write_bytes("süß".encode("cp1252"))
    (tmp_path / "x" / "b.txt").write_bytes("süß".encode("utf-16"))
    (tmp_path / "x" / "c.txt").write_bytes("süß".encode()[:-1])
    a, b, c = open_pairs(tmp_path / "x")
    assert a.captions == b.captions == {"web": ("süß",)} and not c.captions and "its .txt cannot be read" in c.problem
    file = tar(tmp_path / "x.tar", [("a.png", photos.encoded(0)), ("a.txt", "süß".encode("cp1252"))])
    assert contents(open_pairs(file)) == [(0, ("süß",))]


def test_pieces_of_any_length_have_the_encoding_of_the_whole():
    for text, codec in (("ü" * 50, "utf-8"), ("ü" * 50, "cp1252"), ("a", "utf-8"), ("", "utf-8")):
        data = text.encode(codec)
        for size in (1, 2, 3, 1000):
            assert encoding_of(lambda d=data, s=size: (d[i : i + s] for i in range(0, len(d), s))) == codec


# Several captions of one image


@pytest.mark.parametrize(
    "cell",
    ['["a dog, wet", "two\\ndogs"]', "['a dog, wet', 'two\\ndogs']", "['a dog, wet' 'two\\ndogs']",
     "['a dog, wet'\n 'two\\ndogs']", "[\"a dog, wet\", 'two\\ndogs']"],
)  # fmt: skip
def test_a_column_of_lists(tmp_path, cell):
    assert listed(cell) == ("a dog, wet", "two\ndogs")
    photos.folder(tmp_path / "images", 1)
    quoted = '"' + cell.replace('"', '""') + '"'
    (tmp_path / "t.csv").write_text(f"image,captions\nimages/000.png,{quoted}\n")
    (pair,) = open_pairs(tmp_path / "t.csv")
    assert pair.captions == {"web": ("a dog, wet", "two\ndogs")}


@pytest.mark.parametrize(
    "cell", ["[a dog]", "[1, 2]", "[]", "a [dog]", "['a', 3]", "[unknown", "[b'a']", "['a'.x]", "['a", "[" * 9999 + "]"]
)
def test_text_in_brackets_stays_text(cell):
    assert listed(cell) is None


def test_rows_of_one_image_are_one_pair_and_it_says_so(tmp_path):
    photos.folder(tmp_path / "images", 3)
    rows = ["image,caption,short"] + [f"images/00{i}.png,{text},s" for i, text in
            ((2, "c"), (0, "a"), (1, "b"), (0, "aa"), (2, "c"), (0, "aaa"))]  # fmt: skip
    (tmp_path / "t.csv").write_text("\n".join(rows) + "\n")
    pairs = open_pairs(tmp_path / "t.csv")
    assert contents(pairs) == [(2, ("c",)), (0, ("a", "aa", "aaa")), (1, ("b",))] and len(pairs) == 3
    assert pairs[1].captions["short"] == ("s",) and [pair.name for pair in pairs.read(0)][2] == "images/001.png"
    assert "6 rows name 3 images; the rows of an image are one pair with all their captions." in pairs.notes[0]
    assert "note: " + pairs.notes[0] in str(look_through(Data(source=str(tmp_path / "t.csv")), show=False))
    with pytest.raises(IndexError):
        pairs[3]


def test_embed_and_evaluate_say_what_was_guessed_too(tmp_path, tiny_folder, capsys):
    file = table(tmp_path, ";")
    commands = (
        ["embed", str(file), "--out", str(tmp_path / "embedded")],
        ["evaluate", "retrieval", "--data", str(file)],
    )
    for command in commands:
        assert embed_or_evaluate([*command, "--model", str(tiny_folder), "--device", "cpu"]) == 0
        assert f"{file}: its columns are parted by semicolons." in capsys.readouterr().err


def test_grouping_is_that_of_a_loop():
    rng = np.random.default_rng(0)
    for _ in range(20):
        names = [rng.choice([None, "", *"abcdef"]) for _ in range(int(rng.integers(1, 30)))]
        expected = {}
        for row, name in enumerate(names):
            expected.setdefault(name or ("none", row), []).append(row)
        groups = RepeatedRows.of(pa.chunked_array([names[:7], names[7:]], pa.string()))
        if len(expected) == len(names):
            assert groups is None
        else:
            assert [groups[i] for i in range(len(groups))] == list(expected.values()) and groups[-1] == groups[
                len(groups) - 1
            ]


def test_captions_as_dictionaries(tmp_path):
    photos.folder(tmp_path / "images", 1)
    row = {
        "image": "images/000.png",
        "sentences": [{"raw": "one", "tokens": ["one"]}, {"raw": "two", "tokens": ["two"]}],
    }
    (tmp_path / "t.jsonl").write_text(json.dumps(row) + "\n")
    assert open_pairs(tmp_path / "t.jsonl")[0].captions == {"web": ("one", "two")}


# Tars


def test_samples_that_lie_apart_are_said_with_the_command_that_sorts_them(tmp_path):
    both = members("{}.png", "{}.txt")
    apart = tar(tmp_path / "apart.tar", both[::2] + both[1::2])
    with pytest.raises(ValueError, match=r"lie apart, .* sort it with mkdir .*-sorted\.tar unpacked\.$") as error:
        open_pairs(apart)
    command = str(error.value).partition("sort it with ")[2].rstrip(".")
    subprocess.run(command, shell=True, check=True, cwd=tmp_path)
    assert contents(open_pairs(tmp_path / "apart-sorted.tar")) == EXPECTED
    long = [member for k in range(40) for member in ((f"{k}.png", photos.encoded(k)),)] * 2  # more than is peeked at
    long = [(f"{n}{name}", data) for n, (name, data) in enumerate(long)]
    late = tar(tmp_path / "late.tar", [*long, *((name[:-3] + "txt", b"x") for name, _ in long)])
    with pytest.raises(ValueError, match="lie apart"):
        open_pairs(late)
    alone = tar(tmp_path / "alone.tar", both[::2])
    assert len(list(open_pairs(alone, captions=False))) == COUNT  # images without any text are no mistake
    assert contents(open_pairs(tar(tmp_path / "sorted.tar", sorted(both)))) == EXPECTED


def test_sparse_and_lying_members_cost_no_memory(tmp_path):
    file = tmp_path / "x.tar"
    with file.open("wb") as out:
        for i, size in enumerate((None, 60 * 1024**3, None)):
            data = photos.encoded(i)
            for name, content in ((f"{i}.png", data), (f"{i}.txt", f"picture number {i}".encode())):
                info = tarfile.TarInfo(name)
                info.size = size if size and name.endswith("png") else len(content)
                out.write(info.tobuf(tarfile.GNU_FORMAT))
                content = b"" if size and name.endswith("png") else content
                out.write(content + b"\0" * (-len(content) % 512))
                if size and name.endswith("png"):
                    out.seek(-(-size // 512) * 512, io.SEEK_CUR)  # a hole: the file takes no room
        out.write(b"\0" * 1024)
    tracemalloc.start()
    first, lying, last = open_pairs(file)
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()
    assert photos.number_of(first.open()) == 0 and photos.number_of(last.open()) == 2
    with pytest.raises(ImageError, match=r"its \.png is 64\.4 GB, which is not read from a tar"):
        lying.open()


@pytest.mark.parametrize("kind", ["gnu", "pax"])
def test_a_sparse_member_as_tar_writes_it_costs_no_memory(tmp_path, kind):
    folder = pictures(tmp_path / "x", ["0.png", "2.png"])
    with (folder / "1.png").open("wb") as file:
        file.truncate(3 * 1024**3)
    for i in range(3):
        (folder / f"{i}.txt").write_text(f"picture number {i}")
    command = ["tar", "--sparse", "--sort=name", f"--format={kind}", "-cf", tmp_path / "s.tar", "-C", folder, "."]
    subprocess.run(command, check=True)
    assert (tmp_path / "s.tar").stat().st_size < 50_000
    tracemalloc.start()
    first, sparse, last = open_pairs(tmp_path / "s.tar")
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()
    assert first.open() and last.open()
    with pytest.raises(ImageError, match=r"its \.png is a sparse file, which is not read from a tar"):
        sparse.open()
