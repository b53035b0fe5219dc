"""python -m train reproduce: the papers' claims at a size a laptop can train, every row with the same budget and seeds.

    python -m train reproduce --out assets/reproduce            # goes on where it stopped
    python -m train reproduce --out assets/reproduce --rows contrastive,ibot --seeds 0,1

A row is a recipe on bundled scenes of `NOUNS` nouns: the same towers, images, steps and learning rate, another
objective. A finished run leaves one JSON file (scores, settings, thinned log), so that an interrupted table goes
on with what is missing. A row that needs a teacher waits for the teacher's run of the same seed.
"""

from __future__ import annotations

import json
import multiprocessing
import shutil
import time
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm.auto import tqdm

from train.settings import Recipe, SelfDistillation, Stage, Tower, choose, override, to_dict

NOUNS, SIZE, STEPS, BATCH = 30, 112, 1200, 128
SPLITS = {"val": f"scenes:val:{NOUNS}", "style": f"scenes:style:{NOUNS}"}
LANGUAGES = ("ja", "ko", "zh", "ru", "uk")  # written unlike English: what they score is not for words they share
KEPT_LINES = 60  # of a run's log


@dataclass(frozen=True)
class Row:
    """One recipe of the table: how it differs from `base()`, the row it is compared with, what the paper printed."""

    name: str
    fields: tuple[str, ...]
    against: str = ""
    claim: str = ""
    paper: str = ""
    teacher: str = ""  # the row whose encoder of the same seed teaches
    words: bool = False  # whether the text teacher does


ALONE = ("stages.0.local_crops=0", "stages.0.patch_weight=0")
STUDENT = (*ALONE, "stages.0.mask_ratio=0", "distillation.weight=4")
FINAL = (*STUDENT, "distillation.target=final")
MASKED = (*ALONE, "sfclip.vision_weight=1")
WORDED = ("sfclip.text_weight=1", "sfclip.words=teacher")
SPARSE = (*ALONE, "sparc.weight=1")
ROWS = (
    Row("contrastive", ALONE),
    Row("ibot", ("self_distillation.ema=full", "self_distillation.patches=masked"),
        "contrastive", "+ DINO + iBOT (this is TIPS)", "Flickr T2I 62.9 -> 67.6 (TIPS Table 1)"),
    Row("ibot++", ("self_distillation.ema=full",),
        "ibot", "iBOT -> iBOT++", "ADE150 3.5 -> 17.6 (Table 4)"),
    Row("head-ema", (),
        "ibot++", "full -> head-only EMA", "ADE150 18.1 -> 19.1 (Table 4)"),
    Row("short-only", ("data.short_share=1",),
        "head-ema", "short and detailed captions -> short alone", "ADE150 18.1 -> 17.6 (Table 4)"),
    Row("alt-text", ("web_weight=1",),
        "head-ema", "two captions -> alt-text alone", ""),
    Row("student", FINAL,
        "ibot", "teacher -> distilled student", "PC59 11.4 -> 33.5 (Table 1)", teacher="ibot"),
    Row("student-masked", (*FINAL, "stages.0.mask_ratio=0.75"),
        "student", "student: mask 0 -> 0.75", "PC59 31.4 -> 16.0 (Table 2)", teacher="ibot"),
    Row("student-init", (*FINAL, "distillation.vision=teacher"),
        "student", "student: random -> teacher's weights", "PC59 31.4 -> 6.4 (Table 2)", teacher="ibot"),
    Row("values-1", STUDENT,
        "student", "student learns final layer -> values", "ours", teacher="ibot"),
    Row("values-2", STUDENT, "values-1", "second generation", "ours", teacher="values-1"),
    Row("values-3", STUDENT, "values-2", "third generation", "ours", teacher="values-2"),
    Row("sparc", (*SPARSE, "sparc.local_weight=0.1"),
        "contrastive", "+ SPARC, local weight 0.1", "above CLIP (Table 5)"),
    Row("sparc-dense", (*SPARSE, "sparc.local_weight=0.1", "sparc.threshold=none"),
        "sparc", "SPARC without sparsity", "worse (Table 8)"),
    Row("sparc-full", (*SPARSE, "sparc.local_weight=1"),
        "sparc", "SPARC, local weight 0.1 -> 1", "swept, 0.5 to 10"),
    Row("sparc-global", (*SPARSE, "sparc.local_weight=0"),
        "sparc", "SPARC without its local loss", ""),
    Row("sfclip", (*MASKED, *WORDED),
        "contrastive", "+ masked distillation and words (after SF-CLIP)", "above CLIP (abstract)", "ibot", True),
    Row("sfclip-vision", MASKED,
        "sfclip", "after SF-CLIP, vision teacher alone", "", "ibot"),
    Row("sfclip-text", (*ALONE, *WORDED),
        "sfclip", "after SF-CLIP, text teacher alone", "", words=True),
    Row("grounding", (*ALONE, "grounding.weight=1"),
        "contrastive", "+ grounding", "ours"),
)  # fmt: skip


