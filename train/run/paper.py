"""The papers' own run on paper: the towers of TIPSv2, its two stages, and what they take by the cost model.

recipe = recipe_of(batch=8192)                 # 90,000 steps at 224 px, then 9,000 with half the batch at 448 px
operations(recipe, *TOWERS["g14"])             # 5.1e21
"""

from __future__ import annotations

from dataclasses import replace

from train.recipe import recipes
from train.recipe.settings import Data, Recipe, SelfDistillation, Stage
from train.run import cost
from train.run.cost import Shape

PAIRS = 116_000_000  # of web images (WebLI)
STEPS, SIZES, LOCAL_SIZES = (90_000, 9_000), (224, 448), (98, 140)  # of both stages (papers)
BATCH = 8192  # of the first stage, the second's is half of it
CHIPS, DAYS, CHIP_PEAK = 512, 2.0, 197e12  # TPU v5e; bf16 operations a second and chip (vendor's figure)
WORDS = 32_000  # the vocabulary
TOWERS = {  # vision and text; parameters as in tipsv2/checkpoints/catalogue.py
    "b14": (Shape(768, 12, 3072), Shape(768, 12, 3072)),
    "l14": (Shape(1024, 24, 4096), Shape(1024, 12, 4096)),
    "so400m14": (Shape(1152, 27, 4304), Shape(1152, 27, 4304)),
    "g14": (Shape(1536, 40, 4096, 3), Shape(1536, 12, 6144)),
}


def recipe_of(batch: int = BATCH) -> Recipe:
    """Both stages with six local crops; TIPS's prototypes, and DINOv2's head sizes, since TIPSv2's are not published.

    batch: pairs a step of the first stage.
    """
    rows = zip(STEPS, (batch, batch // 2), SIZES, LOCAL_SIZES, strict=True)
    return replace(
        recipes.nano(),
        name="tipsv2",
        stages=tuple(Stage(steps=n, batch_size=b, size=s, local_size=c) for n, b, s, c in rows),
        data=Data(source="pairs"),
        self_distillation=SelfDistillation(prototypes=32768, hidden=2048, bottleneck=256),
    )


def operations(recipe: Recipe, vision: Shape, text: Shape) -> float:
    """Of the whole run."""
    return sum(cost.operations(recipe, stage, vision, text) * stage.steps * stage.batch_size for stage in recipe.stages)


def utilisation() -> float:
    """The share of what the paper's chips offer in its two days that g/14's run takes."""
    return operations(recipe_of(), *TOWERS["g14"]) / (CHIPS * CHIP_PEAK * DAYS * 86400)


def checkpoint_bytes(recipe: Recipe, vision: Shape, text: Shape, words: int = WORDS) -> float:
    """Of one checkpoint: weights and AdamW's two moments in float32, the averaged heads without moments. The matrices
    only; norms and biases are some thousandths.
    """
    heads = recipe.self_distillation
    head = vision.width * heads.hidden + heads.hidden**2 + (heads.hidden + heads.prototypes) * heads.bottleneck
    towers = vision.parameters + text.parameters + words * text.width
    return 12 * towers + (12 + 4) * 2 * head  # a head each for CLS and patches, and what follows them
