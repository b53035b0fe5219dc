"""The fields of a recipe: frozen dataclasses, and their record in a run's folder.

A default is what the papers give (reference in brackets) or, where they are silent, our choice.
The fields of a term of the loss stand in its own file, train/objectives/<term>.py. One whose weight is 0 is not built
and costs nothing.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
import typing
from dataclasses import dataclass, field, replace

from train.objectives.distillation import PatchDistillation
from train.objectives.grounding import Grounding
from train.objectives.kept_distillation import KeptDistillation
from train.objectives.named_patches import NamedPatches
from train.objectives.patch_labels import PatchLabels
from train.objectives.presence import Presence
from train.objectives.self_distillation import SelfDistillation
from train.objectives.sfclip import Sfclip
from train.objectives.soft_names import SoftNames
from train.objectives.sparc import Sparc
from train.objectives.term import Needs, PairTerm, Term
from train.objectives.term import choose as choose
from train.objectives.term import near as near
from train.objectives.whole_names import WholeNames
from train.recipe.kept_settings import KeptCrops

SomeTerm = typing.TypeVar("SomeTerm", bound=Term)

SEED_STRIDE = 10**9  # scenes per recipe seed; runs with different seeds see different scenes
PATCH = 14  # pixels; the batches' masks, labels and grids count in these


@dataclass(frozen=True)
class Stage:
    """Part of a run at one image size; TIPSv2 trains long at low resolution, then briefly at high (Sec. 4.1)."""

    steps: int
    size: int = 224  # side of the global crop, pixels; 0: the base's own (finetune)
    batch_size: int = 128
    learning_rate: float = 1e-3  # peak; one warm-up and cosine run over all stages; 0: by the base's width (finetune)
    local_size: int = 98  # side of the local crops, pixels
    local_crops: int = 6  # M [TIPSv2 Sec. 4.1]; 0 leaves the DINO term out
    dino_weight: float = 1.0  # alpha [App. A.9]
    patch_weight: float = 2.0  # beta [App. A.9]; 0 leaves the masked pass out
    mask_ratio: float = 0.75  # [Table 12]
    teacher_size: int = 0  # side at which a vision teacher looks; 0 = as the student (sfclip: for the same grid)
    restyle: float = 0.0  # of scenes: how often a drawing gets other colours, shades and proportions
    grounding: float = 1.0  # share of grounding.weight that counts here; 0 leaves the term out
    grounding_temperature: float = 0.05  # of grounding's soft maximum over patches, in cosine units


@dataclass(frozen=True)
class Tower:
    """Size of both towers; text width equals vision width, there is no projection (TIPS Sec. 3)."""

    width: int = 192
    vision_layers: int = 6
    text_layers: int = 2
    heads: int = 3
    vocabulary: int = 2048
    table: int = 224  # image side whose patch grid the position table has; other sizes interpolate


LEAST_HELD, FEWEST_PAIRS = 4, 16


@dataclass(frozen=True)
class Data:
    """What a run trains on: the bundled scenes, or any collection of images with captions
    (tipsv2/collections/pairs.py).
    """

    source: str = "scenes"  # or a folder, a table, tar shards, folder:PATH of labelled pictures, hf:owner/name
    image: str = ""  # the column of the images; empty: found by its name
    web: str = ""  # the columns of the captions by role, likewise
    short: str = ""
    detailed: str = ""
    mask: str = ""  # the column of label masks, for patch_labels, likewise
    split: str = "train"  # of data that have several: the Hub's, saved by datasets, folders, Karpathy's, labelled
    subset: str = ""
    nouns: int = 0  # of scenes: how many of the vocabulary's nouns are drawn; 0: all
    styles: str = "fluent,noto"  # of scenes: the drawing styles, also flat and openmoji; twemoji is what tests measure
    short_share: float = 0.5  # how often CLS 2 gets the short and not the detailed caption [uniform, Sec. 3.5]
    crop_min: float = 0.5  # share of the picture's area that the global crop keeps, from here ...
    crop_max: float = 1.0  # ... to here [ranges not published]; scenes are never cropped
    flip: float = 0.0  # how often a picture is mirrored; TIPS flips, but captions may speak of left and right
    buffer: int = 1024  # a stream is shuffled by shards, then in blocks of this many pairs per process
    unreadable: float = 0.05  # the run stops where a larger share of the images cannot be used
    held_out: float = 0.0  # share of a table's pairs that the run keeps apart and measures itself by; 4 pairs at least
    confined: bool = False  # rows may name files in the data's own folder only: for a table from somebody else

    def kept_apart(self, count: int) -> int:
        """How many of `count` pairs the run does not learn from: `held_out` of them and LEAST_HELD at least, none of
        fewer than FEWEST_PAIRS, which cannot spare any.
        """
        return max(LEAST_HELD, round(self.held_out * count)) if self.held_out and count >= FEWEST_PAIRS else 0


@dataclass(frozen=True)
class Tuning:
    """A trained encoder that a run goes on from, and which part of it learns (train/network/tuning.py)."""

    base: str = ""  # a bundled name, a model folder or a Hub id; empty: a new encoder is trained from scratch
    digest: str = ""  # of the base's weights; found when the run starts, so that --resume never mixes two bases
    part: str = "full"  # or "last": the last blocks and the final norms; "lora": low-rank updates of linear layers
    towers: str = "both"  # or "vision", "text": the other tower stays as it is
    layers: int = 2  # of "last": how many blocks of each chosen tower
    rank: int = 16  # of "lora" [LoRA, arXiv 2106.09685, Sec. 4.1], as the next two
    alpha: float = 64.0  # updates are scaled by alpha / rank; 4 suits the learning rate of "full"
    modules: str = "all"  # every linear layer of the blocks, or names with commas: "q_proj,v_proj"


@dataclass(frozen=True)
class Recipe:
    """Everything a run depends on; `recipe.json` in the run's folder holds the resolved values."""

    name: str
    command: str  # python -m train <command>
    stages: tuple[Stage, ...]
    tower: Tower = field(default_factory=Tower)
    tuning: Tuning = field(default_factory=Tuning)
    data: Data = field(default_factory=Data)
    seed: int = 0  # also of which scenes are drawn; some are refused, since evaluations measure on theirs
    # optimiser (the papers' Adafactor settings are not public)
    weight_decay: float = 0.05
    beta2: float = 0.95
    warmup: int = 500  # steps
    clip: float = 1.0  # gradient norm
    precision: str = "auto"  # auto: bf16 where the hardware multiplies it natively, else fp32
    attention: str = "eager"  # trains faster than sdpa on a CPU at short lengths
    # memory
    accumulate: int = 1  # parts a process's batch goes through in; the loss is the whole batch's all the same
    sharding: str = "none"  # or "full": every process holds a part of weights, gradients and moments (FSDP)
    checkpointing: bool = False  # keep no activations inside the blocks: less memory, a third more time
    # contrastive
    temperature: float = 0.07  # start of the learned temperature
    web_weight: float = (
        0.5  # of CLS 1 with the alt-text; CLS 2 with the synthetic caption has what is left of 1 [App. A.9]
    )
    # terms of the loss, which are added up in this order
    distillation: PatchDistillation = field(default_factory=PatchDistillation)
    grounding: Grounding = field(default_factory=Grounding)
    patch_labels: PatchLabels = field(default_factory=PatchLabels)
    sfclip: Sfclip = field(default_factory=Sfclip)
    sparc: Sparc = field(default_factory=Sparc)
    self_distillation: SelfDistillation = field(default_factory=SelfDistillation)
    # and those of kept crops
    named_patches: NamedPatches = field(default_factory=NamedPatches)
    presence: Presence = field(default_factory=Presence)
    soft_names: SoftNames = field(default_factory=SoftNames)
    whole_names: WholeNames = field(default_factory=WholeNames)
    kept_distillation: KeptDistillation = field(default_factory=KeptDistillation)
    kept: KeptCrops = field(default_factory=KeptCrops)
    # bookkeeping
    trackers: str = "tensorboard"  # beside metrics.jsonl: tensorboard, wandb, trackio, ... with commas; "" for none
    workers: int = 1
    save_every: int = 500  # steps
    save_minutes: float = 0.0  # beside save_every: a step that ends so long after the last save saves, too; 0: none
    milestones: int = 10  # encoders of earlier steps that stay in the run, beside its two newest checkpoints
    sample_every: int = 1000  # steps between heatmaps and mIoU, see `train.run.monitor.due`; 0 for neither
    patience: int = 0  # samples without better recall of pairs kept apart that end a run; 0: none do, however many

    def all_terms(self) -> list[Term]:
        """Every term that a recipe can have, whatever its weight."""
        return [value for value in vars(self).values() if isinstance(value, Term)]

    def terms(self, kind: type[SomeTerm]) -> list[SomeTerm]:
        """The terms of this kind that take part."""
        return [term for term in self.all_terms() if isinstance(term, kind) and term.works(self.stages)]

    def needs(self, stage: Stage) -> Needs:
        """What the terms of this stage ask for, together."""
        return functools.reduce(operator.or_, (term.needs(stage) for term in self.terms(PairTerm)), Needs())

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


