"""Embedding a collection: every row exactly once whoever is killed, vectors as of Encoder, one sentence on bad input.

python -m pytest tests/test_embed.py
"""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import photos
import pytest
import torch
import torch.nn.functional as F

from tipsv2.__main__ import main
from tipsv2.collections.embed import embed
from tipsv2.collections.parts import End, open_collection
from tipsv2.collections.prefetch import ahead
from tipsv2.collections.store import open_table, read_captions, read_embeddings, read_manifest, read_patches

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """`datasets` keeps Arrow copies of parquet: not in the home of whoever runs the tests."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def mixed(tmp_path) -> Path:
    """Seven pictures in three shapes, with captions."""
    folder = photos.folder(tmp_path / "mixed", 7)
    for number, size in enumerate([(40, 30), (30, 40), (64, 64), (40, 30), (120, 30), (30, 40), (40, 30)]):
        photos.picture(number, size).save(folder / f"{number:03}.png")
    return folder


def rows_of(collection, workers, done=()):
    """All workers' parts: {(shard, part): [(name, number)]}; fails where a row has no part."""
    found = {}
    for worker in range(workers):
        rows = []
        for item in collection.rows(worker, workers, done):
            if isinstance(item, End):
                assert (item.shard, item.part) not in found, "a part has two workers"
                found[item.shard, item.part] = rows
                rows = []
            else:
                rows.append((item.load(14).name, item.number))
        assert not rows
    return found


@pytest.mark.parametrize("kind", ["folder", "tars", "one tar", "scenes"])
def test_parts_do_not_depend_on_the_number_of_workers(kind, tmp_path):
    sizes = {"tars": (7, 3, 6, 1), "one tar": (12,)}.get(kind)
    data = {"folder": lambda: photos.folder(tmp_path / "data", 17), "scenes": lambda: "scenes"}.get(
        kind, lambda: photos.shards(tmp_path / "data", *sizes)
    )()
    collection = open_collection(data, 3, limit=11 if kind == "scenes" else None)
    alone = rows_of(collection, 1)
    names = [name for rows in alone.values() for name, _ in rows]
    assert len(names) == len(set(names)) == {"folder": 17, "scenes": 11}.get(kind, sum(sizes or ()))
    assert max(map(len, alone.values())) == 3
    rng = random.Random(0)
    for workers in (2, 3, 7):
        assert rows_of(collection, workers) == alone
        done = {part for part in alone if rng.random() < 0.5}  # whatever was written before the kill
        assert rows_of(collection, workers, done) == {part: rows for part, rows in alone.items() if part not in done}
        if collection.count is not None:
            left = sum(len(rows) for part, rows in alone.items() if part not in done)
            assert sum(collection.missing(worker, workers, done) for worker in range(workers)) == left


def test_the_last_part_is_marked_also_when_it_is_full(tmp_path):
    for name, data in (("stream", photos.shards(tmp_path / "tars", 6, 4)), ("rows", photos.folder(tmp_path / "x", 6))):
        ends = [item for item in open_collection(data, 3).rows(0, 1, ()) if isinstance(item, End)]
        assert ends[:2] == [End(0, 0, False), End(0, 1, True)], name
    assert open_collection(tmp_path / "tars", 3).pair(1, 2).name == "000000008.png in 00001.tar"


