"""Named recipes, one per run. A docstring holds the command, and of a run that was made here its time and numbers.

mIoU is `miou_present` of final / value features on scenes:val (python -m tipsv2 evaluate segmentation).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from train.objectives.distillation import PatchDistillation
from train.objectives.grounding import Grounding
from train.objectives.named_patches import NamedPatches
from train.objectives.presence import Presence
from train.objectives.self_distillation import SelfDistillation
from train.objectives.sfclip import Sfclip
from train.objectives.soft_names import SoftNames
from train.objectives.sparc import Sparc
from train.objectives.term import near
from train.objectives.whole_names import WholeNames
from train.recipe.settings import Data, Recipe, Stage, Tower, Tuning


def nano() -> Recipe:
    """The bundled encoder's start: contrastive and grounding, a while with TIPSv2's whole objective, then 224 px.

    56 minutes on two cores; mIoU of value features 0.707, on the unseen style 0.456.

    python -m train pretrain --recipe nano --data scenes --out runs/nano
    torchrun --nproc-per-node 2 -m train pretrain --recipe nano --data scenes --out runs/nano
    """
    alone = {"local_crops": 0, "patch_weight": 0.0}
    return Recipe(
        name="nano",
        command="pretrain",
        stages=(
            Stage(steps=1600, size=112, learning_rate=2e-3, **alone),
            Stage(steps=600, size=112, learning_rate=2e-3, local_size=56, local_crops=2, grounding_temperature=0.1),
            Stage(steps=2000, size=112, learning_rate=2e-3, grounding_temperature=0.2, **alone),
            Stage(steps=1200, size=224, batch_size=32, grounding_temperature=0.2, **alone),
        ),
        self_distillation=SelfDistillation(momentum=0.98, momentum_end=0.998),
        grounding=Grounding(weight=1.0),
    )


def nano_styles() -> Recipe:
    """`nano` goes on with four drawing styles, some redrawn in other colours and shapes.

    On the style it never saw, patch-text mIoU of value features 0.456 -> 0.536 and top-1 of single things 0.14 -> 0.21;
    on the two first styles 0.707 -> 0.697. Two hours on half of two busy cores.

    python -m train finetune --recipe nano-styles --base runs/nano/model --data scenes --out runs/nano-styles
    """
    stage = Stage(
        steps=3000, size=112, local_crops=0, patch_weight=0.0, learning_rate=1e-3, restyle=0.2,
        grounding_temperature=0.2,
    )  # fmt: skip
    return Recipe(
        name="nano-styles",
        command="finetune",
        stages=(stage, replace(stage, steps=1200, size=224, batch_size=32)),
        data=Data(styles="fluent,noto,flat,openmoji"),
        warmup=200,
        grounding=Grounding(weight=1.0),
    )


def nano_gpu() -> Recipe:
    """The bundled encoder: `nano-styles` goes on with larger batches and more redrawn drawings, for a GPU.

    mIoU 0.629 / 0.692, on the unseen style 0.453 / 0.536 -> 0.489 / 0.562; top-1 of single things 0.75 -> 0.90 and, in
    that style, 0.21 -> 0.33. 2004 steps in three minutes on an H100 with 16 cores, the other 296 in 22 on one core.

    python -m train finetune --recipe nano-gpu --base runs/nano-styles/model --out runs/nano-gpu workers=15
    """
    stage = Stage(
        steps=750, size=112, batch_size=512, local_crops=0, patch_weight=0.0, learning_rate=1.5e-3, restyle=0.4,
        grounding_temperature=0.2,
    )  # fmt: skip
    return Recipe(
        name="nano-gpu",
        command="finetune",
        stages=(stage, replace(stage, steps=1550, size=224, batch_size=128, restyle=0.3)),
        data=Data(styles="fluent,noto,flat,openmoji"),
        seed=2,  # other scenes than the first two have seen
        warmup=100,
        grounding=Grounding(weight=1.0),
    )


def nano_distill() -> Recipe:
    """Value distillation: a fresh vision tower learns its teacher's value features, patch by patch.

    About 20 minutes a generation on two cores, by the time of `tips-nano-student`. What the first brings at a smaller
    size is the row values-1 of `python -m train reproduce`.

    python -m train distill --recipe nano-distill --teacher runs/nano/model --data scenes --out runs/nano-2
    python -m train distill --recipe nano-distill --teacher opentips-nano --out runs/chain distillation.generations=3

    The second makes three students in a row, each the next one's teacher, in runs/chain/generation-1 and so on.
    """
    return Recipe(
        name="nano-distill",
        command="distill",
        stages=(Stage(steps=1200, size=112, local_crops=0, patch_weight=0.0, mask_ratio=0.0, learning_rate=1.5e-3),),
        warmup=250,
        distillation=PatchDistillation(weight=4.0),
    )


def tips_nano() -> Recipe:
    """A bundled teacher by the older recipe, TIPS (arXiv 2410.16512): iBOT on masked patches alone, full EMA.

    Half as deep again as `nano`, no grounding: it finds its images well and its patches poorly, as the paper's does.
    Two hours on half of two busy cores; mIoU 0.117 / 0.167, R@1 0.81.

    python -m train pretrain --recipe tips-nano --data scenes --out runs/tips-nano
    """
    stage = Stage(steps=1600, size=112, learning_rate=1.5e-3, local_size=56, local_crops=2)
    return Recipe(
        name="tips-nano",
        command="pretrain",
        tower=Tower(vision_layers=9),
        stages=(
            replace(stage, local_crops=0, patch_weight=0.0),
            replace(stage, steps=600),
            replace(stage, steps=200, size=224, batch_size=32, local_size=98),
        ),
        self_distillation=SelfDistillation(ema="full", patches="masked", momentum=0.98, momentum_end=0.998),
    )


def tips_nano_student() -> Recipe:
    """The bundled student of `tips-nano`: six fresh blocks learn the value features of its nine.

    22 minutes on two busy cores; mIoU 0.167 / 0.240, R@1 0.80.

    python -m train distill --recipe tips-nano-student --teacher runs/tips-nano/model --data scenes --out runs/student
    """
    base = nano_distill()
    (stage,) = base.stages
    return replace(
        base,
        name="tips-nano-student",
        stages=(replace(stage, steps=1000), replace(stage, steps=200, size=224, batch_size=32)),
    )


def finetune() -> Recipe:
    """A trained encoder goes on with your images and captions, at its own image size.

    python -m train finetune --recipe finetune --base opentips-nano --data photos --out runs/mine
    python -m train finetune --base google/tipsv2-b14 --data photos --out runs/mine tuning.part=lora

    On 50 drawn pictures (tests/shapes.py) of 56 px in 80 steps, among 50 others: R@1 0.04 -> 0.15, R@5 0.12 -> 0.54,
    mean of both directions (python -m pytest tests/test_finetune.py -k fifty). What the base knew fades a little.
    """
    stage = Stage(steps=200, size=0, batch_size=32, local_crops=0, patch_weight=0.0, learning_rate=0.0)
    return Recipe(
        name="finetune",
        command="finetune",
        stages=(stage,),
        data=Data(crop_min=0.9),  # a caption may speak of any corner
        warmup=20,
        attention="sdpa",
        save_every=100,
    )


def sfclip() -> Recipe:
    """After SF-CLIP: contrastive, with masked distillation from a vision and a text teacher and the latter's words.

    At this size not run to its end; at a smaller one it is the row sfclip of `python -m train reproduce`.

    python -m train textteacher --out runs/words
    python -m train sfclip --recipe sfclip --vision-teacher runs/nano/model --text-teacher runs/words --out runs/sfclip
    """
    return Recipe(
        name="sfclip",
        command="sfclip",
        stages=(Stage(steps=1600, size=112, local_crops=0, patch_weight=0.0, mask_ratio=0.0, learning_rate=2e-3),),
        sfclip=Sfclip(vision_weight=1.0, text_weight=1.0, words="teacher"),
    )


def photos() -> Recipe:
    """Photographs: the last blocks of a DINOv2 tower and a bridge from a sentence encoder learn names of patches.

    From label maps, from an image classifier's dense names and from the bundled scenes, on crops that were kept with
    `python -m train keep`, so that a step costs the last blocks alone: first the bridge by itself, then the blocks, and
    a text tower that learns what comes out of the bridge. The bundled opentips-s14; its card has the figures.

    python -m train foundations --out foundations
    python -m train assemble --vision foundations/dinov2-s14 --text foundations/minilm --out runs/start
    python -m train keep folder:photos/coco100 --vision runs/start --crops 10 --leave-out 2::5 --out kept/coco
    python -m train keep photos/named --classes foundations/names.jsonl --classifier foundations/efficientnet-lite2 \\
        --vision runs/start --size 224 --crops 2 --crop-min 0.5 --out kept/named
    python -m train keep scenes --vision runs/start --size 224 --limit 700 --out kept/scenes
    python -m train sfclip --recipe photos --kept kept/coco:6,kept/named:5,kept/scenes:3:0.4 --base runs/start \\
        --text-teacher foundations/minilm --names foundations/names.jsonl --out runs/bridge stages.0.steps=450 \\
        stages.0.learning_rate=2e-3 kept.blocks_rate=0 kept.bridge_rate=1
    python -m train sfclip --recipe photos --kept kept/coco:6,kept/named:5,kept/scenes:3:0.4 \\
        --base runs/bridge/model --text-teacher foundations/minilm --names foundations/names.jsonl --out runs/photos \\
        kept.bridge=runs/bridge/bridge.safetensors kept.bridge_rate=0
    python -m train text --teacher foundations/minilm --wordnet foundations/nouns.jsonl --out runs/words \\
        --bridge runs/bridge/bridge.safetensors
    python -m train assemble --vision runs/photos/model --text runs/words --size 448 --dtype float16 --out runs/s14
    """
    return Recipe(
        name="photos",
        command="sfclip",
        stages=(Stage(steps=560, size=336, batch_size=16, local_crops=0, patch_weight=0.0, learning_rate=1.5e-4),),
        data=Data(source="kept:"),
        tuning=Tuning(part="last", towers="vision", layers=3),
        beta2=0.98,
        warmup=40,
        clip=3.0,
        attention="sdpa",
        named_patches=NamedPatches(weight=1.0, binary=0.4, places=0.7),
        presence=Presence(weight=0.06),
        soft_names=SoftNames(weight=1.0, groups=0.015),
        whole_names=WholeNames(weight=0.3, captions=0.1),
        save_every=100,
        milestones=0,
        sample_every=0,
    )


def sparc() -> Recipe:
    """Contrastive and SPARC (arXiv 2401.09865) from scratch: the tower, the images and the sizes of `nano`.

    The local loss weighs less than in the paper and there are no adapters: train/objectives/sparc.py says why. At this
    size not run to its end; at a smaller one it is the row sparc of `python -m train reproduce`.

    python -m train sparc --recipe sparc --data scenes --out runs/sparc
    """
    alone = {"local_crops": 0, "patch_weight": 0.0}
    return Recipe(
        name="sparc",
        command="sparc",
        stages=(
            Stage(steps=4200, size=112, learning_rate=2e-3, **alone),
            Stage(steps=1200, size=224, batch_size=32, **alone),
        ),
        sparc=Sparc(weight=1.0, local_weight=0.1),
    )


def smoke() -> Recipe:
    """A few steps of everything in seconds, to see that an installation works.

    python -m train pretrain --recipe smoke --data scenes --out runs/smoke
    """
    return Recipe(
        name="smoke",
        command="pretrain",
        tower=Tower(width=48, vision_layers=2, text_layers=1, heads=2, vocabulary=600, table=56),
        stages=(
            Stage(steps=4, size=56, batch_size=8, local_crops=0, patch_weight=0.0),
            Stage(steps=6, size=56, batch_size=8, local_size=28, local_crops=2),
        ),
        warmup=2,
        self_distillation=SelfDistillation(prototypes=32, hidden=48, bottleneck=16),
        workers=0,
        save_every=5,
        sample_every=5,
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "nano": nano,
    "nano-styles": nano_styles,
    "nano-gpu": nano_gpu,
    "nano-distill": nano_distill,
    "tips-nano": tips_nano,
    "tips-nano-student": tips_nano_student,
    "finetune": finetune,
    "sfclip": sfclip,
    "photos": photos,
    "sparc": sparc,
    "smoke": smoke,
}


def get(name: str) -> Recipe:
    """The named recipe. Raises ValueError with the nearest name for an unknown one."""
    if name not in RECIPES:
        raise ValueError(f"there is no recipe {name!r}: choose {', '.join(RECIPES)}{near(name, RECIPES) or '.'}")
    return RECIPES[name]()
