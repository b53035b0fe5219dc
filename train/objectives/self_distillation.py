"""DINO and iBOT++: the student's masked view and local crops learn what its teacher says of the clean view.

Head-only EMA (TIPSv2 Sec. 3.4): the teacher's backbone is the student's, detached, and only its heads are averaged.
Full EMA (TIPS v1): the teacher's backbone is an average too, which costs its memory and one more pass a step.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from transformers import Tipsv2Model

from train.objectives import losses, schedules
from train.objectives.heads import Heads
from train.objectives.view import View
from train.recipe.settings import Recipe, Stage, choose


class SelfDistilling(nn.Module):
    """Terms `patch` (iBOT or iBOT++, where the batch has a masked view) and `dino` (where it has local crops)."""

    def __init__(self, recipe: Recipe, vision: nn.Module):
        super().__init__()
        settings = recipe.self_distillation
        self.recipe, self.settings = recipe, settings
        self.heads = Heads(
            vision.config.hidden_size, settings.hidden, settings.bottleneck, settings.prototypes, settings.targets
        )
        choose("self_distillation.patches", settings.patches, "all", "masked", "separate")
        full = choose("self_distillation.ema", settings.ema, "heads", "full") == "full"
        self.backbone = copy.deepcopy(vision).requires_grad_(False) if full else None
        self.register_buffer("done", torch.zeros((), dtype=torch.long))  # steps, for the temperature's warm-up

    def forward(self, view: View, batch: dict[str, Tensor], stage: Stage) -> dict[str, tuple[float, Tensor]]:
        settings, out = self.settings, {}
        hidden = view.masked is not None and stage.patch_weight
        if not hidden and view.local is None:
            return out
        cls, patches = self._teacher(view)
        temperature = self._temperature()
        if hidden:
            target = self.heads.target("patch", patches, temperature)  # [B, N, K]
            scores = self.heads.student["patch"](view.masked)
            loss = losses.ibot(scores, target, batch["masked"], settings.student_temperature, settings.patches)
            out["patch"] = stage.patch_weight, loss
            out["patch_entropy"] = 0.0, losses.entropy(target)
        if view.local is not None:
            target = self.heads.target("cls", cls, temperature)  # [B, K]
            scores = self.heads.student["cls"](view.local)  # [M, B, K]
            out["dino"] = stage.dino_weight, losses.dino(scores, target, settings.student_temperature)
            out["cls_entropy"] = 0.0, losses.entropy(target)
        return out

    def after_step(self, step: int, model: Tipsv2Model) -> None:
        """Once per optimiser step, never in evaluation."""
        settings = self.settings
        momentum = schedules.cosine(step, self.recipe.steps, settings.momentum, settings.momentum_end)
        self.heads.update(momentum)
        self.done.fill_(step + 1)
        if self.backbone is not None:
            with torch.no_grad():
                pairs = zip(self.backbone.parameters(), model.vision_model.parameters(), strict=True)
                for ours, theirs in pairs:
                    ours.lerp_(theirs, 1 - momentum)

    @torch.no_grad()
    def _teacher(self, view: View) -> tuple[Tensor, Tensor]:
        """CLS [B, D] and patches [B, N, D] of the clean view, as the teacher sees it."""
        if self.backbone is None:
            return view.cls, view.patches
        tokens = self.backbone(view.images).last_hidden_state
        return tokens[:, 0], tokens[:, 1 + self.backbone.config.num_register_tokens :]

    def _temperature(self) -> float:
        settings = self.settings
        if int(self.done) >= settings.teacher_warmup:
            return settings.teacher_temperature
        share = int(self.done) / settings.teacher_warmup
        return settings.teacher_start + share * (settings.teacher_temperature - settings.teacher_start)