def test_vectors_patches_and_captions_equal_the_encoder(mixed, tiny_encoder, tmp_path):
    out = tmp_path / "out"
    made = embed(tiny_encoder, mixed, out, "values", True, 42, batch_size=2, shard_size=4, progress=False)
    assert (made["complete"], made["images"], made["captions"], made["unreadable"]) == (True, 7, 7, 0)
    ids, arrays = read_embeddings(out)
    table = open_table(out)
    assert ids == [f"{number:03}.png#{number + 1}" for number in range(7)]
    for number, name in enumerate(f"{number:03}.png" for number in range(7)):
        expected = tiny_encoder.encode_image(mixed / name, 42)
        for kind in ("cls", "caption_cls"):
            assert np.allclose(arrays[kind][number], F.normalize(getattr(expected, kind), dim=-1), atol=1e-5)
        grid = read_patches(out, table[number])
        assert grid.dtype == np.float16 and np.allclose(grid, expected.values, atol=1e-5, rtol=1e-3)
        assert (table[number]["height"], table[number]["width"]) == expected.size
    captions, vectors = read_captions(out)
    assert captions[3] == {"id": "003.png#4", "role": "web", "text": "picture number 3"}
    texts = tiny_encoder.encode_text([row["text"] for row in captions])
    assert np.allclose(vectors, texts, atol=1e-5)
    final = tmp_path / "final"
    embed(tiny_encoder, mixed, final, "final", resolution=42, progress=False)
    assert np.allclose(
        read_patches(final, open_table(final)[0]), tiny_encoder.encode_image(mixed / "000.png", 42).patches, atol=1e-2
    )
    assert not np.allclose(read_patches(final, open_table(final)[0]), read_patches(out, table[0]), atol=1e-2)
    with pytest.raises(ValueError, match="without --captions"):
        read_captions(final)


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet", "tars"])
def test_every_kind_of_data(kind, tmp_path, tiny_encoder):
    from datasets import Dataset

    folder = photos.folder(tmp_path / "data", 5)
    names = [f"{number:03}.png" for number in range(5)]
    data, expected = folder / f"table.{kind}", [f"{name}#{row}" for row, name in enumerate(names, 1)]
    if kind in ("csv", "tsv"):
        lines = [("photo", "words"), *((name, "a dog") for name in names)]
        data.write_text("\n".join(("," if kind == "csv" else "\t").join(line) for line in lines))
    elif kind == "jsonl":
        data.write_text("\n".join(json.dumps({"photo": name, "words": "a dog"}) for name in names))
    elif kind == "parquet":
        pictures = [(folder / name).read_bytes() for name in names]
        Dataset.from_dict({"photo": pictures, "words": ["a dog"] * 5}).to_parquet(data)
        expected = [f"row {row}#{row}" for row in range(1, 6)]
    else:
        data = photos.shards(tmp_path / "tars", 3, 2)
        expected = [
            f"{n:09}.png in {s - 1:05}.tar#{s}.{r}" for n, (s, r) in enumerate([(1, 1), (1, 2), (1, 3), (2, 1), (2, 2)])
        ]
    columns = {} if kind == "tars" else {"image": "photo", "web": "words"}
    made = embed(tiny_encoder, data, tmp_path / "out", captions=True, shard_size=2, columns=columns, progress=False)
    ids, arrays = read_embeddings(tmp_path / "out")
    assert ids == expected and made["captions"] == 5
    for row, number in enumerate(range(5)):
        cls = F.normalize(tiny_encoder.encode_image(photos.picture(number)).cls, dim=-1)
        assert np.allclose(arrays["cls"][row], cls, atol=1e-5)


@pytest.mark.slow
def test_a_killed_worker_loses_and_doubles_nothing(tiny_folder, tiny_encoder, tmp_path):
    """Two processes, one killed with -9 in the middle, the rest done by three."""
    out, count = tmp_path / "out", 600
    command = [sys.executable, "-m", "tipsv2", "embed", "scenes", "--limit", str(count), "--shard-size", "6"]
    command += ["--out", str(out), "--model", str(tiny_folder), "--dtype", "float32", "--device", "cpu"]
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}
    launched = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}  # as torchrun says it
    both = [subprocess.Popen(command, env=os.environ | launched | {"RANK": str(rank)}, **quiet) for rank in (0, 1)]
    deadline = time.monotonic() + 300
    while not any((out / "images").glob("000000-*[13579].parquet")):  # the second worker's parts have odd numbers
        assert time.monotonic() < deadline and both[1].poll() is None, both[1].communicate()
        time.sleep(0.01)
    both[1].send_signal(signal.SIGKILL)
    printed, errors = both[0].communicate(timeout=300)
    assert both[0].returncode == 0, errors
    both[1].communicate()
    assert both[1].returncode == -signal.SIGKILL and "complete once the others are" in printed
    before = {file: file.stat().st_mtime_ns for file in (out / "images").iterdir()}
    assert 50 < len(before) < 100 and not read_manifest(out)["complete"]
    # a part that was being written when the kill came is not taken for one
    (out / "images" / "000000-000099-last.part").write_bytes(b"half")
    for worker in (3, 1, 2):
        made = embed(tiny_encoder, "scenes", out, shard_size=6, limit=count, worker=(worker, 3), progress=False)
    assert made["complete"] and made["images"] == count
    assert all(file.stat().st_mtime_ns == stamp for file, stamp in before.items()), "a finished part was done again"
    ids, arrays = read_embeddings(out)
    assert ids == [f"scene {seed}#{seed + 1}" for seed in range(count)]
    assert np.allclose(np.linalg.norm(arrays["cls"], axis=1), 1, atol=1e-5)


