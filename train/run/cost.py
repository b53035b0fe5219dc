"""What a recipe costs before it runs: parameters, arithmetic and memory, from the sizes of its towers.

    python -m train pretrain --recipe nano --dry-run

Matrix products only, 2 operations a multiply-add, backward twice the forward (Kaplan et al., arXiv 2001.08361, Sec.
2.1); activations counted as in Korthikanti et al., arXiv 2205.05198, Sec. 4.1. `python -m train benchmark` checks the
arithmetic against measured steps. Not counted: what the names of patch_labels and SPARC's word-patch scores add.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from train.recipe.settings import PATCH, Recipe, Stage

if TYPE_CHECKING:
    from train.network.teachers import Teachers

TEXT_TOKENS = 24  # of a typical caption; the batch pads to its longest


@dataclass(frozen=True)
class Shape:
    """A transformer tower: `width`, `layers`, hidden width of its MLP, and matrices of that MLP (3 for SwiGLU)."""

    width: int
    layers: int
    hidden: int
    matrices: int = 2

    @property
    def parameters(self) -> int:
        """Of the blocks' matrices."""
        return self.layers * (4 * self.width**2 + self.matrices * self.width * self.hidden)

    def forward(self, tokens: int) -> float:
        """Operations of one forward pass of one sequence."""
        return 2 * (tokens * self.parameters + 2 * self.layers * tokens**2 * self.width)

    def kept(self, tokens: int, scores: int, half: bool) -> float:
        """Bytes that a block keeps of one sequence for the backward pass; `scores` attention maps are among them.

        Values of a token: 2 inputs of norms, 2 outputs of norms, query, key, value, their mixture, and in the MLP 2
        (SwiGLU: 4) times its hidden width. In half precision the inputs of norms stay float32, and so do the maps,
        beside a half copy.
        """
        mlp = (2 if self.matrices == 2 else 4) * self.hidden
        values = (2 * 4 + 6 * 2) * self.width + 2 * mlp if half else 4 * (8 * self.width + mlp)
        return tokens * (values + scores * tokens * (6 if half else 4))


@dataclass(frozen=True)
class Memory:
    """Bytes of one process: `state` is weights, gradients and AdamW's two moments, `teachers` what is only read."""

    state: float
    teachers: float
    activations: float  # of `stage`, the one that needs most
    stage: int

    @property
    def total(self) -> float:
        return self.state + self.teachers + self.activations


def towers(model) -> tuple[Shape, Shape]:
    """Vision and text tower of a Tipsv2Model."""
    vision, text = model.config.vision_config, model.config.text_config
    swiglu = getattr(vision, "use_swiglu_ffn", False)
    hidden = vision.hidden_size * vision.mlp_ratio
    shape = (int(hidden * 2 / 3) + 7) // 8 * 8 if swiglu else int(hidden)
    return (
        Shape(vision.hidden_size, vision.num_hidden_layers, shape, 3 if swiglu else 2),
        Shape(text.hidden_size, text.num_hidden_layers, text.intermediate_size),
    )


def operations(recipe: Recipe, stage: Stage, vision: Shape, text: Shape, patch: int = PATCH) -> float:
    """Operations of one image with its two captions through one training step, without frozen teachers (`teaching`).

    A trained pass costs three forward ones, less where only a part of a tower learns, more where activations are
    computed again; trained are the clean pass, the masked ones and M local crops. A full-EMA teacher adds a forward
    pass. Heads: three-layer MLP and prototypes on every patch, for student (3 x) and teacher (1 x).
    """
    side, local = stage.size // patch, stage.local_size // patch
    look, read, masked = vision.forward(side**2 + 2), text.forward(TEXT_TOKENS), recipe.sfclip
    seen = look * _views(recipe, stage) + stage.local_crops * vision.forward(local**2 + 2)
    if masked.vision_weight:
        seen += masked.share * look
    if recipe.needs_values(stage):
        seen += look / vision.layers
    said = 2 * read + (masked.share * read if masked.text_weight else 0)
    total = _times(recipe, "vision", vision) * seen + _times(recipe, "text", text) * said
    settings = recipe.self_distillation
    supervised = _supervised(stage)
    if settings.ema == "full" and supervised:
        total += look
    head = vision.width * settings.hidden + settings.hidden**2 + settings.bottleneck * settings.hidden
    head += settings.bottleneck * settings.prototypes
    return total + 4 * 2 * head * supervised


