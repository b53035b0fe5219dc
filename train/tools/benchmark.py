"""python -m train benchmark: ratios of step times, measured in one run on this machine.

    python -m train benchmark --json
    python -m train benchmark --out assets/benchmark.png

Every ratio compares steps taken in turns (A B A B ...), medians over the turns, so that a busy machine slows both.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from tqdm.auto import tqdm

from tipsv2.network.encoder import pick_device
from train.data.batches import Batches, BatchStream
from train.network.tokenizer import train_tokenizer
from train.network.towers import build
from train.objectives import Objective
from train.recipe import recipes
from train.recipe.settings import PATCH, Recipe, Stage
from train.run import cost, paper
from train.run.step import Step, chosen_precision, optimizer_of
from train.tools.kept_speed import images_per_second

WORDS = ["a large dog on the grass, two cats in the snow, below the night sky"] * 50
FULL = Stage(steps=10**6, size=112, batch_size=64, local_size=56, local_crops=2)  # every term of TIPSv2's pretraining
SIZES, BATCHES = (56, 84, 112, 140, 168), (16, 32, 64, 128)


class Trainer:
    """One recipe at one stage, taken a step at a time."""

    def __init__(self, recipe: Recipe, stage: Stage):
        self.recipe, self.stage = replace(recipe, stages=(stage,)), stage
        torch.manual_seed(0)
        tokenizer = train_tokenizer(WORDS, 400)
        self.device = pick_device("auto")
        self.objective = Objective(self.recipe, build(self.recipe, recipe.tower.vocabulary)).to(self.device)
        self.take = Step(self.recipe, self.objective, optimizer_of(self.recipe, self.objective), self._forward)
        self.batches = BatchStream(Batches(self.recipe, tokenizer), 0, recipe.workers)
        self.half = chosen_precision(recipe.precision) == "bf16"
        self.done = 0

    def step(self) -> tuple[float, float]:
        """Seconds of a training step, as the loop takes it, and of them those spent waiting for the batch."""
        started = time.perf_counter()
        batch = {name: value.to(self.device, non_blocking=True) for name, value in next(self.batches).items()}
        waited = time.perf_counter() - started
        self.take(self.done, batch)
        self.done += 1
        if self.device.type != "cpu":
            torch.accelerator.synchronize()
        return time.perf_counter() - started, waited

    def _forward(self, batch: dict[str, torch.Tensor], stage: Stage) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            return self.objective(batch, stage)


class Took(NamedTuple):
    """Medians over the turns: seconds of a step, of it without getting its batch, and the share of that wait."""

    step: float
    training: float
    waiting: float


def in_turns(trainers: dict[str, Trainer], turns: int, bar: tqdm, warm: int = 2) -> dict[str, Took]:
    """name -> what its steps took."""
    took = {name: [] for name in trainers}
    for turn in range(warm + turns):
        for name, trainer in trainers.items():
            seconds, waited = trainer.step()
            if turn >= warm:
                took[name].append((seconds, seconds - waited, waited / seconds))
            bar.update()
    return {name: Took(*map(statistics.median, zip(*rows, strict=True))) for name, rows in took.items()}


def _kept(objective: Objective) -> int:
    """Parameters training holds, averaged ones too, without the text tower (as TIPSv2 Sec. 3.4 counts)."""
    return sum(p.numel() for n, p in objective.named_parameters() if not n.startswith("model.text_model"))


def run(turns: int = 12) -> dict:
    """All measurements as one dict; ratios above 1 mean that ours is faster."""
    nano = replace(recipes.nano(), grounding=replace(recipes.nano().grounding, weight=0.0))
    full = replace(nano, self_distillation=replace(nano.self_distillation, ema="full"))
    plain = replace(nano, precision="fp32", attention="sdpa", workers=0)
    sizes = [replace(FULL, size=s, batch_size=32, local_crops=0) for s in SIZES]
    batches = [replace(FULL, batch_size=b, local_crops=0) for b in BATCHES]
    total = (turns + 2) * 4 + 5 * (len(sizes) + len(batches))
    with tqdm(total=total, unit="step", desc="benchmark") as bar:
        pair = {"heads": Trainer(replace(nano, workers=0), FULL), "full": Trainer(replace(full, workers=0), FULL)}
        held = {name: _kept(trainer.objective) for name, trainer in pair.items()}
        ema = in_turns(pair, turns, bar)
        pair = {"nano": Trainer(nano, FULL), "plain": Trainer(plain, FULL)}
        speed = in_turns(pair, turns, bar)
        by_tokens = [(_tokens(s), in_turns({"": Trainer(nano, s)}, 4, bar, 1)[""].step) for s in sizes]
        by_batch = [(s.batch_size, in_turns({"": Trainer(nano, s)}, 4, bar, 1)[""].step) for s in batches]
    kept = images_per_second(max(1, turns // 3))
    shapes = cost.towers(build(nano, nano.tower.vocabulary))
    ours = cost.operations(nano, FULL, *shapes) * FULL.batch_size
    return {
        "device": str(pick_device("auto")),
        "head_only_ema": {
            "faster_than_full_ema": ema["full"].training / ema["heads"].training,
            "fewer_parameters": 1 - held["heads"] / held["full"],
            "parameters": held,
        },
        "throughput": {
            "images_per_second": FULL.batch_size / speed["nano"].step,
            "straightforward_images_per_second": FULL.batch_size / speed["plain"].step,
            "ratio": speed["plain"].step / speed["nano"].step,
            "data_wait_share": speed["nano"].waiting,
        },
        "frozen_part_kept": kept,
        "seconds_by_tokens": {"points": by_tokens, **linearity(by_tokens)},
        "seconds_by_batch": {"points": by_batch, **linearity(by_batch)},
        "cost_model": {
            "operations_per_second": ours / speed["nano"].step,
            "largest_error_of_predicted_step": _prediction_error(nano, shapes, sizes, by_tokens),
            "paper_operations": (whole := paper.operations(paper.recipe_of(), *paper.TOWERS["g14"])),
            "paper_utilisation": paper.utilisation(),
            "years_here": whole / (ours / speed["nano"].step) / 86400 / 365,
        },
    }


def _tokens(stage: Stage) -> int:
    return stage.batch_size * (stage.size // PATCH) ** 2


def linearity(points: list[tuple[float, float]]) -> dict[str, float]:
    """Least-squares line through (x, seconds): R^2, and the exponent of the best power law (1 = proportional)."""
    x, y = torch.tensor(points, dtype=torch.float64).T
    r = torch.corrcoef(torch.stack([x, y]))[0, 1]
    slope = torch.corrcoef(torch.stack([x.log(), y.log()]))[0, 1] * y.log().std() / x.log().std()
    return {"r_squared": float(r**2), "exponent": float(slope)}


def _prediction_error(recipe: Recipe, shapes, stages: list[Stage], points: list[tuple[float, float]]) -> float:
    """Largest relative error of step times predicted from operations alone, the rate taken from the middle stage."""
    work = [cost.operations(recipe, stage, *shapes) * stage.batch_size for stage in stages]
    middle = len(stages) // 2
    rate = work[middle] / points[middle][1]
    return max(abs(w / rate - seconds) / seconds for w, (_, seconds) in zip(work, points, strict=True))


def plot(measurements: dict, out: Path) -> Path:
    """Seconds of a step over tokens supervised and over batch size, with the straight line through the points."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots(1, 2)
    for axis, (key, label) in zip(axes, (("tokens", "patches supervised"), ("batch", "images")), strict=True):
        key = f"seconds_by_{key}"
        x, y = zip(*measurements[key]["points"], strict=True)
        axis.plot(x, y, "o-", color="#0072B2")
        axis.set(xlabel=f"{label} a step", ylabel="seconds a step", xlim=(0, None), ylim=(0, None))
        axis.set_title(f"R² = {measurements[key]['r_squared']:.3f}", fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    figure.savefig(out, dpi=120)
    return out
