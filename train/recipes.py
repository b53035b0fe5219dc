"""Recipes: frozen dataclasses, one per run. A recipe's docstring holds its command, its time and its expected number.

A run is a sequence of stages; what a stage leaves at its default is what the papers give (reference in brackets).
"""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Stage:
    """Part of a run at one image size; TIPSv2 trains long at low resolution, then briefly at high (Sec. 4.1)."""

    steps: int
    size: int = 224  # side of the global crop, pixels
    batch_size: int = 128
    learning_rate: float = 1e-3  # peak; one warm-up and one cosine run over all stages
    local_size: int = 98  # side of the local crops, pixels
    local_crops: int = 6  # M [TIPSv2 Sec. 4.1]; 0 leaves the DINO term out
    dino_weight: float = 1.0  # alpha [App. A.9]
    patch_weight: float = 2.0  # beta [App. A.9]; 0 leaves the masked pass out
    mask_ratio: float = 0.75  # [Table 12]
    teacher_size: int = 0  # distillation: side at which the teacher looks; 0 = as the student


@dataclass(frozen=True)
class Tower:
    """Size of both towers; text width equals vision width, there is no projection (TIPS Sec. 3)."""

    width: int = 192
    vision_layers: int = 6
    text_layers: int = 2
    heads: int = 3
    vocabulary: int = 2048
    table: int = 224  # image side whose patch grid the position table has; other sizes interpolate


@dataclass(frozen=True)
class Recipe:
    """Everything a run depends on besides its data; `recipe.json` in the run's folder holds the resolved values."""

    name: str
    objective: str  # pretrain or distill
    stages: tuple[Stage, ...]
    tower: Tower = field(default_factory=Tower)
    seed: int = 0
    # optimiser (the papers' Adafactor settings are not public)
    weight_decay: float = 0.05
    beta2: float = 0.95
    warmup: int = 500  # steps
    clip: float = 1.0  # gradient norm
    precision: str = "auto"  # auto: bf16 where the hardware multiplies it natively, else fp32
    attention: str = "eager"  # trains faster than sdpa on a CPU at short lengths
    # contrastive
    temperature: float = 0.07  # start of the learned temperature
    short_share: float = 0.5  # how often CLS 2 gets the short and not the detailed caption [uniform, Sec. 3.5]
    # heads and targets
    prototypes: int = 512
    head_hidden: int = 384
    bottleneck: int = 128
    targets: str = "sinkhorn"  # or "centre" [App. A.9]
    patches: str = "all"  # iBOT++; "masked" is iBOT, "separate" normalises the two parts apart
    teacher_temperature: float = 0.05
    student_temperature: float = 0.1
    momentum: float = 0.994  # head-only EMA at the start, cosine to momentum_end [TIPS]
    momentum_end: float = 1.0
    # distillation
    target: str = "values"  # what the student's final patches learn: the teacher's "values" or its "final" layer
    student_vision: str = "random"  # or "teacher": start from the teacher's vision tower [random, Table 2]
    distill_weight: float = 4.0
    # bookkeeping
    workers: int = 1
    save_every: int = 500
    sample_every: int = 1000

    @property
    def steps(self) -> int:
        return sum(stage.steps for stage in self.stages)

    @property
    def images(self) -> int:
        return sum(stage.steps * stage.batch_size for stage in self.stages)

    def stage_at(self, step: int) -> Stage:
        """The stage that step (0-based) belongs to."""
        for stage in self.stages:
            if step < stage.steps:
                return stage
            step -= stage.steps
        raise ValueError(f"step {step + self.steps} is past the recipe's {self.steps} steps.")


def nano() -> Recipe:
    """The bundled encoder's first half: contrastive alone until it moves, then the whole TIPSv2 objective.

    python -m train pretrain --recipe nano --data scenes --out runs/nano
    """
    return Recipe(
        name="nano",
        objective="pretrain",
        stages=(
            Stage(steps=3000, size=112, local_crops=0, patch_weight=0.0),
            Stage(steps=900, size=112, local_size=56, local_crops=2, learning_rate=2e-3),
        ),
        momentum=0.98,
        momentum_end=0.998,
    )


def nano_distill() -> Recipe:
    """The bundled encoder's next generation: a fresh vision tower learns its teacher's value features, patch by patch.

    python -m train distill --recipe nano-distill --teacher runs/nano/model --data scenes --out runs/nano-2
    python -m train distill --recipe nano-distill --teacher runs/nano-2/model --data scenes --out runs/nano-3 seed=1
    """
    return Recipe(
        name="nano-distill",
        objective="distill",
        stages=(Stage(steps=1200, size=112, local_crops=0, mask_ratio=0.0, learning_rate=1.5e-3),),
        warmup=250,
    )


