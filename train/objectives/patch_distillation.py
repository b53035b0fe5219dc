"""Patch-level distillation (TIPSv2 Sec. 3.2): frozen teacher, unmasked student, every patch supervised.

The student's vision tower starts at random (Table 2: that is what makes it align; `distillation.vision` chooses). What
the student's final patches learn is a choice: the teacher's final layer, as in the paper, or its value features, which
align better with words (value distillation, ours). With a stage's mask_ratio above 0 the student sees masked images
(Table 2, rows 2 and 3).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Tipsv2Model

from tipsv2.network.dense import vision_features
from train.network.teachers import move
from train.objectives import losses
from train.objectives.view import View
from train.recipe.settings import PatchDistillation, Stage, choose


class PatchDistilling(nn.Module):
    """Term `distillation`. The teacher is no part of the state: its folder holds it."""

    def __init__(self, settings: PatchDistillation, model: Tipsv2Model, teacher: Tipsv2Model):
        """Also sets `model`'s towers as `settings` say. Raises ValueError where widths or vocabularies do not fit."""
        super().__init__()
        choose("distillation.target", settings.target, "values", "final")
        choose("distillation.vision", settings.vision, "random", "teacher")
        choose("distillation.text", settings.text, "frozen", "teacher", "random")
        self.settings = settings
        ours, theirs = model.config.vision_config, teacher.config.vision_config
        if ours.patch_size != theirs.patch_size:
            raise ValueError(
                f"the teacher's patches are {theirs.patch_size} px, the student's {ours.patch_size} px: their grids "
                "cannot be matched. Choose a teacher with the student's patch size."
            )
        same = ours.hidden_size == theirs.hidden_size
        if not same and settings.text != "random":
            raise ValueError(
                f"the teacher is {theirs.hidden_size} wide, the student {ours.hidden_size}, so its text tower "
                f"does not fit; set tower.width={theirs.hidden_size} or distillation.text=random."
            )
        self.project = nn.Identity() if same else nn.Linear(ours.hidden_size, theirs.hidden_size)
        if settings.vision == "teacher":
            _copy(teacher.vision_model, model.vision_model, "vision")
        if settings.text != "random":
            _copy(teacher.text_model, model.text_model, "text")
            model.text_model.requires_grad_(settings.text == "teacher")
            with torch.no_grad():
                model.temperature.copy_(teacher.temperature)
        self._teacher = [teacher.eval().requires_grad_(False)]  # in a list: not a submodule, not in state_dict

    @torch.no_grad()
    def targets(self, images: Tensor, stage: Stage) -> Tensor:
        """The teacher's patches [B, h, w, D] on the student's grid, at the stage's `teacher_size` if it has one."""
        move(self._teacher[0], images.device)
        vision = self._teacher[0].vision_model
        size = stage.teacher_size or stage.size
        if size != stage.size:
            images = F.interpolate(images, (size, size), mode="bilinear", antialias=True)
        _, _, patches, values = vision_features(vision, images)
        grid = values if self.settings.target == "values" else patches
        side = stage.size // vision.config.patch_size
        if grid.shape[1] != side:
            grid = F.normalize(grid.float(), dim=-1).permute(0, 3, 1, 2)
            grid = F.interpolate(grid, (side, side), mode="bilinear").permute(0, 2, 3, 1)
        return grid

    def forward(self, view: View, batch: dict[str, Tensor], stage: Stage) -> dict[str, tuple[float, Tensor]]:
        target = self.targets(view.images, stage).flatten(1, 2)  # [B, N, D]
        student = self.project(view.patches if view.masked is None else view.masked)
        return {"distillation": (self.settings.weight, losses.patch_distillation(student, target))}


def _copy(source: nn.Module, into: nn.Module, tower: str) -> None:
    try:
        into.load_state_dict(source.state_dict())
    except RuntimeError:
        field = "distillation.vision=random" if tower == "vision" else "distillation.text=random"
        raise ValueError(
            f"the teacher's {tower} tower has another shape than the student's; give the recipe's tower the teacher's "
            f"size, or set {field}."
        ) from None
