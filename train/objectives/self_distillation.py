"""DINO and iBOT++: the student's masked view and local crops learn what its teacher says of the clean view.

Head-only EMA (TIPSv2 Sec. 3.4): the teacher's backbone is the student's, detached, and only its heads are averaged.
Full EMA (TIPS v1): the teacher's backbone is an average too, which costs its memory and one more pass a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from train.objectives.term import Count, CountOrNone, Guides, Needs, PairTerm, Parts, Positive, Share

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import Tipsv2Model

    from train.objectives.view import View
    from train.recipe.settings import Stage
    from train.run.cost import Shape


@dataclass(frozen=True)
class SelfDistillation(PairTerm):
    """Parts `patch` (iBOT or iBOT++, where the batch has a masked view) and `dino` (where it has local crops), with
    heads, targets and the teacher that follows the student (TIPSv2 App. A.9, Sec. 3.3, 3.4).

    A stage says what they weigh and how much is hidden: patch_weight and mask_ratio, dino_weight and local_crops.
    """

    WEIGHTS: ClassVar = ()

    ema: Literal["heads", "full"] = "heads"  # head-only EMA; "full" averages the backbone too, as TIPS v1 does
    prototypes: Count = 512
    hidden: Count = 384
    bottleneck: Count = 128
    targets: Literal["sinkhorn", "centre"] = "sinkhorn"  # [App. A.9]
    patches: Literal["all", "masked", "separate"] = "all"  # iBOT++; iBOT; or the two parts normalised apart
    teacher_temperature: Positive = 0.05
    teacher_warmup: CountOrNone = 0  # steps from teacher_start linearly up to teacher_temperature
    teacher_start: Positive = 0.04  # [TIPS v1]
    student_temperature: Positive = 0.1
    momentum: Share = 0.994  # at the start, cosine to momentum_end [TIPS]
    momentum_end: Share = 1.0

    def works(self, stages: Sequence[Stage]) -> bool:
        return any(stage.patch_weight * stage.mask_ratio or stage.local_crops for stage in stages)

    def needs(self, stage: Stage) -> Needs:
        return Needs(masked=bool(stage.patch_weight and stage.mask_ratio))

    def operations(self, stage: Stage, vision: Shape, patch: int) -> float:
        """Three-layer MLP and prototypes on every patch, for student (3 x) and teacher (1 x); a full-EMA teacher's
        forward pass.
        """
        supervised = _supervised(stage, patch)
        head = vision.width * self.hidden + self.hidden**2 + self.bottleneck * self.hidden
        head += self.bottleneck * self.prototypes
        again = vision.forward((stage.size // patch) ** 2 + 2) if self.ema == "full" and supervised else 0.0
        return again + 4 * 2 * head * supervised

    def activations(self, stage: Stage, images: float, patch: int) -> float:
        head = 4 * self.hidden + 3 * self.bottleneck + 2 * self.prototypes
        return images * _supervised(stage, patch) * 4 * head

    def build(self, model: Tipsv2Model, guides: Guides) -> dict[str, object]:
        import copy

        import torch
        from torch import nn

        from train.objectives.heads import Heads

        vision = model.vision_model
        width = vision.config.hidden_size
        heads = Heads(width, self.hidden, self.bottleneck, self.prototypes, self.targets)
        backbone = copy.deepcopy(vision).requires_grad_(False) if self.ema == "full" else None
        done = nn.Buffer(torch.zeros((), dtype=torch.long))  # steps, for the temperature's warm-up
        return {"heads": heads, "backbone": backbone, "done": done}

    def losses(self, view: View, batch: dict[str, Tensor], stage: Stage, state: nn.Module) -> Parts:
        from train.objectives import losses

        out, hidden = {}, view.masked is not None and stage.patch_weight
        if not hidden and view.local is None:
            return out
        cls, patches = _seen_by_teacher(view, state.backbone)
        temperature = self.temperature(int(state.done))
        if hidden:
            target = state.heads.target("patch", patches, temperature)  # [B, N, K]
            scores = state.heads.student["patch"](view.masked)
            loss = losses.ibot(scores, target, batch["masked"], self.student_temperature, self.patches)
            out["patch"] = stage.patch_weight, loss
            out["patch_entropy"] = None, losses.entropy(target)
        if view.local is not None:
            target = state.heads.target("cls", cls, temperature)  # [B, K]
            scores = state.heads.student["cls"](view.local)  # [M, B, K]
            out["dino"] = stage.dino_weight, losses.dino(scores, target, self.student_temperature)
            out["cls_entropy"] = None, losses.entropy(target)
        return out

    def after_step(self, step: int, steps: int, model: nn.Module, state: nn.Module) -> None:
        import torch

        from train.objectives import schedules

        momentum = schedules.cosine(step, steps, self.momentum, self.momentum_end)
        state.heads.update(momentum)
        state.done.fill_(step + 1)
        if state.backbone is not None:
            with torch.no_grad():
                pairs = zip(state.backbone.parameters(), model.vision_model.parameters(), strict=True)
                for ours, theirs in pairs:
                    ours.lerp_(theirs, 1 - momentum)

    def temperature(self, done: int) -> float:
        """The teacher's, after `done` steps."""
        if done >= self.teacher_warmup:
            return self.teacher_temperature
        return self.teacher_start + done / self.teacher_warmup * (self.teacher_temperature - self.teacher_start)


def _seen_by_teacher(view: View, backbone: nn.Module | None) -> tuple[Tensor, Tensor]:
    """CLS [B, D] and patches [B, N, D] of the clean view; no gradient flows into what is made of them."""
    import torch

    if backbone is None:
        return view.cls, view.patches
    with torch.no_grad():
        tokens = backbone(view.images).last_hidden_state
    return tokens[:, 0], tokens[:, 1 + backbone.config.num_register_tokens :]


def _supervised(stage: Stage, patch: int) -> int:
    """Tokens of an image that go through the heads."""
    patches = (stage.size // patch) ** 2 if stage.patch_weight and stage.mask_ratio else 0
    return patches + (stage.local_crops + 1 if stage.local_crops else 0)
