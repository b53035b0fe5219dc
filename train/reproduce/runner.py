"""python -m train reproduce: the papers' claims at a size a laptop can train, every row with the same budget and seeds.

    python -m train reproduce --out assets/reproduce            # goes on where it stopped
    python -m train reproduce --out assets/reproduce --rows contrastive,ibot --seeds 1,2
    python -m train reproduce --out assets/reproduce --rows 'try-*'     # candidates for the row unite

The rows are in train/reproduce/claims.py. A finished run leaves one JSON file (scores, settings, thinned log), so that
an interrupted table goes on with what is missing. A row that needs a start or a teacher waits for that run of its seed.
"""

from __future__ import annotations

import fnmatch
import json
import multiprocessing
import shutil
import time
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from pathlib import Path

from tqdm.auto import tqdm

from tipsv2.files import whole_file
from train.recipe.settings import as_given, choose, from_dict
from train.reproduce.claims import LANGUAGES, ROWS, SIZE, SPLITS, Row, recipe_of, settings_of, without_paths

KEPT_LINES = 60  # of a run's log


def run(out: Path, rows: list[str] | None = None, seeds: tuple[int, ...] = (1, 2, 3), jobs: int = 2) -> None:
    """Train and score what is missing in `out`, `jobs` runs at a time with one thread each.

    Checkpoints and models are in out/work, which is no part of the result. Raises ValueError for an unknown row.
    """
    from train.reproduce import tables  # which reads records with this module

    waiting, work = to_do(out, rows, seeds), out / "work"
    by_name = {row.name: row for row in ROWS}
    running = {}
    context = multiprocessing.get_context("spawn")
    with tqdm(total=len(waiting), unit="run", desc="reproduce") as bar, ProcessPoolExecutor(jobs, context) as pool:
        try:
            while waiting or running:
                for seed, row in list(waiting):
                    ready = all(_trained(work, by_name[name], seed) for name in row.needs)
                    if ready and len(running) < jobs:
                        waiting.remove((seed, row))
                        running[pool.submit(train_and_score, out, row, seed)] = row
                bar.set_postfix_str(", ".join(row.name for row in running.values()))
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    running.pop(future)
                    future.result()
                    if tables.read(out):  # at any moment the table is that of the records
                        tables.write(out)
                    bar.update()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def to_do(out: Path, rows: list[str] | None, seeds: tuple[int, ...]) -> list[tuple[int, Row]]:
    """(seed, row) of every run that `out` lacks, with the rows that these need, seed by seed in the table's order.

    `rows` are names or patterns ("try-*"); without any, all rows but those of the search. Raises ValueError for one
    that fits no row.
    """
    by_name = {row.name: row for row in ROWS}
    wanted = {name for name, row in by_name.items() if row.kind == "claim"} if not rows else set()
    for pattern in rows or ():
        fitting = fnmatch.filter(by_name, pattern)
        wanted |= set(fitting or [choose("rows", pattern, *by_name)])
    runs = [(seed, by_name[name]) for seed in dict.fromkeys(seeds) for name in by_name if name in wanted]
    runs = [(seed, row) for seed, row in runs if not read_record(record_of(out, row.name, seed))]
    for seed, row in runs:  # it grows: a teacher may have a teacher
        for needed in (by_name[name] for name in row.needs):
            if not _trained(out / "work", needed, seed) and (seed, needed) not in runs:
                runs.append((seed, needed))
    return sorted(runs, key=lambda item: (item[0], ROWS.index(item[1])))


def record_of(out: Path, name: str, seed: int) -> Path:
    """Where a finished run's record is."""
    return out / "runs" / f"{name}-{seed}.json"


def read_record(path: Path) -> dict | None:
    """A finished run's record; None where there is none, or one of settings that are no longer the row's."""
    row = next((row for row in ROWS if path.stem.rpartition("-")[0] == row.name), None)
    if row is None or not path.exists():
        return None
    record = json.loads(path.read_text())
    try:
        same = from_dict(record["recipe"]) == from_dict(settings_of(row, record["seed"]))
    except (TypeError, KeyError):  # fields of another version
        return None
    return record if same else None


def _trained(work: Path, row: Row, seed: int) -> bool:
    """Whether the row's encoder is there, made by the settings that the row has now."""
    place = work / f"{row.name}-{seed}"
    return (place / "model" / "config.json").exists() and _current(place / "recipe.json", row, seed)


def _current(record: Path, row: Row, seed: int) -> bool:
    try:
        made = as_given(from_dict(without_paths(record.read_text())))
    except (OSError, ValueError, TypeError, KeyError):  # none, or one of another version
        return False
    return made == from_dict(settings_of(row, seed))


def train_and_score(out: Path, row: Row, seed: int) -> None:
    """Train one row with one seed, or go on with it, and write its record."""
    import torch  # a process of its own, which the parent need not import for

    from train.run import start as runs
    from train.text.multilingual import train_teacher

    torch.set_num_threads(1)
    work, started = out / "work", time.perf_counter()
    place, words = work / f"{row.name}-{seed}", work / f"{row.name}-{seed}-words"
    recipe = recipe_of(row, seed, work)
    if place.exists() and not _current(place / "recipe.json", row, seed):
        shutil.rmtree(place)  # of settings that the row no longer has: it must not pass for this one
    if row.words and not (words / "config.json").exists():
        shutil.rmtree(words, ignore_errors=True)
        train_teacher(words, seed=seed, width=64 * (recipe.tower.width // 64), show=False)
    if not _trained(work, row, seed):
        runs.start(recipe, place, resume=(place / "recipe.json").exists(), show=False)
        if not _trained(work, row, seed):
            raise KeyboardInterrupt
    lines = (place / "metrics.jsonl").read_text().splitlines()
    record = {
        "row": row.name,
        "seed": seed,
        "scores": score(place / "model", SPLITS[row.kind]),
        "seconds": round(time.perf_counter() - started),
        "recipe": settings_of(row, seed),
        "log": [json.loads(line) for line in lines[:: max(1, len(lines) // KEPT_LINES)]],
    }
    path = record_of(out, row.name, seed)
    with whole_file(path) as part:
        part.write_text(json.dumps(record) + "\n")
    shutil.rmtree(place / "checkpoints", ignore_errors=True)  # the model stays: it may be a teacher


def score(model: Path, splits: dict[str, str]) -> dict[str, dict[str, float]]:
    """split -> what the table shows: miou_present of final and value features, top-1, recalls of captions and lists."""
    import tipsv2
    from tipsv2.evaluation.segmentation import zero_shot as segmentation
    from tipsv2.evaluation.tasks import classification, retrieval

    encoder = tipsv2.load(str(model), dtype="float32")
    scores = {}
    for split, data in splits.items():
        numbers = segmentation.evaluate(encoder, data, SIZE, progress=False)
        named = classification.evaluate(encoder, data, SIZE, progress=False)
        pairs = retrieval.evaluate(encoder, data, SIZE, languages=("en", *LANGUAGES), progress=False)
        scores[split] = {
            **{kind: numbers[kind]["miou_present"] for kind in ("final", "values", "chance")},
            "top1": named["cls"]["top1"],
            **{way: pairs["captions"]["short"][f"{way}_r1"] for way in ("i2t", "t2i")},
            **{code: both["t2i_r1"] for code, both in pairs["languages"].items()},
        }
    return scores
