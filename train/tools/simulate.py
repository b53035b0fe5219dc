"""python -m train simulate: a run of any size on paper, by the code that would run it.

    python -m train simulate --pairs 116e6 --shards 11600 --processes 512 --batch 8192
    python -m train simulate --pairs 1e6,1e7,116e6 --processes 1,64,512 --json

Run: the order of the pairs, their shares and the resume (train/tools/simulated_order.py), over tar shards and over a
table. Computed: the papers' two stages by the cost model (train/run/paper.py), what machines take for them
(train/run/machines.py), what dead nodes cost (train/run/failures.py), and the bytes that are read and written.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path

from train.run.failures import best_interval, expected_time, lost_a_failure
from train.run.machines import MACHINES, Machine

MOST = {"pairs": 2 * 10**9, "shards": 200_000, "processes": 100_000, "batch": 10**7}
KINDS = ("shards", "table")
MINUTES = (5, 10, 30, 60, 120)  # between two saves
GIGABYTE = 1e9


def check(options: argparse.Namespace) -> list[tuple[int, int]]:
    """(pairs, processes) of every run that is asked for. Raises ValueError for numbers that no run can have."""
    given = {name: [_whole(name, text) for text in getattr(options, name).split(",")] for name in MOST}
    for name in ("shards", "batch"):
        if len(given[name]) > 1:
            raise ValueError(
                f"--{name} {getattr(options, name)}: one number; only --pairs and --processes take several."
            )
    (shards,), (batch,) = given["shards"], given["batch"]
    for name in ("pair_kb", "disk_gb", "chip_mtbf_hours", "replace_minutes", "save_minutes", "price", "utilisation"):
        value = getattr(options, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ValueError(f"--{name.replace('_', '-')} {value:g}: a number above 0.")
    if options.utilisation is not None and options.utilisation > 1:
        raise ValueError(f"--utilisation {options.utilisation:g}: a share of the peak, up to 1.")
    if options.workers < 1:
        raise ValueError(f"--workers {options.workers}: at least one process has to read.")
    for name, known in (("machines", MACHINES), ("orders", KINDS)):
        for choice in getattr(options, name).split(","):
            if choice not in known:
                raise ValueError(f"--{name} {choice}: there is none of this name, choose among {', '.join(known)}.")
    for pairs in given["pairs"]:
        if pairs < shards:
            raise ValueError(f"--pairs {pairs} --shards {shards}: a shard needs a pair; give at most {pairs} shards.")
        if pairs < batch:
            raise ValueError(f"--pairs {pairs} --batch {batch}: a batch holds different pairs; give at most {pairs}.")
        for processes in given["processes"]:
            if processes > shards:
                raise ValueError(
                    f"--processes {processes} --shards {shards}: every process would read every shard; give at "
                    "least as many shards as processes."
                )
            if batch < processes:
                raise ValueError(
                    f"--batch {batch} --processes {processes}: a process needs a pair a step; give a batch of at least "
                    f"{2 * processes}."
                )
            if batch % (2 * processes):
                raise ValueError(
                    f"--batch {batch} --processes {processes}: the second stage takes half a batch, and all processes "
                    f"have equal shares; give a multiple of {2 * processes}."
                )
            if pairs // shards * (shards // processes) < batch // processes:
                raise ValueError(
                    f"--pairs {pairs} --shards {shards} --processes {processes}: a process's shards hold fewer pairs "
                    f"than its {batch // processes} of a batch of {batch}; give a smaller batch."
                )
    return [(pairs, processes) for pairs in given["pairs"] for processes in given["processes"]]


def _whole(name: str, text: str) -> int:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value == int(value) and 1 <= value <= MOST[name]):
        raise ValueError(f"--{name} {text.strip()}: a whole number from 1 to {MOST[name]:.0e}, such as 1e6.")
    return int(value)


def run(options: argparse.Namespace) -> dict:
    """Everything that is asked for, as one dict; a bar on stderr says how far it is. Raises ValueError as `check`."""
    runs, shards, batch = check(options), _whole("shards", options.shards), _whole("batch", options.batch)
    from tqdm.auto import tqdm

    from train.tools.simulated_data import write_tars
    from train.tools.simulated_order import Case, measure

    kinds = options.orders.split(",")
    cases = {
        f"{pairs} {processes} {kind}": Case(pairs, shards * (kind == "shards"), processes, batch)
        for pairs, processes in runs
        for kind in kinds
    }
    simulated = {"orders": {}, "runs": {}}
    with (
        tempfile.TemporaryDirectory() as scratch,
        tqdm(total=sum(case.work for case in cases.values()), unit="pair", unit_scale=True) as bar,
    ):
        tars = write_tars(Path(scratch) / "tars", shards) if "shards" in kinds else None
        for name, case in cases.items():
            bar.set_description(f"{case.pairs:.3g} pairs, {case.processes} processes, {name.split()[2]}")
            simulated["orders"][name] = measure(case, Path(scratch), tars, bar)
    for pairs, processes in runs:
        starts = [simulated["orders"][f"{pairs} {processes} {kind}"]["start"]["seconds"] for kind in kinds]
        simulated["runs"][f"{pairs} {processes}"] = on_paper(options, pairs, processes, batch, max(starts))
    return simulated


def on_paper(options: argparse.Namespace, pairs: int, processes: int, batch: int, start: float) -> dict:
    """What the whole run takes, computed. start: seconds until a process has its first pairs.

    run: images, epochs, operations.   bytes: read by all processes of the data, of a checkpoint.   machines: name ->
    days and dollars without failures, then days with them at the best interval.   failures: hours between two of any
    node, the best interval; by interval, what one costs, the share of the time that is lost, and what is written.
    """
    from train.run import paper

    recipe, towers = paper.recipe_of(batch), paper.TOWERS[options.tower]
    work = paper.operations(recipe, *towers)
    share = options.utilisation or paper.utilisation()
    size = paper.checkpoint_bytes(recipe, *towers)
    save = size / (options.disk_gb * GIGABYTE)
    restart = options.replace_minutes * 60 + start + save  # reading takes as long as writing
    between = options.chip_mtbf_hours * 3600 / processes
    best = best_interval(save, between)
    intervals = {
        f"{m:g}": m * 60 for m in sorted({*MINUTES, *([options.save_minutes] if options.save_minutes else [])})
    }
    intervals["best"] = best
    machines = {}
    for name in options.machines.split(","):
        machine: Machine = MACHINES[name]
        days = machine.days(work, processes, share)
        priced = machine if options.price is None else Machine(machine.title, machine.peak, options.price, 0, "")
        after = expected_time(days, best, save, restart, between)
        machines[name] = {
            "title": machine.title, "chips": processes, "days": days, "dollars": priced.dollars(days, processes),
            "days_with_failures": after, "dollars_with_failures": priced.dollars(after, processes),
            "saves": days * 86400 / best, "bytes_written": days * 86400 / best * size,
        }  # fmt: skip
    lost = {
        name: {
            "minutes": interval / 60,
            "lost_a_failure_minutes": lost_a_failure(interval, save, restart) / 60,
            "lost_share": 1 - 1 / expected_time(1.0, interval, save, restart, between),
            "bytes_written_a_day": 86400 / (interval + save) * size,
        }
        for name, interval in intervals.items()
    }
    once = recipe.images * options.pair_kb * 1000
    return {
        "run": {
            "tower": options.tower, "steps": recipe.steps, "images": recipe.images, "epochs": recipe.images / pairs,
            "operations": work, "utilisation": share,
        },
        "bytes": {
            "data": pairs * options.pair_kb * 1000, "read_of_a_table": once, "read_of_shards": once * options.workers,
            "checkpoint": size,
        },
        "machines": machines,
        "failures": {
            "hours_between": between / 3600, "save_seconds": save, "restart_seconds": restart,
            "best_minutes": best / 60, "by_interval": lost,
        },
    }  # fmt: skip
