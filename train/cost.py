"""What a recipe costs before it runs: parameters, arithmetic and memory, from the sizes of its towers.

Matrix products only, 2 operations a multiply-add, backward twice the forward (Kaplan et al., arXiv 2001.08361, Sec.
2.1); activations after Korthikanti et al., arXiv 2205.05198, Eq. 1. `python -m train benchmark` checks the arithmetic
against measured steps.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from train.settings import Recipe, Stage

TEXT_TOKENS = 24  # of a typical caption; the batch pads to its longest


@dataclass(frozen=True)
class Shape:
    """A transformer tower: `width`, `layers`, hidden width of its MLP, and matrices of that MLP (3 for SwiGLU)."""

    width: int
    layers: int
    hidden: int
    matrices: int = 2

    def forward(self, tokens: int) -> float:
        """Operations of one forward pass of one sequence."""
        projections = 4 * self.width**2 + self.matrices * self.width * self.hidden
        return 2 * self.layers * (tokens * projections + 2 * tokens**2 * self.width)


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


def operations(recipe: Recipe, stage: Stage, vision: Shape, text: Shape, patch: int = 14) -> float:
    """Operations of one image with its two captions through one training step of pretraining.

    The clean pass, the masked pass and M local crops are trained (3 x forward); a full-EMA teacher adds one forward.
    Heads: three-layer MLP and prototypes on every patch, for student (3 x) and teacher (1 x).
    """
    side, local = stage.size // patch, stage.local_size // patch
    passes = vision.forward(side**2 + 2) * (2 if stage.patch_weight and stage.mask_ratio else 1)
    passes += stage.local_crops * vision.forward(local**2 + 2)
    total = 3 * (passes + 2 * text.forward(TEXT_TOKENS))
    settings = recipe.self_distillation
    if settings.ema == "full" and (stage.patch_weight or stage.local_crops):
        total += vision.forward(side**2 + 2)
    head = vision.width * settings.hidden + settings.hidden**2 + settings.bottleneck * settings.hidden
    head += settings.bottleneck * settings.prototypes
    supervised = side**2 if stage.patch_weight and stage.mask_ratio else 0
    supervised += stage.local_crops + 1 if stage.local_crops else 0
    return total + 4 * 2 * head * supervised


def memory(recipe: Recipe, objective: nn.Module, vision: Shape, heads: int, processes: int = 1) -> float:
    """Bytes a process needs at its largest stage: weights, gradients, AdamW's two moments, and activations."""
    state = sum(p.numel() * (16 if p.requires_grad else 4) for p in objective.parameters())
    width = 4 if recipe.precision == "fp32" else 2

    def activations(stage: Stage) -> float:
        tokens = (stage.size // 14) ** 2 + 2
        batch = stage.batch_size / processes / recipe.accumulate
        sequences = batch * (2 if stage.patch_weight and stage.mask_ratio else 1)
        layer = tokens * vision.width * (17 + 2.5 * heads * tokens / vision.width) * width
        kept = vision.layers * (tokens * vision.width * width if recipe.checkpointing else layer)
        scores = batch * tokens * recipe.self_distillation.prototypes * 4 * 3 if stage.patch_weight else 0
        return sequences * (kept + layer) + scores

    return state + max(activations(stage) for stage in recipe.stages)
