"""Every named recipe at the size of a test: its own terms, stages and teachers, on towers of two blocks."""

from __future__ import annotations

import torch

from train.network.tokenizer import train_tokenizer
from train.network.towers import build
from train.recipe import recipes, settings
from train.recipe.overrides import override
from train.run import checkpoint

WORDS = ["a dog on the grass, under the sky", "two cats in the snow", "a red car at the left"] * 20
TOWER = ["tower.width=48", "tower.vision_layers=2", "tower.text_layers=1", "tower.heads=2", "tower.table=56"]
HEADS = ["self_distillation.prototypes=32", "self_distillation.hidden=48", "self_distillation.bottleneck=16"]
RUN = ["precision=fp32", "warmup=2", "trackers=", "workers=0", "save_every=1000", "sample_every=1000"]


def small(name: str, steps: int, teachers: dict, *fields: str) -> settings.Recipe:
    """Recipe `name`, `steps` steps long in all its stages together, learning from `teachers` as far as it does."""
    recipe = recipes.get(name)
    count = len(recipe.stages)
    given = [*HEADS, *RUN, "sfclip.hidden=48"]
    for k, stage in enumerate(recipe.stages):
        last = steps - (count - 1) * (steps // count) if k == count - 1 else steps // count
        size = 70 if k and stage.size > recipe.stages[0].size else 56
        sizes = {
            "steps": last,
            "size": size,
            "batch_size": 4,
            "local_size": 28,
            "local_crops": min(stage.local_crops, 2),
        }
        given += [f"stages.{k}.{field}={value}" for field, value in sizes.items()]
    if recipe.command == "finetune":
        given.append(f"tuning.base={teachers['tipsv2']}")
    else:
        given += [*TOWER, "tower.vocabulary=400"]
    if recipe.distillation.weight:
        given.append(f"distillation.teacher={teachers['tipsv2']}")
    if recipe.sfclip.vision_weight or recipe.sfclip.text_weight:
        given += [f"sfclip.vision_teacher={teachers['dinov2']}", f"sfclip.text_teacher={teachers['words']}"]
    return override(recipe, [*given, *fields])


def save_teacher(folder, *fields: str):
    """An untrained encoder of the recipes' kind, 48 wide if no field says otherwise, as a model folder."""
    recipe = override(recipes.get("smoke"), [*TOWER, *fields])
    torch.manual_seed(3)
    return checkpoint.export(folder, build(recipe, 400), train_tokenizer(WORDS, 400))
