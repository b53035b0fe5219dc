"""Objective: a recipe's terms over one shared pass; any of them can join any recipe."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from torch import Tensor, nn
from transformers import Tipsv2Model

from train.network.teachers import Teachers
from train.network.towers import clamp_temperature
from train.objectives.contrastive import Contrastive, TextGrounding
from train.objectives.patch_distillation import PatchDistilling
from train.objectives.patch_labels import PatchLabelling
from train.objectives.self_distillation import SelfDistilling
from train.objectives.sfclip import MaskedDistilling
from train.objectives.sparc import SparseAlignment
from train.objectives.view import look, look_in_parts
from train.recipe.settings import Recipe, Stage


class Objective(nn.Module):
    """`forward(batch, stage)` -> loss and what it is made of; `after_step` moves averages."""

    def __init__(
        self,
        recipe: Recipe,
        model: Tipsv2Model,
        teacher: Tipsv2Model | None = None,
        unimodal: Teachers | None = None,
    ):
        """`teacher` is needed where `recipe.distillation.weight` is not 0, `unimodal` where one of `sfclip` is not."""
        super().__init__()
        self.recipe, self.model = recipe, model
        if recipe.checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        self.terms = nn.ModuleDict({"contrastive": Contrastive(recipe.web_weight)})
        if recipe.distillation.weight:
            self.terms["distillation"] = PatchDistilling(recipe.distillation, model, teacher)
        if recipe.grounding.weight:
            self.terms["grounding"] = TextGrounding(recipe.grounding)
        if recipe.patch_labels.weight:
            self.terms["patch_labels"] = PatchLabelling(recipe.patch_labels)
        if recipe.sfclip.vision_weight or recipe.sfclip.text_weight:
            self.terms["sfclip"] = MaskedDistilling(recipe.sfclip, model, unimodal)
        if recipe.sparc.weight:
            self.terms["sparc"] = SparseAlignment(recipe.sparc, model.config.vision_config.hidden_size)
        if any(stage.patch_weight * stage.mask_ratio or stage.local_crops for stage in recipe.stages):
            self.terms["self_distillation"] = SelfDistilling(recipe, model.vision_model)
        # what never changes and the base holds: no part of a checkpoint
        self.fixed = set()
        if recipe.tuning.base:
            self.fixed = {f"model.{name}" for name, p in model.named_parameters() if not p.requires_grad}

    def forward(self, batch: dict[str, Tensor], stage: Stage) -> tuple[Tensor, dict[str, Tensor]]:
        values = self.recipe.needs_values(stage)
        if self.recipe.accumulate > 1:
            view = look_in_parts(self.model, batch, self.recipe.accumulate, values)
        else:
            view = look(self.model, batch, values)
        loss, values = 0, {}
        for term in self.terms.values():
            for name, (weight, value) in term(view, batch, stage).items():
                values[name] = value
                if weight:
                    loss = loss + weight * value
        return loss, values

    def rate(self, name: str) -> float:
        """Of the learning rate, for the parameter of this name."""
        return 1.0

    def after_step(self, step: int) -> None:
        """Once per optimiser step (0-based), never in evaluation."""
        clamp_temperature(self.model)
        if "self_distillation" in self.terms:
            self.terms["self_distillation"].after_step(step, self.model)

    def finished(self) -> AbstractContextManager:
        """While it lasts, the model's weights are those that a run leaves: here those of the last step."""
        return nullcontext()

    def write_more(self, run: Path) -> None:
        """Into the run's folder, what it leaves beside its model: here nothing."""
