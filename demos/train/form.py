"""Behind the Train tab: what a visitor chose -> the arguments of `python -m train`, with sane limits. No gradio.

command(RunRequest(name="dogs", base="opentips-nano", data="hub", hub="owner/name"), studio, jobs, allowed)
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from demos.backend.studio import Studio
from demos.train.process import shown
from tipsv2.checkpoints.catalogue import ModelInfo
from tipsv2.scenes import held_out
from train.recipe import recipes, settings
from train.recipe.overrides import override
from train.recipe.settings import SEED_STRIDE, Recipe

SCRATCH = "scratch"  # the base of a new encoder
LIMITS = {  # field -> least, most, what it is called
    "steps": (1, 50_000, "The number of steps"),
    "batch": (2, 1024, "The batch"),
    "rate": (0, 0.05, "The learning rate"),
    "layers": (1, 64, "The number of blocks"),
    "rank": (1, 256, "The rank"),
    "seed": (0, 1_000_000, "The seed"),
}
SIZES = (0, 56, 112, 168, 224, 336, 448)  # pixels; 0: the recipe's or the base's own
SAMPLES = 5  # how often the fixed queries are asked in the course of a run
CHECKPOINTS = 10  # how often its state is saved: the steps that Compare's slider has
HELD_OUT = 0.15  # of own pictures, which the run measures itself by
PATIENCE = 2  # samples without a better measure that end it
PATCH = 14
TERMS = ("contrastive", "grounding")


@dataclass(frozen=True)
class Kind:
    """One entry of the menu of recipes. fields: what it adds to its recipe; base: its flag for the chosen encoder."""

    recipe: str
    title: str
    text: str
    base: str = ""
    fields: tuple[str, ...] = ()
    terms: bool = False  # grounding is a choice


KINDS = {
    "full": Kind("finetune", "Everything", "All weights learn. Learns most, and forgets most.", "--base", (), True),
    "last": Kind("finetune", "Last blocks", "The rest keeps its bits.", "--base", ("tuning.part=last",), True),
    "lora": Kind(
        "finetune", "LoRA", "Small updates beside the weights: little memory.", "--base", ("tuning.part=lora",), True
    ),
    "distill": Kind(
        "nano-distill", "Distil", "A fresh small vision tower learns the encoder's patch features.", "--teacher"
    ),
    "tips": Kind("nano", "TIPSv2", "A small new encoder by the whole recipe: hours on a CPU.", terms=True),
    "sparc": Kind("sparc", "SPARC", "A small new encoder whose words find their patches: hours on a CPU."),
}
WITH_BASE = ("full", "last", "lora", "distill")
FROM_SCRATCH = ("tips", "sparc")


@dataclass(frozen=True)
class RunRequest:
    """The form. data: "scenes" | "zip" | "hub" | "folder"; rate and size 0: the recipe's own."""

    name: str
    base: str = "opentips-nano"
    kind: str = "full"
    data: str = "scenes"
    hub: str = ""
    folder: str = ""
    table: str = ""  # of the zip: the file in it that names the images
    steps: float = 200
    batch: float = 32
    rate: float = 0
    size: float = 0
    terms: str = "contrastive"
    towers: str = "both"
    layers: float = 2
    rank: float = 16
    seed: float = 0
    image_column: str = ""
    caption_column: str = ""


def kinds(base: str | None) -> tuple[str, ...]:
    """Which recipes make sense for this base."""
    return FROM_SCRATCH if base == SCRATCH else WITH_BASE


def usual(kind: str) -> Recipe:
    """The recipe behind an entry of the menu, with its usual steps and batch. Raises ValueError."""
    if kind not in KINDS:
        raise ValueError(f"There is no recipe '{str(kind)[:60]}': choose one of {', '.join(KINDS)}.")
    return recipes.get(KINDS[kind].recipe)


def command(plan: RunRequest, studio: Studio, out: Path, unpacked: Path) -> list[str]:
    """The arguments of `python -m train` for a run in the folder `out` with a zip's data in `unpacked`.

    Raises ValueError, one sentence, for a field out of its limits.
    """
    kind, recipe = KINDS.get(plan.kind), usual(plan.kind)
    if plan.kind not in kinds(plan.base):
        raise ValueError(
            f"'{kind.title}' {'needs an encoder to start from' if kind.base else 'starts from scratch'}: "
            "choose another recipe or base."
        )
    for name, (least, most, called) in LIMITS.items():
        value = getattr(plan, name)
        if not isinstance(value, int | float) or not math.isfinite(value) or not least <= value <= most:
            raise ValueError(f"{called} must lie between {least:,} and {most:,}.")
        if name != "rate" and value != int(value):
            raise ValueError(f"{called} must be a whole number.")
    if plan.size not in SIZES:
        raise ValueError(f"The resolution must be one of {', '.join(map(str, SIZES[1:]))}, or 0 for the usual one.")
    if plan.data == "scenes" and (measured := held_out(int(plan.seed) * SEED_STRIDE, SEED_STRIDE)):
        raise ValueError(f"The scenes of the seed {plan.seed:.0f} are {measured}, kept for measuring: choose another.")
    fields = [*kind.fields, *_choices(plan, recipe), *_stages(plan, recipe), *columns(plan), *apart(plan)]
    override(recipe, fields)  # names and kinds of the fields, before a process is started for them
    given = [kind.base, known_as(studio.info(plan.base))] if kind.base else []
    data = source(plan, unpacked)
    return [recipe.command, "--recipe", recipe.name, *given, "--data", data, "--out", shown(out), *fields]