def nano_224() -> Recipe:
    """The last generation of the bundled encoder: begins as nano-distill, ends at 224 px, where its teacher sees more.

    python -m train distill --recipe nano-224 --teacher runs/nano-3/model --data scenes --out runs/nano-4 seed=2
    """
    (stage,) = nano_distill().stages
    low, high = replace(stage, steps=700), replace(stage, steps=1100, size=224, batch_size=32)
    return replace(nano_distill(), name="nano-224", stages=(low, high))


def nano_refine() -> Recipe:
    """The bundled encoder's finish: the student starts as its teacher and its last layer learns to be its values.

    python -m train distill --recipe nano-refine --teacher runs/nano-4/model --data scenes --out runs/nano-5 seed=3
    """
    (stage,) = nano_distill().stages
    high = replace(stage, steps=650, size=224, batch_size=32, learning_rate=1e-3)
    return replace(nano_distill(), name="nano-refine", stages=(high,), warmup=50, student_vision="teacher")


def smoke() -> Recipe:
    """A few steps of everything in seconds, to see that an installation works.

    python -m train pretrain --recipe smoke --data scenes --out runs/smoke
    """
    return Recipe(
        name="smoke",
        objective="pretrain",
        tower=Tower(width=48, vision_layers=2, text_layers=1, heads=2, vocabulary=600, table=56),
        stages=(
            Stage(steps=4, size=56, batch_size=8, local_crops=0, patch_weight=0.0),
            Stage(steps=6, size=56, batch_size=8, local_size=28, local_crops=2),
        ),
        warmup=2,
        prototypes=32,
        head_hidden=48,
        bottleneck=16,
        workers=0,
        save_every=5,
        sample_every=5,
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "nano": nano,
    "nano-distill": nano_distill,
    "nano-224": nano_224,
    "nano-refine": nano_refine,
    "smoke": smoke,
}


def get(name: str) -> Recipe:
    """The named recipe. Raises ValueError with the nearest name for an unknown one."""
    if name not in RECIPES:
        raise ValueError(f"there is no recipe {name!r}{_near(name, RECIPES)}. Recipes: {', '.join(RECIPES)}.")
    return RECIPES[name]()


def override(recipe: Recipe, assignments: Sequence[str]) -> Recipe:
    """Apply `key=value` strings; nested fields with dots: `stages.0.steps=100`, `tower.width=96`.

    Raises ValueError naming the nearest field for an unknown key, or the expected type for a bad value.
    """
    for assignment in assignments:
        key, separator, value = assignment.partition("=")
        if not separator:
            raise ValueError(f"{assignment!r} is not key=value; for example seed=1.")
        recipe = _set(recipe, key.split("."), value, key)
    return recipe


def _set(node, path: list[str], value: str, key: str):
    head, rest = path[0], path[1:]
    if isinstance(node, tuple):
        if not head.isdigit() or int(head) >= len(node):
            raise ValueError(f"{key}: there are stages 0 to {len(node) - 1}, not {head!r}.")
        index = int(head)
        return (*node[:index], _set(node[index], rest, value, key), *node[index + 1 :])
    kinds = typing.get_type_hints(type(node))
    if head not in kinds:
        raise ValueError(f"{key}: {type(node).__name__} has no field {head!r}{_near(head, kinds)}.")
    current = getattr(node, head)
    if rest:
        return replace(node, **{head: _set(current, rest, value, key)})
    kind = kinds[head]
    if kind not in (int, float, str):
        raise ValueError(f"{key} holds several fields; set one of them, for example {key}.0.steps=100.")
    try:
        return replace(node, **{head: kind(value)})
    except ValueError:
        raise ValueError(f"{key}={value!r} is not {'a whole number' if kind is int else 'a number'}.") from None


def _near(name: str, known) -> str:
    close = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def to_dict(recipe: Recipe) -> dict:
    return dataclasses.asdict(recipe)


def from_dict(values: dict) -> Recipe:
    """The inverse of `to_dict`, for `recipe.json`."""
    values = dict(values)
    return Recipe(**values | {"stages": tuple(Stage(**s) for s in values["stages"]), "tower": Tower(**values["tower"])})
