"""Uploaded zips: unpacked as they were packed, and everything that should not be is one sentence and writes nothing.

python -m pytest tests/test_train_zip.py
"""

import json
import struct
import zipfile
from pathlib import Path

import datasets
import pytest
from run_folders import pack, pairs, picture, shapes_zip

from demos.train import form as train_form
from demos.train import zips as train_zip
from demos.train.form import RunRequest
from train.data.samples import open_data
from train.recipe import recipes
from train.recipe.overrides import override


@pytest.fixture
def zipped(tmp_path):
    return shapes_zip(tmp_path)


def test_a_zip_is_unpacked_as_it_was_packed(zipped, tmp_path):
    found = train_zip.look(zipped)
    assert (found.images, found.captioned, found.pairs, found.table) == (12, 12, 12, "")
    assert train_zip.unpack(zipped, tmp_path / "data") == tmp_path / "data"
    there = {p.name: p.read_bytes() for p in (tmp_path / "data").rglob("*") if p.is_file()}
    assert there == {p.name: p.read_bytes() for p in (tmp_path / "shapes").iterdir()}


def test_a_zip_may_have_a_table_and_what_systems_leave_in_it(tmp_path):
    table = "file_name,caption\nimg/0.png,zero\nimg/1.png,/ one\n"
    files = {"img/0.png": picture(0), "img/1.png": picture(1), "captions.csv": table}
    files |= {"__MACOSX/img/0.png": b"x", "img/.DS_Store": b"x", "run.exe": b"x", "code.py": b"x"}
    path = pack(tmp_path / "a.zip", files)
    found = train_zip.look(path)
    assert (found.images, found.table, found.pairs) == (2, "captions.csv", 2)
    assert train_zip.unpack(path, tmp_path / "data") == tmp_path / "data" / "captions.csv"
    there = {str(p.relative_to(tmp_path / "data")) for p in (tmp_path / "data").rglob("*") if p.is_file()}
    assert there == {"img/0.png", "img/1.png", "captions.csv"}


def link(path):
    entry = zipfile.ZipInfo("link.png")
    entry.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(entry, "/etc/passwd")


def locked(path):
    pack(path, pairs())
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)


def directory(path):
    """A zip whose end says that its list of files has 200 MB, which are not there."""
    pack(path, pairs())
    content = bytearray(path.read_bytes())
    end = content.index(b"PK\x05\x06")
    content[end + 12 : end + 16] = (200_000_000).to_bytes(4, "little")
    path.write_bytes(content)