def to_dict(recipe: Recipe) -> dict:
    return dataclasses.asdict(recipe)


def from_dict(values: dict) -> Recipe:
    """The inverse of `to_dict`, for `recipe.json`."""
    values = dict(values)
    for name, kind in typing.get_type_hints(Recipe).items():
        if dataclasses.is_dataclass(kind) and name in values:  # an older record may lack a family, or fields of it
            values[name] = kind(**values[name])
    return Recipe(**values | {"stages": tuple(Stage(**s) for s in values["stages"])})


def leaves(value, prefix: str = "") -> dict:
    """Nested dictionaries and lists as one: stages.0.steps -> 20."""
    if not isinstance(value, dict | list | tuple):
        return {prefix: value}
    flat = {}
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        flat |= leaves(inner, f"{prefix}.{key}" if prefix else str(key))
    return flat


def as_given(recipe: Recipe) -> Recipe:
    """The recipe without what a run finds by itself: a base's sizes, and digests of weights."""
    own = {"tower": Tower()} if recipe.tuning.base else {}
    for name, value in vars(recipe).items():
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            digests = [f.name for f in dataclasses.fields(value) if f.name.endswith("digest")]
            own |= {name: replace(value, **dict.fromkeys(digests, ""))} if digests else {}
    return replace(recipe, **own)