def source(plan: RunRequest, unpacked: Path) -> str:
    """What `--data` gets. Raises ValueError; whether a folder may be named is the caller's to know."""
    if plan.data == "scenes":
        return "scenes"
    if plan.data == "zip":
        return shown(unpacked / plan.table)
    if plan.data == "hub":
        name = plan.hub.strip().removeprefix("https://huggingface.co/datasets/").removeprefix("hf:").strip("/")
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", name) or ".." in name:
            raise ValueError("A data set of the Hub is called owner/name, as at the top of its page.")
        return f"hf:{name}"
    if plan.data == "folder":
        place = str(Path(os.path.expanduser(plan.folder.strip())))  # Path's own raises on "~" and an unknown user
        if not plan.folder.strip() or place.startswith("-") or "\0" in place:  # "./-x" has become "-x"
            raise ValueError("Say which folder or table holds the images with their captions.")
        return place
    raise ValueError(f"There is no kind of data '{str(plan.data)[:60]}': choose scenes, zip, hub or folder.")


def columns(plan: RunRequest) -> list[str]:
    """Which columns hold images and captions, as far as the visitor says, and that a zip's rows name its own files.
    Raises ValueError.
    """
    given = {"data.image": plan.image_column.strip(), "data.web": plan.caption_column.strip()}
    if any(len(name) > 100 or not name.isprintable() for name in given.values()):
        raise ValueError("The name of a column has 100 printable characters at most.")
    fields = [f"{field}={name}" for field, name in given.items() if name]
    return [*fields, "data.confined=true"] if plan.data == "zip" else fields


def learned(pairs: int) -> int:
    """Of so many pairs, how many a run learns from."""
    return pairs - settings.Data(held_out=HELD_OUT).kept_apart(pairs)


def apart(plan: RunRequest) -> list[str]:
    """Own pictures are measured by some that the run does not learn from; it ends once these are found no better."""
    return [f"data.held_out={HELD_OUT}", f"patience={PATIENCE}"] if plan.data != "scenes" else []


def known_as(info: ModelInfo) -> str:
    """An encoder as the command names it."""
    return shown(Path(info.location)) if info.source in ("folder", "run") else info.name


def _choices(plan: RunRequest, recipe: Recipe) -> list[str]:
    """Fields that differ from the recipe's own."""
    fields = []
    if KINDS[plan.kind].terms:
        settings.choose("terms", plan.terms, *TERMS)
        weight = 1.0 if plan.terms == "grounding" else 0.0
        fields += [f"grounding.weight={weight:g}"] if weight != recipe.grounding.weight else []
    if recipe.command == "finetune":
        settings.choose("towers", plan.towers, "both", "vision", "text")
        fields += [f"tuning.towers={plan.towers}"] if plan.towers != "both" else []
    if plan.kind == "last" and plan.layers != recipe.tuning.layers:
        fields.append(f"tuning.layers={plan.layers:.0f}")
    if plan.kind == "lora" and plan.rank != recipe.tuning.rank:
        fields.append(f"tuning.rank={plan.rank:.0f}")
    return fields + ([f"seed={plan.seed:.0f}"] if plan.seed else [])


def _stages(plan: RunRequest, recipe: Recipe) -> list[str]:
    """Steps, batch, learning rate and side of every stage, in the recipe's own proportions."""
    stages, steps, fields = recipe.stages, int(plan.steps), []
    if steps < len(stages):
        raise ValueError(f"This recipe has {len(stages)} stages: give it {len(stages)} steps at least.")
    shares = _shared(steps, [stage.steps for stage in stages])
    batch, side = plan.batch / stages[0].batch_size, plan.size / max(stage.size or 1 for stage in stages)
    for number, (stage, share) in enumerate(zip(stages, shares, strict=True)):
        own = {
            "steps": share,
            "batch_size": max(2, round(stage.batch_size * batch)),
            "learning_rate": plan.rate or stage.learning_rate,
            "size": _patches(stage.size * side) if plan.size and stage.size else int(plan.size) or stage.size,
        }
        if stage.local_crops and plan.size:
            own["local_size"] = min(_patches(stage.local_size * side), own["size"])
        fields += [f"stages.{number}.{key}={value:g}" for key, value in own.items() if value != getattr(stage, key)]
    if steps != recipe.steps:
        fields.append(f"warmup={max(1, round(recipe.warmup * steps / recipe.steps))}")
    return [
        *fields,
        f"sample_every={math.ceil(steps / SAMPLES)}",
        f"save_every={math.ceil(steps / CHECKPOINTS)}",
    ]


def _shared(total: int, parts: Sequence[int]) -> list[int]:
    """`total` in the proportions of `parts`, at least one each."""
    ends = [round(total * sum(parts[: k + 1]) / sum(parts)) for k in range(len(parts))]
    shares = [max(1, end - start) for start, end in zip([0, *ends], ends, strict=False)]
    shares[shares.index(max(shares))] += total - sum(shares)
    return shares


def _patches(side: float) -> int:
    """The nearest whole number of patches, two at least, in pixels."""
    return max(2, round(side / PATCH)) * PATCH
