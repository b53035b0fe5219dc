"""Objective: a recipe's terms over one shared pass; any of them can join any recipe."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn
from transformers import Tipsv2Model

from train.objectives.contrastive import Contrastive
from train.objectives.term import Guides, PairTerm, Parts
from train.objectives.view import View, clamp_temperature, look, look_in_parts

if TYPE_CHECKING:
    from train.network.teachers import Teachers
    from train.recipe.settings import Recipe, Stage


class AtWork(nn.Module):
    """A term in a run: its settings, and as attributes what it trains or averages and what else it holds."""

    def __init__(self, settings: PairTerm, **state):
        super().__init__()
        self.settings = settings
        for name, value in state.items():
            setattr(self, name, value)

    def forward(self, view: View, batch: dict[str, Tensor], stage: Stage) -> Parts:
        return self.settings.losses(view, batch, stage, self)


class Objective(nn.Module):
    """`forward(batch, stage)` -> loss and what it is made of, `loss/<term>/<part>`, and what is only measured,
    `measured/<term>/<part>`; `after_step` moves averages.
    """

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
        guides = Guides(teacher, unimodal)
        terms = (Contrastive(recipe.web_weight), *recipe.terms(PairTerm))
        self.terms = nn.ModuleDict({term.name: AtWork(term, **term.build(model, guides)) for term in terms})
        # what never changes and the base holds: no part of a checkpoint
        self.fixed = set()
        if recipe.tuning.base:
            self.fixed = {f"model.{name}" for name, p in model.named_parameters() if not p.requires_grad}

    def forward(self, batch: dict[str, Tensor], stage: Stage) -> tuple[Tensor, dict[str, Tensor]]:
        values = self.recipe.needs(stage).values
        if self.recipe.accumulate > 1:
            view = look_in_parts(self.model, batch, self.recipe.accumulate, values)
        else:
            view = look(self.model, batch, values)
        loss, values = 0, {}
        for name, term in self.terms.items():
            for part, (weight, value) in term(view, batch, stage).items():
                values[f"{'measured' if weight is None else 'loss'}/{name}/{part}"] = value
                if weight:
                    loss = loss + weight * value
        return loss, values

    def rate(self, name: str) -> float:
        """Of the learning rate, for the parameter of this name."""
        return 1.0

    def after_step(self, step: int) -> None:
        """Once per optimiser step (0-based), never in evaluation."""
        clamp_temperature(self.model)
        for term in self.terms.values():
            term.settings.after_step(step, self.recipe.steps, self.model, term)

    def finished(self) -> AbstractContextManager:
        """While it lasts, the model's weights are those that a run leaves: here those of the last step."""
        return nullcontext()

    def write_more(self, run: Path) -> None:
        """Into the run's folder, what it leaves beside its model: here nothing."""