def test_leftovers_of_killed_writers_go(mixed, tiny_encoder, tmp_path):
    out = tmp_path / "out"
    (out / ".writing").mkdir(parents=True)
    (out / ".writing" / "images-000000-000000-last.parquet.elsewhere-77").write_bytes(b"half")
    embed(tiny_encoder, mixed, out, progress=False)
    assert not any((out / ".writing").iterdir())


def test_unreadable_images_are_listed_and_left_out(tmp_path, tiny_folder, capsys):
    folder = photos.folder(tmp_path / "data", 10)
    for number in (0, 2, 4, 6):
        (folder / f"{number:03}.png").write_bytes(b"not a picture")
    (folder / "009.png").write_bytes((folder / "009.png").read_bytes()[:60])
    command = ["embed", str(folder), "--out", str(tmp_path / "out"), "--model", str(tiny_folder), "--shard-size", "4"]
    assert main(command) == 0
    assert "5 images" in capsys.readouterr().out
    ids, _ = read_embeddings(tmp_path / "out")
    assert ids == [f"{number:03}.png#{number + 1}" for number in (1, 3, 5, 7, 8)]
    lines = [
        json.loads(x) for file in (tmp_path / "out" / "unreadable").iterdir() for x in file.read_text().splitlines()
    ]
    assert (
        sorted(line["row"] for line in lines) == [0, 2, 4, 6, 9] and read_manifest(tmp_path / "out")["unreadable"] == 5
    )
    assert all(line["problem"].startswith(line["id"].split("#")[0]) and line["what"] == "image" for line in lines)
    for file in folder.glob("*.png"):
        file.write_bytes(b"")
    assert main([*command, "--out", str(tmp_path / "none")]) == 2
    assert "none of its images can be read" in capsys.readouterr().err