def teaching(recipe: Recipe, stage: Stage, teacher: nn.Module | None = None, unimodal: Teachers | None = None) -> float:
    """Operations of one image's forward passes through frozen teachers: 2 a parameter of their matrices and token."""
    total, size = 0.0, stage.teacher_size or stage.size
    if teacher is not None:
        total += _matrices(teacher.vision_model) * ((size // PATCH) ** 2 + 2)
    if unimodal and unimodal.vision and recipe.sfclip.vision_weight:
        side = stage.teacher_size // unimodal.vision.patch or stage.size // PATCH
        total += recipe.sfclip.share * _matrices(unimodal.vision.model) * side**2
    if unimodal and unimodal.text and recipe.sfclip.text_weight:
        total += recipe.sfclip.share * _matrices(unimodal.text.model) * TEXT_TOKENS
    return 2 * total


def memory(recipe: Recipe, objective: nn.Module, processes: int = 1, teachers: Sequence[nn.Module] = ()) -> Memory:
    """What a process holds at its largest stage when its forward pass is done; the backward pass adds a little for a
    block at a time, the device's libraries their own. `recipe.precision` other than fp32 counts as half.

    Several processes hold all of the state each, and DDP's copy of the gradients, or a part of it (sharding=full).
    """
    half, config, settings = recipe.precision != "fp32", objective.model.config, recipe.self_distillation
    vision, text = towers(objective.model)
    kinds = {"vision": (vision, config.vision_config), "text": (text, config.text_config)}
    trained = sum(p.numel() for p in objective.parameters() if p.requires_grad)
    state = 16 * trained + 4 * sum(p.numel() for p in objective.parameters() if not p.requires_grad)
    if recipe.sharding == "full":
        state /= processes
    elif processes > 1:
        state += 4 * trained
    if half:
        state += 2 * trained  # what autocast multiplies with

    def kept(name: str, tokens: int) -> float:
        """Of a sequence in a tower, and its features; checkpointing keeps inputs of blocks and one block at a time."""
        shape, sizes = kinds[name]
        block = shape.kept(tokens, sizes.num_attention_heads * (recipe.attention == "eager"), half)
        blocks = shape.layers * _through(recipe, name, shape)
        features = 12 * tokens * shape.width
        if recipe.checkpointing:
            return features + blocks * 4 * tokens * shape.width + block
        return features + blocks * block

    def activations(stage: Stage) -> float:
        batch, patches = stage.batch_size / processes, (stage.size // PATCH) ** 2
        picture, caption = kept("vision", patches + 2), kept("text", TEXT_TOKENS)
        one = _views(recipe, stage) * picture + 2 * caption
        one += stage.local_crops * kept("vision", (stage.local_size // PATCH) ** 2 + 2)
        if recipe.needs_values(stage):
            one += vision.kept(patches, 0, half)
        total = batch * one / recipe.accumulate
        if recipe.accumulate > 1:  # the terms see the whole batch's features, in pieces and joined
            total += batch * 16 * (patches * vision.width * _views(recipe, stage) + 2 * TEXT_TOKENS * text.width)
        head = 4 * settings.hidden + 3 * settings.bottleneck + 2 * settings.prototypes
        total += batch * _supervised(stage) * 4 * head
        again = picture * bool(recipe.sfclip.vision_weight) + caption * bool(recipe.sfclip.text_weight)
        total += recipe.sfclip.share * batch * again
        if recipe.grounding.weight * stage.grounding:
            total += 2 * 4 * batch * stage.batch_size * patches * (2 if recipe.grounding.features == "both" else 1)
        return total + 6 * 4 * stage.batch_size**2  # the similarities of images and texts, for two captions

    needs = [activations(stage) for stage in recipe.stages]
    held = sum(p.numel() * p.element_size() for model in teachers for p in model.parameters())
    return Memory(state, held, max(needs), needs.index(max(needs)))


def in_units(number: float, unit: str) -> str:
    """A number with two digits and a prefix: in_units(6.1e11, "FLOP") is "0.61 TFLOP"."""
    for factor, prefix in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G")):
        if number >= factor / 10:
            return f"{number / factor:.{1 if number >= 10 * factor else 2}f} {prefix}{unit}"
    return f"{number / 1e6:.2f} M{unit}"


def _views(recipe: Recipe, stage: Stage) -> int:
    """How often an image goes through at full size: clean, and masked where a term learns from that."""
    return 2 if stage.mask_ratio and (stage.patch_weight or recipe.distillation.weight) else 1


def _supervised(stage: Stage) -> int:
    """Tokens of an image that go through the heads of self-distillation."""
    patches = (stage.size // PATCH) ** 2 if stage.patch_weight and stage.mask_ratio else 0
    return patches + (stage.local_crops + 1 if stage.local_crops else 0)


def _through(recipe: Recipe, name: str, tower: Shape) -> float:
    """The share of a tower's blocks that gradients go back through."""
    tuning = recipe.tuning
    if name == "text" and recipe.distillation.weight and recipe.distillation.text == "frozen":
        return 0.0
    if not tuning.base:
        return 1.0
    if tuning.towers not in ("both", name):
        return 0.0
    return tuning.layers / tower.layers if tuning.part == "last" else 1.0


def _times(recipe: Recipe, name: str, tower: Shape) -> float:
    """What a step's pass through a tower costs, in forward passes."""
    through = _through(recipe, name, tower)
    adapted = recipe.tuning.base and recipe.tuning.part == "lora"  # its own gradients are small, its inputs' are not
    return 1 + through * (1 if adapted else 2) + (recipe.accumulate > 1) + recipe.checkpointing * through


def _matrices(model: nn.Module) -> int:
    """Parameters that every token is multiplied with."""
    words = {m.weight for m in model.modules() if isinstance(m, nn.Embedding)}
    return sum(p.numel() for p in model.parameters() if p.ndim == 2 and p not in words)
