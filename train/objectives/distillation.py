"""Patch-level distillation (TIPSv2 Sec. 3.2): frozen teacher, unmasked student, every patch supervised.

The student's vision tower starts at random (Table 2: that is what makes it align; `distillation.vision` chooses). What
the student's final patches learn is a choice: the teacher's final layer, as in the paper, or its value features, which
align better with words (value distillation, ours). With a stage's mask_ratio above 0 the student sees masked images
(Table 2, rows 2 and 3).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from train.objectives.term import Guides, Needs, PairTerm, Parts, Rule, Weight, matrices

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import Tipsv2Model

    from train.objectives.view import View
    from train.recipe.settings import Stage


@dataclass(frozen=True)
class PatchDistillation(PairTerm):
    """A frozen teacher's patches for every patch of an unmasked student. The teacher is no part of the state: its
    folder holds it.
    """

    weight: Weight = 0.0
    teacher: str = ""  # a model folder, a bundled name or a Hub id
    digest: str = ""  # of its weights; found when the run starts, so that --resume never mixes two teachers
    target: Literal["values", "final"] = "values"  # the layer of the teacher that the student's final patches learn
    vision: Literal["random", "teacher"] = "random"  # "teacher": start from its vision tower [random, Table 2]
    text: Literal["frozen", "teacher", "random"] = "frozen"  # the teacher's, frozen; or that, trained on; or a new one
    generations: int = 1  # students in a row, each the next one's teacher; above 1 each has a folder in the run's

    def rules(self, on_kept: bool) -> Iterator[Rule]:
        yield from super().rules(on_kept)
        chain = "a whole number from 1, and above 1 only where a student has a teacher (distillation.weight)"
        allowed = self.generations == 1 or (self.generations > 1 and self.weight > 0)
        yield "distillation.generations", self.generations, allowed, chain

    def needs(self, stage: Stage) -> Needs:
        return Needs(masked=bool(stage.mask_ratio))

    def teaching(self, stage: Stage, guides: Guides, patch: int, tokens: float) -> float:
        side = (stage.teacher_size or stage.size) // patch
        return 2 * matrices(guides.teacher.vision_model) * (side**2 + 2)

    def build(self, model: Tipsv2Model, guides: Guides) -> dict[str, object]:
        """Also sets `model`'s towers as asked for. Raises ValueError where widths or vocabularies do not fit."""
        import torch
        from torch import nn

        teacher = guides.teacher
        ours, theirs = model.config.vision_config, teacher.config.vision_config
        if ours.patch_size != theirs.patch_size:
            raise ValueError(
                f"the teacher's patches are {theirs.patch_size} px, the student's {ours.patch_size} px: their grids "
                "cannot be matched. Choose a teacher with the student's patch size."
            )
        same = ours.hidden_size == theirs.hidden_size
        if not same and self.text != "random":
            raise ValueError(
                f"the teacher is {theirs.hidden_size} wide, the student {ours.hidden_size}, so its text tower "
                f"does not fit; set tower.width={theirs.hidden_size} or distillation.text=random."
            )
        project = nn.Identity() if same else nn.Linear(ours.hidden_size, theirs.hidden_size)
        if self.vision == "teacher":
            _copy(teacher.vision_model, model.vision_model, "vision")
        if self.text != "random":
            _copy(teacher.text_model, model.text_model, "text")
            model.text_model.requires_grad_(self.text == "teacher")
            with torch.no_grad():
                model.temperature.copy_(teacher.temperature)
        return {"project": project, "teacher": [teacher.eval().requires_grad_(False)]}  # a list: no part of the state

    def targets(self, images: Tensor, stage: Stage, teacher: nn.Module) -> Tensor:
        """The teacher's patches [B, h, w, D] on the student's grid, at the stage's `teacher_size` if it has one."""
        import torch
        import torch.nn.functional as F

        from tipsv2.network.dense import vision_features

        with torch.no_grad():
            vision = teacher.to(images.device).vision_model  # of several processes each has its own
            size = stage.teacher_size or stage.size
            if size != stage.size:
                images = F.interpolate(images, (size, size), mode="bilinear", antialias=True)
            _, _, patches, values = vision_features(vision, images)
            grid = values if self.target == "values" else patches
            side = stage.size // vision.config.patch_size
            if grid.shape[1] != side:
                grid = F.normalize(grid.float(), dim=-1).permute(0, 3, 1, 2)
                grid = F.interpolate(grid, (side, side), mode="bilinear").permute(0, 2, 3, 1)
            return grid

    def losses(self, view: View, batch: dict[str, Tensor], stage: Stage, state: nn.Module) -> Parts:
        from train.objectives import losses

        target = self.targets(view.images, stage, state.teacher[0]).flatten(1, 2)  # [B, N, D]
        student = state.project(view.patches if view.masked is None else view.masked)
        return {"patches": (self.weight, losses.patch_distillation(student, target))}


def _copy(source: nn.Module, into: nn.Module, tower: str) -> None:
    try:
        into.load_state_dict(source.state_dict())
    except RuntimeError:
        field = "distillation.vision=random" if tower == "vision" else "distillation.text=random"
        raise ValueError(
            f"the teacher's {tower} tower has another shape than the student's; give the recipe's tower the teacher's "
            f"size, or set {field}."
        ) from None
