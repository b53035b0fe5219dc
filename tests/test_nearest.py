"""Search by a copy in eight bits finds what a product with every row finds, whatever the vectors.

python -m pytest tests/test_nearest.py
"""

import json
import os

import numpy as np
import pytest
import torch

from tipsv2.__main__ import main
from tipsv2.benchmark import search as benchmark
from tipsv2.collections import nearest as module
from tipsv2.collections.nearest import Nearest, in_eight_bits
from tipsv2.collections.parts import End
from tipsv2.collections.search import search
from tipsv2.collections.store import VECTORS, Folder, Part


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def written(folder, vectors, size=100):
    """A folder of embeddings [N, D] in parts of `size`."""
    settings = {"data": "x", "columns": {}, "rows": len(vectors), "shards": 1, "patches": "", "captions": False}
    out = Folder(folder, settings | {"shard_size": size}, {"model": "none", "width": vectors.shape[1]})
    for part, first in enumerate(range(0, len(vectors), size)):
        rows = range(first, min(first + size, len(vectors)))
        about = ({"id": f"{k}", "name": f"{k}", "shard": 0, "row": k, "height": 1, "width": 1} for k in rows)
        images = [row | dict.fromkeys(VECTORS, vectors[row["row"]]) for row in about]
        out.write(End(0, part, rows.stop == len(vectors)), Part(images))
    return folder