def hidden_directory(path):
    """As `directory`, in a Zip64 record; the comment behind it holds what looks like a record of an empty list."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("0.png", picture())
    content = bytearray(path.read_bytes())
    end = content.index(b"PK\x05\x06")
    record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, 40_000_000, 0)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, end, 1)
    comment = b"PK\x06\x06" + bytes(60)
    last = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, 0xFFFFFFFF, 0xFFFFFFFF, len(comment))
    room = bytes(40_000_000 - end)  # the list has to be there for its length to be believed
    path.write_bytes(content[:end] + room + record + locator + last + comment)


def from_the_future(path):
    """A zip that asks for a version of the format that nobody has written yet."""
    pack(path, pairs())
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 6] = 99
    path.write_bytes(content)


@pytest.mark.parametrize(
    "make, told",
    [
        (lambda path: path.write_bytes(b"no zip at all"), "damaged or no zip"),
        (lambda path: path.write_bytes(b""), "damaged or no zip"),
        (lambda path: None, "no longer there"),
        (lambda path: pack(path, {}), "holds no images"),
        (lambda path: pack(path, {"a.txt": "alone"}), "holds no images"),
        (lambda path: pack(path, {"a.png": picture(), "b.png": picture(1)}), "no captions: put NAME.txt"),
        (lambda path: pack(path, pairs(1)), "one image with a caption"),
        (lambda path: pack(path, pairs() | {"../up.png": picture()}), "points outside"),
        (lambda path: pack(path, pairs() | {"a/../../up.png": picture()}), "points outside"),
        (lambda path: pack(path, pairs() | {"..\\up.png": picture()}), "points outside"),
        (lambda path: pack(path, pairs() | {"/etc/up.png": picture()}), "points outside"),
        (lambda path: pack(path, pairs() | {"C:\\up.png": picture()}), "points outside"),
        (lambda path: pack(path, pairs() | {"zeros.png": bytes(60_000_000)}), "would unpack to 0.1 GB"),
        (link, "a link"),
        (locked, "locked by a password"),
        (lambda path: pack(path, pairs() | {"a/C:/up.png": picture()}), "points outside"),
        (directory, "damaged or no zip"),
        (hidden_directory, "more than 50,000 files"),
        (from_the_future, "cannot be read"),
    ],
)
def test_bad_zips_are_one_sentence_and_write_nothing(make, told, tmp_path):
    path = tmp_path / "bad.zip"
    make(path)
    for ask in (train_zip.look, lambda path: train_zip.unpack(path, tmp_path / "data")):
        with pytest.raises(ValueError, match=told) as raised:
            ask(path)
        assert str(raised.value).startswith("bad.zip") and "\n" not in str(raised.value)
    assert not (tmp_path / "data").exists()


def test_two_slashes_in_a_row_do_not_lead_out_of_the_folder(tmp_path):
    victim = tmp_path / "victim.png"
    files = {f"a/{name}": content for name, content in pairs().items()} | {f"a/{victim}": picture()}
    train_zip.unpack(pack(tmp_path / "a.zip", files), tmp_path / "data")
    assert not victim.exists()
    assert (tmp_path / "data" / victim.relative_to("/")).read_bytes() == picture()


def test_damage_inside_a_zip_is_one_sentence(tmp_path):
    path = Path(pack(tmp_path / "bad.zip", pairs()))
    content = bytearray(path.read_bytes())
    start = content.index(b"0.png") + 20
    content[start : start + 40] = bytes(40)
    path.write_bytes(content)
    with pytest.raises(ValueError, match="cannot be unpacked"):
        train_zip.unpack(path, tmp_path / "data")


@pytest.mark.parametrize("kind", ["csv", "jsonl", "json"])
def test_a_zip_cannot_name_files_that_are_not_in_it(kind, tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(picture())
    for name in (str(secret), "../secret.png"):
        files = {"a.png": picture(1), "b.png": picture(2)}
        row = {"file_name": name, "caption": "mine"}
        if kind == "csv":
            files["t.csv"] = f"file_name,caption\na.png,one\n{name},mine\n"
        elif kind == "jsonl":
            files["t.jsonl"] = json.dumps(row) + "\n"
        else:
            files |= {"a.json": json.dumps({"caption": "one", "other": [row]}), "b.txt": "two"}
        with pytest.raises(ValueError, match="which is not in the zip"):
            train_zip.unpack(pack(tmp_path / "t.zip", files), tmp_path / "data")


@pytest.mark.parametrize("there", [True, False])
def test_a_refusal_does_not_say_which_files_there_are(there, tmp_path):
    secret = tmp_path / "secret.png"
    if there:
        secret.write_bytes(picture())
    files = {"a.png": picture(1), "b.png": picture(2), "t.csv": f"file_name,caption\na.png,one\n{secret},mine\n"}
    with pytest.raises(ValueError) as raised:
        train_zip.unpack(pack(tmp_path / "t.zip", files), tmp_path / "data")
    assert str(raised.value) == f"t.zip: t.csv names the file '{str(secret)[:80]}', which is not in the zip."


@pytest.mark.parametrize("name", ["/dev/zero", "/etc/passwd", "../../../other/app/data/0"])
def test_a_row_without_the_name_of_a_picture_is_left_to_the_reader(name, tmp_path, monkeypatch):
    """A caption may be any text, so an image is known by its column: tests/test_pairs.py has what reads it."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    files = {"a.png": picture(1), "b.png": picture(2), "t.csv": f"file_name,caption\na.png,one\n{name},/ mine\n"}
    source = train_zip.unpack(pack(tmp_path / "t.zip", files), tmp_path / "data")
    fields = train_form.columns(RunRequest("a", data="zip"))
    data = override(recipes.get("finetune"), [f"data.source={source}", *fields]).data
    first, second = open_data(data)
    assert first.open().size == (8, 8) and second.image is None and "no other file is read" in second.problem


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_table_that_is_read_otherwise_elsewhere_hides_no_file(kind, tmp_path):
    """The tables' readers take what Python's own stop at: a cell of 200 kB, an object over several lines."""
    secret = tmp_path / "secret.png"
    secret.write_bytes(picture())
    table = {
        "csv": f"file_name,caption\na.png,{'x' * 200_000}\n{secret},mine\n",
        "jsonl": f'{{"file_name":\n"{secret}", "caption": "mine"}}\n{{"file_name":\n"a.png", "caption": "one"}}\n',
    }
    files = {"a.png": picture(1), "b.png": picture(2), f"t.{kind}": table[kind]}
    with pytest.raises(ValueError, match=r"which is not in the zip|t.jsonl cannot be read"):
        train_zip.unpack(pack(tmp_path / "t.zip", files), tmp_path / "data")


def test_no_nesting_and_no_long_path_hides_a_file(tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(picture())
    row = {"caption": "mine", "other": str(secret)}
    deep = f'{json.dumps(row)[:-1]}, "deep": {"[" * 960}{"]" * 960}}}'
    far = json.dumps({"caption": "mine", "other": "/" + "./" * 1000 + str(secret)[1:]})
    for sidecar, told in ((deep, "a.json cannot be read"), (far, "which is not in the zip")):
        files = {"a.png": picture(1), "b.png": picture(2), "a.json": sidecar, "b.txt": "two"}
        with pytest.raises(ValueError, match=told):
            train_zip.unpack(pack(tmp_path / "t.zip", files), tmp_path / "data")


def test_what_the_disk_refuses_is_said_without_its_paths(tmp_path):
    path = pack(tmp_path / "bad.zip", pairs() | {"0.png/1.png": picture()})
    with pytest.raises(ValueError, match="bad.zip cannot be unpacked") as raised:
        train_zip.unpack(path, tmp_path / "data")
    assert str(tmp_path) not in str(raised.value)
