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
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from tipsv2.collections.embed import SHARD_SIZE
from tipsv2.collections.parts import End
from tipsv2.collections.store import VECTORS, Folder, Part

PICTURES = (10**6, 10**7, 10**8)  # that are computed
MOST = 20_000_000  # vectors that can be asked for
TOP = 10


def measure(count: int, width: int, turns: int, progress: bool = True) -> dict:
    """Made vectors [count, width]: what writing, opening and asking them takes, and how that grows.

    search: milliseconds of a query and of a product with every row, medians over `turns` queries, and of adding up
    the numbers of the copy, which no query can be faster than; whether both found the same rows; seconds to open the
    folder, and once to make the copy; the most MB of memory of the process, and of it before it opened the folder.
    pictures: so many -> parts, files, bytes, those of the copy, and seconds of a query.
    Raises ValueError for sizes that cannot be measured.
    """
    if not 1000 <= count <= MOST:
        raise ValueError(f"--search {count}: from 1000 to {MOST} vectors; larger folders are computed from these.")
    if not 8 <= width <= 4096:
        raise ValueError(f"--width {width}: from 8 to 4096 numbers.")
    need = count * width * (2 * 4 * len(VECTORS) + 1)  # the folder, what `datasets` makes of it, the copy
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
            every = alone(ask, str(folder), turns, False, progress)
            copied = alone(copy, str(folder), progress)
            quick = alone(ask, str(folder), turns, True, progress)
        finally:
            os.environ.pop("HF_DATASETS_CACHE") if before is None else os.environ.update(HF_DATASETS_CACHE=before)
        grown = grow(folder, count, statistics.median(quick["seconds"]))
    same = all(map(np.array_equal, every["found"], quick["found"]))
    search = {
        "query_ms": 1000 * statistics.median(quick["seconds"]),
        "query_cpu_ms": 1000 * statistics.median(quick["worked"]),
        "slowest_query_ms": 1000 * max(quick["seconds"]),
        "reading_ms": 1000 * statistics.median(quick["read"]),
        "every_row_ms": 1000 * statistics.median(every["seconds"]),
        "every_row_cpu_ms": 1000 * statistics.median(every["worked"]),
        "same_rows": same,
        "open_seconds": quick["opened"],
        "copy_seconds": copied,
        "memory_mb": quick["bytes"] / 1e6,
        "memory_before_mb": quick["before"] / 1e6,
        "every_row_memory_mb": every["bytes"] / 1e6,
    }
    return {"vectors": count, "width": width, "queries": turns, "search": search, "pictures": grown}


def alone(call: Callable, *given: object) -> Any:
    """What a function returns in a process of its own, with memory of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(call, *given).result()


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


def ask(folder: str, turns: int, quick: bool, progress: bool) -> dict:
    """A folder is opened, with or without the copy, and asked `turns` queries.

    opened: seconds; seconds: of each query; worked: those of the processor, which waiting for it does not lengthen;
    read: those of adding up all numbers of the copy, before each query; found: the rows of each; bytes: the most that
    this process held, files that are in memory included; before: its bytes before.
    """
    import psutil
    import torch
    from tqdm.auto import tqdm

    from tipsv2.benchmark.measuring import resident, timed
    from tipsv2.collections.nearest import Nearest
    from tipsv2.collections.store import open_table

    before = psutil.Process().memory_info().rss
    neighbours: list[np.ndarray] = []
    seconds: list[float] = []
    worked: list[float] = []
    read: list[float] = []
    with tqdm(total=2 + 2 * turns, unit="step", desc="opening", disable=not progress) as bar:
        width = open_table(folder).features["cls"].length  # the first time, `datasets` makes files of its own
        bar.update()
        queries = unit(np.random.default_rng(1).standard_normal((turns, width), np.float32))
        opened = 0.0

        def search() -> None:
            nonlocal opened
            began = time.perf_counter()
            nearest = Nearest(folder, quick=quick)
            opened = time.perf_counter() - began
            bar.update()
            bar.set_description("asking")
            for query in queries:  # once before it is timed, so that all of it is in memory
                neighbours.append(nearest.find(query, TOP)[0])
                bar.update()
            for query in queries:
                if quick:
                    read.append(timed(lambda: nearest.codes.view(torch.int64).sum()))
                began = time.process_time()
                seconds.append(timed(lambda q=query: nearest.find(q, TOP)))
                worked.append(time.process_time() - began)
                bar.update()

        held = resident(search)
    took = {"opened": opened, "seconds": seconds, "worked": worked, "read": read}
    return took | {"found": neighbours, "bytes": before + held, "before": before}


def copy(folder: str, progress: bool) -> float:
    """Seconds to open a folder whose copy is not there yet."""
    from tipsv2.collections.nearest import Nearest

    began = time.perf_counter()
    Nearest(folder, quick=True, progress=progress)
    return time.perf_counter() - began


def grow(folder: Path, count: int, seconds: float) -> dict[str, dict[str, float]]:
    """PICTURES -> parts and files of embeddings, their bytes and those of the quick copy, by the files of a folder of
    `count`; and what a query takes that takes `seconds` there, as long as the copy, which it reads, is in memory.
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
            "query_seconds": pictures / count * seconds,
        }
        for pictures in PICTURES
    }


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows [n, D] of length one."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def report(measured: Mapping) -> str:
    """`measure`'s dict as text."""
    from tipsv2.evaluation import as_text

    return as_text({**measured, "pictures": {name: dict(row) for name, row in measured["pictures"].items()}})
