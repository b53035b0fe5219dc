"""What a search in many embeddings costs, on vectors that are made: by the code that writes, opens and asks a folder.

    python -m tipsv2 benchmark --search 1000000
    python -m tipsv2 benchmark --search 100000 --width 768 --json

A folder of so many unit vectors in random directions is written as `python -m tipsv2 embed` writes one, and asked by a
process of its own. What 100 million pictures take is computed from the files that were written.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tipsv2.collections.embed import SHARD_SIZE
from tipsv2.collections.parts import End
from tipsv2.collections.store import VECTORS, Folder, Part

PICTURES = (10**6, 10**7, 10**8)  # that are computed
MOST = 20_000_000  # vectors that can be asked for
TOP = 10


def measure(count: int, width: int, turns: int, progress: bool = True) -> dict:
    """Made vectors [count, width]: what writing, opening and asking them takes, and how that grows.

    search: milliseconds of a query and of a product with every row, medians over `turns` queries; whether all found the
    same rows; the most MB of memory of the process, and of it before it opened the folder; seconds to open it, and to
    make the quick copy, once. pictures: so many -> parts, files, bytes, MB a query reads.
    Raises ValueError for sizes that cannot be measured.
    """
    if not 1000 <= count <= MOST:
        raise ValueError(f"--search {count}: from 1000 to {MOST} vectors; larger folders are computed from these.")
    if not 8 <= width <= 4096:
        raise ValueError(f"--width {width}: from 8 to 4096 numbers.")
    need = count * width * (3 * 4 * len(VECTORS)) // 2  # the folder, and what `datasets` makes of it
    if (free := shutil.disk_usage(tempfile.gettempdir()).free) < need:
        raise ValueError(
            f"--search {count} takes {need / 1e9:.1f} GB of disk, and {tempfile.gettempdir()} has {free / 1e9:.1f} GB: "
            "ask for fewer, or set TMPDIR to another disk."
        )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "embedded"
        write_made(folder, count, width, progress)
        before = os.environ.get("HF_DATASETS_CACHE")
        os.environ["HF_DATASETS_CACHE"] = f"{scratch}/cache"
        try:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                found = pool.apply(ask, (str(folder), turns, progress))
        finally:
            os.environ.pop("HF_DATASETS_CACHE") if before is None else os.environ.update(HF_DATASETS_CACHE=before)
        grown = grow(folder, count)
    return {"vectors": count, "width": width, "threads": found.pop("threads"), "search": found, "pictures": grown}


def write_made(folder: Path, count: int, width: int, progress: bool) -> None:
    """Unit vectors in random directions, as embeddings of `count` pictures that there are not."""
    from tqdm.auto import tqdm

    settings = {"data": "made", "columns": {}, "rows": count, "shards": 1, "patches": "", "captions": False}
    written = Folder(folder, settings | {"shard_size": SHARD_SIZE}, {"model": "none", "width": width})
    generator = np.random.default_rng(0)
    with tqdm(total=count, unit="vector", desc="writing", disable=not progress) as bar:
        for part, first in enumerate(range(0, count, SHARD_SIZE)):
            rows = range(first, min(first + SHARD_SIZE, count))
            vectors = {kind: unit(generator.standard_normal((len(rows), width), np.float32)) for kind in VECTORS}
            images = [
                {"id": f"{row:09d}.jpg#{row + 1}", "name": f"{row:09d}.jpg", "shard": 0, "row": row}
                | {"height": 448, "width": 448, **{kind: vectors[kind][k] for kind in VECTORS}}
                for k, row in enumerate(rows)
            ]
            written.write(End(0, part, rows.stop == count), Part(images))
            bar.update(len(rows))
    written.close(1)


def ask(folder: str, turns: int, progress: bool) -> dict:
    """What `measure` says of search, measured in this process."""
    import psutil
    import torch

    from tipsv2.benchmark.measuring import resident, timed
    from tipsv2.collections.nearest import Nearest
    from tipsv2.collections.store import open_table

    before = psutil.Process().memory_info().rss
    open_table(folder).data.num_rows  # noqa: B018 (the first time, `datasets` makes its own files)
    began = time.perf_counter()
    every = Nearest(folder, quick=False)
    opened = time.perf_counter() - began
    generator = np.random.default_rng(1)
    queries = unit(generator.standard_normal((turns + 1, every.table.features["cls"].length), np.float32))
    whole = [every.find(query, TOP)[0] for query in queries]
    seconds = {"every row": [timed(lambda q=query: every.find(q, TOP)) for query in queries[1:]]}
    began = time.perf_counter()
    Nearest(folder, quick=True, progress=progress)
    copied = time.perf_counter() - began - opened
    found: list[np.ndarray] = []
    nearest = None

    def search() -> None:
        nonlocal nearest
        nearest = Nearest(folder, quick=True)
        found.extend(nearest.find(query, TOP)[0] for query in queries)
        seconds["query"] = [timed(lambda q=query: nearest.find(q, TOP)) for query in queries[1:]]

    held = resident(search)
    return {
        "query_ms": 1000 * statistics.median(seconds["query"]),
        "slowest_query_ms": 1000 * max(seconds["query"]),
        "every_row_ms": 1000 * statistics.median(seconds["every row"]),
        "same_rows": all(map(np.array_equal, found, whole)),
        "open_seconds": opened,
        "copy_seconds": max(0.0, copied),
        "memory_mb": (before + held) / 1e6,
        "memory_before_mb": before / 1e6,
        "threads": torch.get_num_threads(),
    }


def grow(folder: Path, count: int) -> dict[str, dict[str, float]]:
    """PICTURES -> parts and files of embeddings, their bytes, those of the quick copy, and the bytes that a query reads
    of it, from the files of a folder of `count`.
    """
    files = list((folder / "images").glob("*.parquet"))
    stored = sum(file.stat().st_size for file in files) / count
    copied = sum(file.stat().st_size for file in (folder / "quick" / "cls").iterdir()) / count
    return {
        f"{pictures:.0e}": {
            "parts": -(-pictures // SHARD_SIZE),
            "files": -(-pictures // SHARD_SIZE) + 1,
            "embeddings_gb": pictures * stored / 1e9,
            "quick_copy_gb": pictures * copied / 1e9,
        }
        for pictures in PICTURES
    }


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows [n, D] of length one."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def report(found: Mapping) -> str:
    """`measure`'s dict as text."""
    from tipsv2.evaluation import as_text

    return as_text({**found, "pictures": {name: dict(row) for name, row in found["pictures"].items()}})