def made(kind, count, width, rng):
    """Unit rows and queries: in all directions; about centres, as of real pictures; nearly equal ones."""
    rows = rng.standard_normal((count, width))
    if kind == "clusters":
        rows = rng.standard_normal((5, width))[rng.integers(0, 5, count)] + 0.1 * rows
    if kind == "twins":
        rows = np.repeat(rows[: -(-count // 40)], 40, axis=0)[:count]
        rows[1::2] += 1e-4 * rng.standard_normal(rows[1::2].shape)
    if kind == "one sided":
        rows = np.abs(rows)
    rows = benchmark.unit(rows).astype(np.float32)
    queries = benchmark.unit(rng.standard_normal((4, width))).astype(np.float32)
    return rows, [*queries, rows[count // 2], -rows[0], 3 * queries[0], np.zeros(width, np.float32)]


@pytest.mark.parametrize("kind", ["all directions", "clusters", "twins", "one sided"])
@pytest.mark.parametrize("width", [384, 50])
def test_found_is_what_a_sort_of_all_cosines_finds(tmp_path, monkeypatch, kind, width):
    monkeypatch.setattr(module, "QUICK_PIECE", 300)
    rows, queries = made(kind, 1050, width, np.random.default_rng(0))
    nearest = Nearest(written(tmp_path / "x", rows), quick=True)
    assert nearest.quick and len(nearest) == 1050
    for query in queries:
        cosines = (rows.astype(np.float64) @ query).astype(np.float32)
        for top in (1, 10, 40, 2000):
            best, scores = nearest.find(query, top)
            expected = np.lexsort((np.arange(len(rows)), -cosines))[:top]
            assert best.tolist() == expected.tolist()
            np.testing.assert_allclose(scores, cosines[expected], atol=1e-6)


def test_few_rows_are_compared_in_full(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "QUICK_PIECE", 1 << 14)
    rows, queries = made("all directions", 20_000, 128, np.random.default_rng(1))
    nearest, counted = Nearest(written(tmp_path / "x", rows, 5000), quick=True), []
    exact = nearest._exact
    monkeypatch.setattr(nearest, "_exact", lambda rows, query: counted.append(len(rows)) or exact(rows, query))
    nearest.find(queries[0], 10)
    assert 10 <= sum(counted) < 400


@pytest.mark.parametrize("width", [64, 130])
def test_codes_are_as_near_as_they_say(tmp_path, width):
    rows, queries = made("all directions", 500, width, np.random.default_rng(2))
    rows[3] = 0
    codes, scales = in_eight_bits(rows)
    assert codes.dtype == np.int8 and np.abs(codes.astype(int)).max() <= 127
    assert torch.equal(torch.from_numpy(scales).bfloat16().float(), torch.from_numpy(scales))
    assert np.abs(rows - scales[:, None] * codes).max() <= 0.51 * scales.max()
    nearest = Nearest(written(tmp_path / "x", rows), quick=True)
    away = np.linalg.norm(rows - scales[:, None] * codes, axis=1)
    assert nearest._error == pytest.approx(away.max(), rel=1e-5) and nearest._error < 0.02
    query = torch.from_numpy(queries[0]).bfloat16()
    bound = nearest._error + (1 + nearest._error) * np.linalg.norm(queries[0] - query.float().numpy())
    assert np.abs(rows @ queries[0] - (scales[:, None] * codes) @ query.float().numpy()).max() <= bound


def test_the_copy_is_made_once_and_anew_where_parts_are(tmp_path, monkeypatch):
    rows, queries = made("clusters", 400, 64, np.random.default_rng(3))
    folder = written(tmp_path / "x", rows)
    Nearest(folder, quick=True)
    made_copies = []
    write = Nearest._write
    monkeypatch.setattr(Nearest, "_write", lambda *given: made_copies.append(given) or write(*given))
    Nearest(folder, quick=True)
    assert not made_copies
    Nearest(folder, "caption_cls", quick=True)
    assert len(made_copies) == 1
    (part := sorted((folder / "images").iterdir())[1]).unlink()
    assert part.name == "000000-000001.parquet"
    fewer = Nearest(folder, quick=True)
    assert len(made_copies) == 2 and len(fewer) == 300
    (folder / "quick" / "cls" / "about.json").write_text("{")
    found = Nearest(folder, quick=True).find(queries[0], 5)[0]
    assert len(made_copies) == 3
    left = np.delete(rows, np.s_[100:200], axis=0)
    assert found.tolist() == np.argsort(-(left @ queries[0]), kind="stable")[:5].tolist()


def test_where_no_copy_can_be_written_every_row_is_compared(tmp_path, monkeypatch):
    rows, queries = made("all directions", 300, 64, np.random.default_rng(4))
    folder = written(tmp_path / "x", rows)
    (folder / "quick").write_text("in the way")
    monkeypatch.setattr(module, "QUICK_FROM", 100)
    nearest = Nearest(folder)
    assert not nearest.quick
    assert nearest.find(queries[0], 3)[0].tolist() == np.argsort(-(rows @ queries[0]), kind="stable")[:3].tolist()
    with pytest.raises(OSError, match="could not be written"):
        Nearest(folder, quick=True)


def test_large_folders_are_searched_by_their_copy(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "QUICK_FROM", 200)
    rows, queries = made("all directions", 200, 64, np.random.default_rng(5))
    folder = written(tmp_path / "x", rows)
    hits = search(folder, queries[0], 3)
    assert (folder / "quick" / "cls" / "codes.int8").stat().st_size == 200 * 64
    assert [hit.row for hit in hits] == np.argsort(-(rows @ queries[0]), kind="stable")[:3].tolist()


def test_the_measurement_asks_what_was_written(tmp_path, monkeypatch, capsys):
    """In this process: a new one imports torch for seconds."""
    monkeypatch.setattr(benchmark, "alone", lambda call, *given: call(*given))
    before = os.environ.get("HF_DATASETS_CACHE")
    assert main(["benchmark", "--search", "2500", "--width", "24", "--turns", "3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["search"]["same_rows"] and found["search"]["query_ms"] > 0
    assert found["search"]["memory_before_mb"] <= found["search"]["memory_mb"]
    many = found["pictures"]["1e+08"]
    assert many["query_seconds"] == pytest.approx(found["search"]["query_ms"] / 1000 * 100e6 / 2500)
    assert many["parts"] == 100_000 and many["quick_copy_gb"] == pytest.approx(100e6 * (64 + 4) / 1e9, rel=0.01)
    assert many["embeddings_gb"] > 100e6 * 2 * 24 * 4 / 1e9
    assert os.environ.get("HF_DATASETS_CACHE") == before


@pytest.mark.parametrize(
    "given, said",
    [
        (["--search", "10"], "--search 10: from 1000 to 20000000"),
        (["--search", "1000000000"], "larger folders are computed"),
        (["--search", "2000", "--width", "2"], "--width 2: from 8 to 4096"),
        (["--search", "20000000", "--width", "4096"], "of disk, and"),
    ],
)
def test_what_cannot_be_measured_is_a_sentence(given, said, capsys):
    assert main(["benchmark", *given]) == 2
    assert said in capsys.readouterr().err