def base() -> Recipe:
    """The common part of every row: width 128, six blocks, 112 px, TIPSv2's whole objective with head-only EMA."""
    stage = Stage(steps=STEPS, size=SIZE, batch_size=BATCH, local_size=56, local_crops=2, learning_rate=2e-3)
    recipe = Recipe(
        name="reproduce",
        command="reproduce",
        stages=(stage,),
        tower=Tower(width=128, vision_layers=6, text_layers=2, heads=2, vocabulary=1024, table=SIZE),
        warmup=100,
        self_distillation=SelfDistillation(prototypes=256, hidden=256, momentum=0.98, momentum_end=0.998),
        trackers="",
        workers=0,
        save_every=200,
        sample_every=STEPS,
    )
    return override(recipe, [f"data.nouns={NOUNS}"])


def recipe_of(row: Row, seed: int, work: Path) -> Recipe:
    """The row's recipe for a seed, its teachers in `work`. A seed has its own scenes, the same ones in every row."""
    fields = [*row.fields, f"seed={seed}"]
    teacher = work / f"{row.teacher}-{seed}" / "model"
    if row.teacher:
        kind = "sfclip.vision_teacher" if "sfclip.vision_weight=1" in row.fields else "distillation.teacher"
        fields.append(f"{kind}={teacher}")
    if row.words:
        fields.append(f"sfclip.text_teacher={work / f'{row.name}-{seed}-words'}")
    return override(replace(base(), name=row.name), fields)


def run(out: Path, rows: list[str] | None = None, seeds: tuple[int, ...] = (0, 1, 2), jobs: int = 2) -> None:
    """Train and score what is missing in `out`, `jobs` runs at a time with one thread each.

    Checkpoints and models are in out/work, which is no part of the result. Raises ValueError for an unknown row.
    """
    waiting, work = to_do(out, rows, seeds), out / "work"
    by_name = {row.name: row for row in ROWS}
    running = {}
    context = multiprocessing.get_context("spawn")
    with tqdm(total=len(waiting), unit="run", desc="reproduce") as bar, ProcessPoolExecutor(jobs, context) as pool:
        try:
            while waiting or running:
                for seed, row in list(waiting):
                    ready = not row.teacher or _trained(work, by_name[row.teacher], seed)
                    if ready and len(running) < jobs:
                        waiting.remove((seed, row))
                        running[pool.submit(train_and_score, out, row, seed)] = row
                bar.set_postfix_str(", ".join(row.name for row in running.values()))
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    running.pop(future)
                    future.result()
                    bar.update()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def to_do(out: Path, rows: list[str] | None, seeds: tuple[int, ...]) -> list[tuple[int, Row]]:
    """(seed, row) of every run that `out` lacks, with the teachers that these need, seed by seed in the table's order.

    Raises ValueError for an unknown row.
    """
    for name in rows or ():
        choose("rows", name, *(row.name for row in ROWS))
    by_name = {row.name: row for row in ROWS}
    found = [(seed, row) for seed in seeds for row in ROWS if not rows or row.name in rows]
    found = [(seed, row) for seed, row in found if not record_of(out, row.name, seed).exists()]
    for seed, row in found:  # it grows: a teacher may have a teacher
        teacher = by_name.get(row.teacher)
        if teacher and not _trained(out / "work", teacher, seed) and (seed, teacher) not in found:
            found.append((seed, teacher))
    return sorted(found, key=lambda item: (item[0], ROWS.index(item[1])))


def record_of(out: Path, name: str, seed: int) -> Path:
    """Where a finished run's record is."""
    return out / "runs" / f"{name}-{seed}.json"


def _trained(work: Path, row: Row, seed: int) -> bool:
    return (work / f"{row.name}-{seed}" / "model" / "config.json").exists()


def train_and_score(out: Path, row: Row, seed: int) -> None:
    """Train one row with one seed, or go on with it, and write its record."""
    import torch  # a process of its own, which the parent need not import for

    from train import run as runs
    from train.multilingual import train_teacher

    torch.set_num_threads(1)
    work, started = out / "work", time.perf_counter()
    place, words = work / f"{row.name}-{seed}", work / f"{row.name}-{seed}-words"
    recipe = recipe_of(row, seed, work)
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
        "scores": score(place / "model"),
        "seconds": round(time.perf_counter() - started),
        "recipe": json.loads(json.dumps(to_dict(recipe)).replace(f"{work}/", "")),
        "log": [json.loads(line) for line in lines[:: max(1, len(lines) // KEPT_LINES)]],
    }
    path = record_of(out, row.name, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(record) + "\n")
    part.replace(path)
    shutil.rmtree(place / "checkpoints", ignore_errors=True)  # the model stays: it may be a teacher


def score(model: Path) -> dict[str, dict[str, float]]:
    """split -> what the table shows: miou_present of final and value features, top-1, recalls of captions and lists."""
    import tipsv2
    from tipsv2.evaluation import classification, retrieval, segmentation

    encoder = tipsv2.load(str(model), dtype="float32")
    scores = {}
    for split, data in SPLITS.items():
        found = segmentation.evaluate(encoder, data, SIZE, progress=False)
        named = classification.evaluate(encoder, data, SIZE, progress=False)
        pairs = retrieval.evaluate(encoder, data, SIZE, languages=("en", *LANGUAGES), progress=False)
        scores[split] = {
            **{kind: found[kind]["miou_present"] for kind in ("final", "values", "chance")},
            "top1": named["cls"]["top1"],
            **{way: pairs["captions"]["short"][f"{way}_r1"] for way in ("i2t", "t2i")},
            **{code: both["t2i_r1"] for code, both in pairs["languages"].items()},
        }
    return scores