def test_a_tar_that_is_cut_off_keeps_what_is_before(tmp_path, tiny_encoder):
    data = photos.shards(tmp_path / "tars", 4, 4)
    whole = (data / "00000.tar").read_bytes()
    (data / "00000.tar").write_bytes(whole[: len(whole) // 2 - 100])
    made = embed(tiny_encoder, data, tmp_path / "out", progress=False)
    assert made["complete"] and made["unreadable"] == 1 and 5 <= made["images"] <= 7


def test_a_full_disk_keeps_what_is_finished(mixed, tiny_folder, tmp_path, monkeypatch, capsys):
    real, calls = os.fsync, []

    def full(handle):
        calls.append(handle)
        if len(calls) > 3:  # the manifest and two parts fit
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    out = tmp_path / "out"
    command = ["embed", str(mixed), "--out", str(out), "--model", str(tiny_folder), "--shard-size", "2"]
    assert main(command) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("tipsv2: '") and "000000-000002.parquet' cannot be written (No space left on device)" in said
    assert len(list((out / "images").iterdir())) == 2 and not any((out / ".writing").iterdir())
    monkeypatch.setattr(os, "fsync", real)
    assert main(command) == 0
    assert len(read_embeddings(out)[0]) == 7


def test_ctrl_c_keeps_finished_shards(mixed, tiny_folder, tmp_path, monkeypatch, capsys):
    from tipsv2.network.encoder import Encoder

    real, calls = Encoder.encode_pixels, []

    def stopping(self, pixels, **options):
        calls.append(len(pixels))
        if len(calls) == 5:
            raise KeyboardInterrupt
        return real(self, pixels, **options)

    monkeypatch.setattr(Encoder, "encode_pixels", stopping)
    command = ["embed", str(mixed), "--out", str(tmp_path / "out"), "--model", str(tiny_folder), "--shard-size", "2"]
    assert main(command) == 130
    assert "the same command goes on" in capsys.readouterr().err
    kept = len(list((tmp_path / "out" / "images").iterdir()))
    assert kept in (2, 3)
    calls.append(0)
    assert main(command) == 0 and len(read_embeddings(tmp_path / "out")[0]) == 7


def test_a_folder_of_other_settings_is_refused(mixed, tiny_folder, tiny_encoder, tmp_path, capsys):
    from conftest import make_model

    out = tmp_path / "out"
    command = ["embed", str(mixed), "--out", str(out), "--model", str(tiny_folder), "--dtype", "float32"]
    assert main(command) == 0
    files = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    other = tmp_path / "other"
    make_model(len(tiny_encoder.tokenizer), seed=1).save_pretrained(other)
    tiny_encoder.tokenizer.save_pretrained(other)
    for more, said in (
        (["--model", str(other)], f"with the weights of another model ({tiny_folder}): choose another --out"),
        (["--resolution", "28"], "with resolution 56 and not 28: choose"),
        (["--dtype", "bfloat16"], "with dtype 'float32' and not 'bfloat16'"),
        (["--patches"], "patches '' and not 'values'"),
        (["--limit", "3"], "with rows 7 and not 3"),
    ):
        assert main([*command, *more]) == 2
        assert said in capsys.readouterr().err.strip().splitlines()[-1]
    (mixed / "003.png").rename(mixed / "0035.png")  # as many rows, in another order
    (mixed / "000.png").rename(mixed / "9.png")
    assert main(command) == 2
    assert "with other rows by the same name: choose" in capsys.readouterr().err
    assert files == {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}


def test_bad_input_is_one_sentence(mixed, tiny_folder, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "numbers.csv").write_text("a,b\n1,2\n")
    photos.shards(tmp_path / "tars", 2)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "manifest.json").write_text("[")
    for data, more, said in (
        (tmp_path / "empty", [], "holds no images"),
        (tmp_path / "numbers.csv", [], "no column of images; its columns are a, b. Name it: data.image=COLUMN"),
        (tmp_path / "nowhere", [], "there is no file or folder"),
        ("scenes:nowhere", [], "scenes:val"),
        ("scenes", ["--data-columns", "data.web=x"], "has no columns to name"),
        ("scenes", ["--resolution", "5000"], "between 1 and 4096"),
        ("scenes", ["--resolution", "2000"], "drawn at 14 to 1024"),
        (mixed, ["--data-columns", "web"], "write data.KEY=COLUMN"),
        (mixed, ["--data-columns", "data.web=nothing"], "no column 'nothing'"),
        (mixed, ["--part", "3/2"], "write K/N"),
        (mixed, ["--features", "values"], "--features says which patches are kept: give --patches"),
        (mixed, ["--batch-size", "0"], "batch_size must be at least 1"),
        (mixed, ["--shard-size", "0"], "at least one row"),
        (mixed, ["--limit", "0"], "at least one image"),
        (mixed, ["--out", str(mixed)], "holds other files and no manifest.json"),
        (mixed, ["--out", str(tmp_path / "other")], "has no readable manifest.json"),
        (tmp_path / "tars", ["--limit", "1"], "leave --limit out"),
    ):
        assert main(["embed", str(data), "--out", str(tmp_path / "out"), "--model", str(tiny_folder), *more]) == 2
        errors = capsys.readouterr().err
        assert said in errors.strip().splitlines()[-1] and "Traceback" not in errors, (data, more, errors)


def test_work_ahead_keeps_order_bounds_and_errors():
    drawn, before = [], set(threading.enumerate())

    def jobs():
        for number in range(100):
            drawn.append(number)
            yield number

    results = ahead(jobs(), lambda number: time.sleep(0.002 * (number % 3)) or number, threads=4, depth=5)
    assert [next(results) for _ in range(10)] == list(range(10))
    time.sleep(0.3)
    assert len(drawn) <= 10 + 5 + 2  # results that wait, one that is offered, one being drawn
    results.close()
    assert not set(threading.enumerate()) - before, "Python would end while they run"

    def broken():
        yield 3
        yield 0
        raise ValueError("the disk is gone")

    results = ahead(broken(), lambda number: number, threads=2, depth=2)
    assert [next(results), next(results)] == [3, 0]
    with pytest.raises(ValueError, match="the disk is gone"):
        next(results)
    results = ahead([1, 0], lambda number: 1 // number, threads=1, depth=2)
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_pictures_of_one_size_go_together_and_few_wait():
    from tipsv2.images import OPEN_BATCHES, by_size

    given, kept = [], []

    def pictures():
        for number in range(300):
            given.append(number)
            yield number, torch.full((3, 1 + number % 40, 1), float(number))

    for which, pixels in by_size(pictures(), 2):
        assert len(which) == len(pixels) <= 2 and all(pixels[i, 0, 0, 0] == n for i, n in enumerate(which))
        kept += which
        assert len(given) - len(kept) < OPEN_BATCHES * 2
    assert sorted(kept) == list(range(300))


def plain(out):
    """ids, vectors, captions and patch grids of a folder, and what was left out."""
    ids, arrays = read_embeddings(out)
    captions, vectors = read_captions(out)
    grids = [read_patches(out, row) for row in open_table(out)]
    lost = [json.loads(x) for file in sorted((out / "unreadable").glob("*")) for x in file.read_text().splitlines()]
    return ids, [*arrays.values(), vectors, *grids], captions, sorted(lost, key=lambda x: (x["row"], x["what"]))


@pytest.mark.parametrize("kind", ["folder", "tars"])
def test_an_interrupted_part_goes_on_where_it_was(kind, tiny_encoder, tmp_path, monkeypatch):
    """Half of one part is kept; the rest is read alone, and all is as if nothing had happened."""
    from tipsv2.collections import embed as module
    from tipsv2.network.encoder import Encoder

    data = photos.folder(tmp_path / "data", 12) if kind == "folder" else photos.shards(tmp_path / "data", 12)
    if kind == "folder":
        for number, size in enumerate([(40, 30), (30, 40), (64, 64)] * 4):
            photos.picture(number, size).save(data / f"{number:03}.png")
        (data / "002.png").write_bytes(b"not a picture")
        (data / "003.txt").unlink()
    settings = dict(patches="values", captions=True, batch_size=2, progress=False)
    embed(tiny_encoder, data, tmp_path / "whole", **settings)
    real, seen, stop = Encoder.encode_pixels, [], [4]

    def stopping(self, pixels, **options):
        if len(seen) == stop[0]:
            raise KeyboardInterrupt
        seen.append(len(pixels))
        return real(self, pixels, **options)

    monkeypatch.setattr(Encoder, "encode_pixels", stopping)
    monkeypatch.setattr(module, "KEEP_SECONDS", -1.0)
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        embed(tiny_encoder, data, out, **settings)
    assert not (out / "images").exists() and len(list((out / "pieces").iterdir())) >= 4
    first = sum(seen)
    (out / "pieces" / "000000-000000.elsewhere-7-0.safetensors").write_bytes(b"torn")
    stop[0] = 100
    embed(tiny_encoder, data, out, **settings)
    assert sum(seen) == (11 if kind == "folder" else 12) and first >= 7 and not (out / "pieces").exists()
    whole, again = plain(tmp_path / "whole"), plain(out)
    assert (again[0], again[2], again[3]) == (whole[0], whole[2], whole[3])
    assert all(np.allclose(a, b, atol=1e-5, rtol=1e-3) for a, b in zip(again[1], whole[1], strict=True))


@pytest.mark.parametrize("kind", ["images", "captions", "patches"])
def test_a_torn_part_is_named_and_made_again(kind, tiny_encoder, tmp_path, capsys):
    data, out = photos.folder(tmp_path / "data", 6), tmp_path / "out"
    settings = dict(patches="values", captions=True, shard_size=2)
    embed(tiny_encoder, data, out, **settings, progress=False)
    whole = plain(out)
    file = next((out / kind).glob("000000-000001.*"))
    others = {path: path.stat().st_mtime_ns for path in out.glob("*/*") if "000001" not in path.name}
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(ValueError, match=f"{file.name}' is torn .*: the command that made it mends it: "):
        read_embeddings(out)
    assert embed(tiny_encoder, data, out, **settings)["complete"]
    assert f"{file} is torn (" in capsys.readouterr().err
    again = plain(out)
    assert again[0] == whole[0] and all(np.array_equal(a, b) for a, b in zip(again[1], whole[1], strict=True))
    assert others == {path: path.stat().st_mtime_ns for path in others}


def test_data_that_was_replaced_is_not_mixed(tiny_encoder, tmp_path, capsys):
    data, out = photos.folder(tmp_path / "data", 6), tmp_path / "out"
    embed(tiny_encoder, data, out, progress=False)
    (data / "001.txt").write_text("other words")
    embed(tiny_encoder, data, out, progress=False)  # made without captions
    (data / "001.png").touch()
    embed(tiny_encoder, data, out)
    assert "files were written anew since this was begun" in capsys.readouterr().err
    (data / "001.png").write_bytes(photos.encoded(7))
    with pytest.raises(ValueError, match="as it was, and its pictures are others now: restore them, or choose"):
        embed(tiny_encoder, data, out, progress=False)
    embed(tiny_encoder, data, out.with_name("two"), captions=True, progress=False)
    (data / "001.txt").write_text("other words again")
    with pytest.raises(ValueError, match="its captions are others now"):
        embed(tiny_encoder, data, out.with_name("two"), captions=True, progress=False)
    made = json.loads((out / "manifest.json").read_text())
    del made["data_state"]  # of an older folder
    (out / "manifest.json").write_text(json.dumps(made))
    assert embed(tiny_encoder, data, out, progress=False)["complete"]
