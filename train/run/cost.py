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

from train.objectives.term import Guides, PairTerm
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
    side, local, needs = stage.size // patch, stage.local_size // patch, recipe.needs(stage)
    look, read = vision.forward(side**2 + 2), text.forward(TEXT_TOKENS)
    seen = look * (1 + needs.masked + needs.images) + stage.local_crops * vision.forward(local**2 + 2)
    if needs.values:
        seen += look / vision.layers
    said = read * (2 + needs.captions)
    total = _times(recipe, "vision", vision) * seen + _times(recipe, "text", text) * said
    return total + sum(term.operations(stage, vision, patch) for term in recipe.terms(PairTerm))


def teaching(recipe: Recipe, stage: Stage, teacher: nn.Module | None = None, unimodal: Teachers | None = None) -> float:
    """Operations of one image's forward passes through frozen teachers: 2 a parameter of their matrices and token."""
    guides = Guides(teacher, unimodal)
    return sum(term.teaching(stage, guides, PATCH, TEXT_TOKENS) for term in recipe.terms(PairTerm))


def memory(recipe: Recipe, objective: nn.Module, processes: int = 1, teachers: Sequence[nn.Module] = ()) -> Memory:
    """What a process holds at its largest stage when its forward pass is done; the backward pass adds a little for a
    block at a time, the device's libraries their own. `recipe.precision` other than fp32 counts as half.

    Several processes hold all of the state each, and DDP's copy of the gradients, or a part of it (sharding=full).
    """
    half, config = recipe.precision != "fp32", objective.model.config
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
        needs, picture, caption = recipe.needs(stage), kept("vision", patches + 2), kept("text", TEXT_TOKENS)
        one = (1 + needs.masked) * picture + 2 * caption
        one += stage.local_crops * kept("vision", (stage.local_size // PATCH) ** 2 + 2)
        if needs.values:
            one += vision.kept(patches, 0, half)
        total = batch * one / recipe.accumulate
        if recipe.accumulate > 1:  # the terms see the whole batch's features, in pieces and joined
            total += batch * 16 * (patches * vision.width * (1 + needs.masked) + 2 * TEXT_TOKENS * text.width)
        total += batch * (needs.images * picture + needs.captions * caption)
        total += sum(term.activations(stage, batch, PATCH) for term in recipe.terms(PairTerm))
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
