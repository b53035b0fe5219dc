"""The numbers a recipe may hold, so that a slip of the keyboard is a sentence before a run."""

from __future__ import annotations

import math
from collections.abc import Iterator

from tipsv2.scenes import LARGEST, held_out
from train.objectives.term import Rule, within
from train.recipe.kept_settings import is_kept
from train.recipe.settings import PATCH, SEED_STRIDE, Recipe, Stage

SHARES = ("mask_ratio", "restyle")
WEIGHTS = ("dino_weight", "patch_weight", "grounding")


def check(recipe: Recipe) -> None:
    """Raises ValueError with the first field whose value no run can use, and what it may be."""
    for field, value, allowed, what in _rules(recipe):
        if not (allowed and math.isfinite(value)):
            raise ValueError(f"{field}={value:g} cannot be: {what}.")


def _rules(recipe: Recipe) -> Iterator[Rule]:
    """(field, its value, whether it may be, what may be)."""
    for number, stage in enumerate(recipe.stages):
        rules = (*_of_stage(stage, bool(recipe.tuning.base)), *_of_its_terms(recipe, stage))
        yield from ((f"stages.{number}.{field}", *rest) for field, *rest in rules)
    tower = recipe.tower
    for field in ("vision_layers", "text_layers", "heads", "vocabulary"):
        value = getattr(tower, field)
        yield f"tower.{field}", value, value >= 1, "a whole number from 1"
    whole = tower.width >= 1 and tower.width % max(1, tower.heads) == 0
    yield "tower.width", tower.width, whole, f"a multiple of tower.heads={tower.heads}"
    yield "tower.table", tower.table, tower.table >= PATCH and tower.table % PATCH == 0, _multiple()
    for field in ("accumulate", "save_every"):
        yield field, getattr(recipe, field), getattr(recipe, field) >= 1, "a whole number from 1"
    for field in ("warmup", "workers", "milestones", "sample_every", "patience", "seed"):
        yield field, getattr(recipe, field), getattr(recipe, field) >= 0, "a whole number from 0"
    yield "save_minutes", recipe.save_minutes, recipe.save_minutes >= 0, "0 or more"
    on_kept = is_kept(recipe.data.source)
    if on_kept:
        yield "sample_every", recipe.sample_every, recipe.sample_every == 0, "0 on kept crops, which are no images"
    measures = recipe.data.held_out > 0 and recipe.sample_every > 0 and recipe.data.source != "scenes"
    unmeasured = "0 unless data.held_out keeps pairs apart and sample_every says when they are looked at"
    yield "patience", recipe.patience, measures or not recipe.patience, unmeasured
    if recipe.data.source == "scenes":
        measured = held_out(recipe.seed * SEED_STRIDE, recipe.images)
        yield "seed", recipe.seed, not measured, f"its scenes would be those of {measured}, kept for measuring"
    for field in ("clip", "temperature"):
        yield field, getattr(recipe, field), getattr(recipe, field) > 0, "above 0"
    for term in recipe.all_terms():
        yield from term.rules(on_kept)
    yield from within("kept", recipe.kept)
    learns = recipe.kept.blocks_rate > 0 or recipe.kept.bridge_rate > 0 or not on_kept
    unlearned = "above 0 where kept.bridge_rate is 0: something must learn"
    yield "kept.blocks_rate", recipe.kept.blocks_rate, learns, unlearned
    yield "weight_decay", recipe.weight_decay, recipe.weight_decay >= 0, "0 or more"
    yield "beta2", recipe.beta2, 0 <= recipe.beta2 < 1, "from 0 to below 1"
    yield "web_weight", recipe.web_weight, 0 <= recipe.web_weight <= 1, "from 0 to 1"


def _of_stage(stage: Stage, based: bool) -> Iterator[Rule]:
    unset = ", or 0 for the base's own" if based else ""
    for field in ("steps", "batch_size"):
        yield field, getattr(stage, field), getattr(stage, field) >= 1, "a whole number from 1"
    sized = stage.size >= (0 if based else PATCH) and stage.size % PATCH == 0
    yield "size", stage.size, sized, _multiple() + unset
    rated = stage.learning_rate > 0 or (based and stage.learning_rate == 0)
    yield "learning_rate", stage.learning_rate, rated, "above 0" + unset
    yield "local_crops", stage.local_crops, stage.local_crops >= 0, "a whole number from 0"
    if stage.local_crops:
        weighed = "above 0, and stages.*.local_crops=0 leaves its term out"
        yield "dino_weight", stage.dino_weight, stage.dino_weight > 0, weighed
        local = stage.local_size >= PATCH and stage.local_size % PATCH == 0
        yield "local_size", stage.local_size, local, _multiple()
    for field in SHARES:
        yield field, getattr(stage, field), 0 <= getattr(stage, field) <= 1, "from 0 to 1"
    for field in WEIGHTS:
        yield field, getattr(stage, field), getattr(stage, field) >= 0, "0 or more"
    yield "grounding_temperature", stage.grounding_temperature, stage.grounding_temperature > 0, "above 0"


def _of_its_terms(recipe: Recipe, stage: Stage) -> Iterator[Rule]:
    hidden = stage.mask_ratio > 0 or not stage.patch_weight
    yield "patch_weight", stage.patch_weight, hidden, "0 where mask_ratio=0 hides no patch"
    side, taught = (
        stage.teacher_size,
        recipe.distillation.weight,
    )  # of sfclip's teacher train/run/start.py tries the size
    yield "teacher_size", side, side >= 0 and not (taught and side % PATCH), f"0, or {_multiple()}"
    if recipe.data.source == "scenes":
        yield "size", stage.size, stage.size <= LARGEST, f"scenes are drawn up to {LARGEST} pixels"


def _multiple() -> str:
    return f"a multiple of the patch size, {PATCH} pixels"
