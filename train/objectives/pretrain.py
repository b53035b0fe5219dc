"""TIPSv2 pretraining: two-caption contrastive + DINO + iBOT++ with head-only EMA (TIPSv2 App. A.9, Sec. 3.3 to 3.5).

The clean pass serves both the contrastive loss and, detached, the teacher: there is no second backbone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import Tipsv2Model

from train import losses, schedules
from train.heads import Heads
from train.objectives.towers import clamp_temperature, two_captions
from train.recipes import Recipe, Stage


class Pretraining(nn.Module):
    """`forward(batch, stage)` -> loss and the terms it is made of; `after_step` moves the teacher."""

    def __init__(self, recipe: Recipe, model: Tipsv2Model):
        super().__init__()
        self.recipe = recipe
        self.model = model
        self.heads = Heads(
            model.config.vision_config.hidden_size,
            recipe.head_hidden,
            recipe.bottleneck,
            recipe.prototypes,
            recipe.targets,
        )

    def forward(self, batch: dict[str, Tensor], stage: Stage) -> tuple[Tensor, dict[str, Tensor]]:
        recipe, vision = self.recipe, self.model.vision_model
        images = batch["image"]
        masked = batch.get("masked")
        if masked is None:
            tokens = vision(images).last_hidden_state  # [B, 2 + N, D]
            hidden_tokens = None
        else:  # clean and masked view in one pass
            both = vision(torch.cat([images, images]), bool_masked_pos=torch.cat([torch.zeros_like(masked), masked]))
            tokens, hidden_tokens = both.last_hidden_state.chunk(2)
        terms = two_captions(self.model, batch, tokens[:, 0], tokens[:, 1])
        loss = (terms["contrastive_web"] + terms["contrastive_synthetic"]) / 2

        if hidden_tokens is not None:
            target = self.heads.target("patch", tokens[:, 2:], recipe.teacher_temperature)  # [B, N, K]
            scores = self.heads.student["patch"](hidden_tokens[:, 2:])
            terms["patch"] = losses.ibot(scores, target, masked, recipe.student_temperature, recipe.patches)
            terms["patch_entropy"] = losses.entropy(target)
            loss = loss + stage.patch_weight * terms["patch"]
        if "local" in batch:
            crops = batch["local"]
            target = self.heads.target("cls", tokens[:, 0], recipe.teacher_temperature)  # [B, K]
            cls = vision(crops.flatten(0, 1)).pooler_output
            scores = self.heads.student["cls"](cls).unflatten(0, crops.shape[:2])  # [M, B, K]
            terms["dino"] = losses.dino(scores, target, recipe.student_temperature)
            terms["cls_entropy"] = losses.entropy(target)
            loss = loss + stage.dino_weight * terms["dino"]
        return loss, terms

    def after_step(self, step: int) -> None:
        """Once per optimiser step, never in evaluation."""
        clamp_temperature(self.model)
        recipe = self.recipe
        self.heads.update(schedules.cosine(step, recipe.steps, recipe.momentum, recipe.momentum_end))
