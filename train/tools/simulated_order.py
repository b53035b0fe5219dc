"""The order, the shares and the resume of a run as its own code makes them, over pairs that have no pictures.

numbers = measure(Case(pairs=116_000_000, shards=11_600, processes=512, batch=8192), Path("scratch"), tars, tqdm_bar)

The real part: train.data.samples.CaptionedImages with its orders and its record of the data. An epoch is shown in full,
process after process, and every pair is ticked off.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from tipsv2.benchmark.measuring import resident
from train.data.order import shuffled
from train.data.samples import CaptionedImages
from train.run import paper
from train.tools.simulated_data import Numbers, NumbersOfTars

TICKED = 1 << 18  # pairs that are shown at once


@dataclass(frozen=True)
class Case:
    """A run's data and processes. shards: 0 for a table; batch: pairs a step of all processes."""

    pairs: int
    shards: int
    processes: int
    batch: int

    @property
    def others(self) -> int:
        """Another number of processes, which the run goes on with."""
        return self.processes // 2 if self.processes > 1 else 2

    @property
    def half(self) -> int:
        """The step at which they change, in the middle of the first epoch."""
        return self.pairs // self.batch // 2

    @property
    def work(self) -> int:
        """About how many pairs `measure` shows: an epoch, and of a stream another half with the other processes."""
        return self.pairs + (self.pairs // 2 if self.shards else 0)


class Ticks:
    """Which pairs were shown, and how often any."""

    def __init__(self, pairs: int):
        self.seen, self.shown = np.zeros(pairs, bool), 0

    def add(self, numbers: np.ndarray) -> None:
        self.seen[numbers] = True
        self.shown += numbers.size

    def counts(self) -> dict[str, int]:
        """shown: in all; twice: of them those that had been shown before; left_out: pairs that never were."""
        distinct = int(np.count_nonzero(self.seen))
        return {"shown": self.shown, "twice": self.shown - distinct, "left_out": len(self.seen) - distinct}


def measure(case: Case, scratch: Path, tars: Path | None, bar) -> dict:
    """What a case takes, and whether it keeps its word. scratch: a folder for the record of the data; bar: of tqdm.

    tars: a stream's shards, which are opened for the start of a process.
    epoch: `Ticks.counts` of the first epoch.
    resumed: of a first, a middle and a last step of the last process, those that a fresh one shows alike; sampled: all.
    start: `start` of one process in the middle of the epoch, and whether it showed what the epoch had shown there.
    others: a number of processes that the run goes on with in the middle of the epoch, seconds until the first of them
        has its pairs, the counts of that epoch (None of a table: its steps are the same pairs), same_step: of a table.
    """
    pairs, record = Numbers(case.pairs, case.shards), scratch / "data.jsonl"
    record.unlink(missing_ok=True)
    _learn(case, pairs, record)
    epoch, begun = Ticks(case.pairs), Ticks(case.pairs) if case.shards else None
    whole = None if case.shards else shuffled(case.pairs, paper.recipe_of().seed, 0, 0)
    middle, kept = case.processes // 2, {}
    for rank, first, last, rows in _shown(case, pairs, record, whole, case.processes):
        epoch.add(rows)
        if begun:
            begun.add(rows[: max(0, case.half - first)])
        if rank in (middle, case.processes - 1):
            places = {0, case.half, last} & set(range(first, first + len(rows)))
            kept |= {(rank, step): rows[step - first].tolist() for step in places}
        bar.update(rows.size)
    resumed = {step: rows for (rank, step), rows in kept.items() if rank == case.processes - 1}
    fresh, share = _source(case, pairs, record, case.processes - 1, case.processes), case.batch // case.processes
    alike = sum(_numbers(fresh, step, share).tolist() == resumed[step] for step in sorted(resumed, reverse=True))
    begins = start_alone(case, record, tars, middle, case.half)
    begins["as_shown"] = begins.pop("numbers") == kept[middle, case.half]
    numbers = {"epoch": epoch.counts(), "resumed": alike, "sampled": len(resumed), "start": begins}
    began = time.perf_counter()
    _numbers(_source(case, pairs, record, 0, case.others), case.half, case.batch // case.others)
    others = {"processes": case.others, "seconds": time.perf_counter() - began, "counts": None, "same_step": None}
    if begun:
        for *_, rows in _shown(case, pairs, record, None, case.others, case.half):
            begun.add(rows)
            bar.update(rows.size)
        others["counts"] = begun.counts()
    else:
        ours, theirs = (_step_of_table(case, pairs, whole, world) for world in (case.processes, case.others))
        others["same_step"] = ours == theirs
    return numbers | {"others": others}


def start_alone(case: Case, record: Path, tars: Path | None, rank: int, step: int) -> dict:
    """What it takes one process, from nothing, until it has its pairs of a step.

    seconds, import_seconds of them, and cpu_seconds, which waiting does not lengthen; peak_mb of main memory, and
    import_mb before the data; read: pairs that were read for it; numbers: its pairs.
    """
    began = time.time()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_start, (case, record, tars, rank, step, began))


def _start(case: Case, record: Path, tars: Path | None, rank: int, step: int, began: float) -> dict:
    import datasets  # noqa: F401 (a process that trains holds both)

    import train.run.loop  # noqa: F401

    before, imported = psutil.Process().memory_info().rss, time.time() - began
    numbers: list[int] = []
    pairs: Any = None

    def data() -> None:
        nonlocal pairs
        pairs = NumbersOfTars(case.pairs, tars) if case.shards else Numbers(case.pairs)
        source = _source(case, pairs, record, rank, case.processes)
        numbers.extend(_numbers(source, step, case.batch // case.processes).tolist())

    peak = before + resident(data)
    return {
        "seconds": time.time() - began, "import_seconds": imported, "cpu_seconds": time.process_time(),
        "peak_mb": peak / 1e6, "import_mb": before / 1e6,
        "read": pairs.was_read if case.shards else len(numbers), "numbers": numbers,
    }  # fmt: skip


def _source(case: Case, pairs: Numbers, record: Path, rank: int, world: int) -> CaptionedImages:
    """A process's part of the run, as train.run.loop opens it."""
    source = CaptionedImages(paper.recipe_of(case.batch), rank, world, pairs)
    source.remember(record, main=False)
    return source


def _learn(case: Case, pairs: Numbers, record: Path) -> None:
    """The record of a run's data as it is once every shard was read to its end."""
    source = CaptionedImages(paper.recipe_of(case.batch), 0, 1, pairs)
    source.remember(record, main=True)
    for shard in range(case.shards):
        source.order.learn(shard, pairs.size(shard))


def _shown(
    case: Case, pairs: Numbers, record: Path, whole: np.ndarray | None, world: int, begin: int = 0
) -> Iterator[tuple[int, int, int, np.ndarray]]:
    """The first epoch from step `begin` on, process after process, in pieces: rank, the piece's first step, the
    process's last one, and the numbers [steps, share]. whole: of a table, the order that every process would make.
    """
    share = case.batch // world
    sizes: Any = {}
    for rank in range(world):
        source = CaptionedImages(paper.recipe_of(case.batch), rank, world, pairs)
        if whole is not None:
            source.order.hold(0, 0, whole)
        elif not sizes:
            source.remember(record, main=False)
            sizes = source.order.sizes
        else:  # and read the same record
            source.order.sizes = sizes
        steps: Any = source.order.steps(0, 0, case.batch)  # None of a stream only
        some = max(1, TICKED // share)
        for first in range(begin, steps, some):
            piece = range(first, min(first + some, steps))
            yield rank, first, steps - 1, np.stack([_numbers(source, step, share) for step in piece])


def _numbers(source: CaptionedImages, step: int, share: int) -> np.ndarray:
    row: Any = source.rows(step)  # here of numbers, not of pairs
    return row(np.arange(share)).astype(np.int64)


def _step_of_table(case: Case, pairs: Numbers, whole: np.ndarray, world: int) -> list[int]:
    """The numbers of the step in the middle of the epoch, of all processes, sorted."""
    numbers = []
    for rank in range(world):
        source = CaptionedImages(paper.recipe_of(case.batch), rank, world, pairs)
        source.order.hold(0, 0, whole)
        numbers += _numbers(source, case.half, case.batch // world).tolist()
    return sorted(numbers)
