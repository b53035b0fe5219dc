"""Patch-level distillation (TIPSv2 Sec. 3.2): frozen teacher, unmasked student, every patch supervised.

The student's vision tower starts at random (Table 2: that is what makes it align; `student_vision` chooses), its text
tower is the teacher's, frozen. What the student's final patches learn is a choice: the teacher's final layer, as in the
paper, or its value features, which align better with words (value distillation, ours: see the model card of
tipsv2-nano for figures).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Tipsv2Model

from tipsv2.dense import vision_features
from train import losses
from train.objectives.towers import clamp_temperature, two_captions
from train.recipes import Recipe, Stage


class Distillation(nn.Module):
    """`forward(batch, stage)` -> loss and terms. The teacher is no part of the state: its folder holds it."""

    def __init__(self, recipe: Recipe, model: Tipsv2Model, teacher: Tipsv2Model):
        super().__init__()
        if recipe.target not in ("values", "final"):
            raise ValueError(f"target={recipe.target!r} is unknown; choose values or final.")
        if recipe.student_vision not in ("random", "teacher"):
            raise ValueError(f"student_vision={recipe.student_vision!r} is unknown; choose random or teacher.")
        self.recipe = recipe
        self.model = model
        if recipe.student_vision == "teacher":
            model.vision_model.load_state_dict(teacher.vision_model.state_dict())
        model.text_model.load_state_dict(teacher.text_model.state_dict())
        model.text_model.requires_grad_(False)
        with torch.no_grad():
            model.temperature.copy_(teacher.temperature)
        self._teacher = [teacher.eval().requires_grad_(False)]  # in a list: not a submodule, not in state_dict

    @torch.no_grad()
    def targets(self, images: Tensor, stage: Stage) -> Tensor:
        """The teacher's patches [B, h, w, D] on the student's grid, at the stage's `teacher_size` if it has one."""
        vision = self._teacher[0].vision_model
        size = stage.teacher_size or stage.size
        if size != stage.size:
            images = F.interpolate(images, (size, size), mode="bilinear", antialias=True)
        _, _, patches, values = vision_features(vision, images)
        grid = values if self.recipe.target == "values" else patches
        side = stage.size // 14
        if grid.shape[1] != side:
            grid = F.normalize(grid.float(), dim=-1).permute(0, 3, 1, 2)
            grid = F.interpolate(grid, (side, side), mode="bilinear").permute(0, 2, 3, 1)
        return grid

    def forward(self, batch: dict[str, Tensor], stage: Stage) -> tuple[Tensor, dict[str, Tensor]]:
        images = batch["image"]
        tokens = self.model.vision_model(images).last_hidden_state  # [B, 2 + N, D]
        terms = two_captions(self.model, batch, tokens[:, 0], tokens[:, 1])
        target = self.targets(images, stage).flatten(1, 2)  # [B, N, D]
        terms["patch"] = losses.patch_distillation(tokens[:, 2:], target)
        loss = (terms["contrastive_web"] + terms["contrastive_synthetic"]) / 2
        return loss + self.recipe.distill_weight * terms["patch"], terms

    def after_step(self, step: int) -> None:
        clamp_temperature(self.model)
