"""KeptObjective: the terms on kept crops. The last blocks of the vision tower, its final norm and a bridge learn.

The bridge carries a sentence encoder's vectors to where the patches are; a text tower learns it afterwards. It stands
where Objective does: `train.run.loop.fit` trains either.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import Tipsv2Model

from tipsv2.files import whole_file
from tipsv2.network.dense import features_after
from train.objectives.term import KeptTerm
from train.objectives.view import KeptView, Scales, clamp_temperature, unit

if TYPE_CHECKING:
    from train.data.kept.sets import KeptSet
    from train.data.kept.words import Words
    from train.recipe.settings import Recipe, Stage

BRIDGE = "bridge.safetensors"
WARM = 10  # the mean of the first steps is of few: decay (1 + step) / (WARM + step) until that is larger


class KeptObjective(nn.Module):
    """`forward(batch, stage)` -> loss and what it is made of, `loss/<term>/<part>_<set>`; `after_step` moves
    averages.
    """

    def __init__(
        self,
        recipe: Recipe,
        model: Tipsv2Model,
        sets: Sequence[KeptSet],
        words: Words,
        vectors: Tensor,
        bridge: nn.Sequential,
        teacher: Tipsv2Model | None = None,
    ):
        """vectors: [R, W] of `words.sentences`. teacher: where `recipe.kept_distillation.weight` is not 0."""
        super().__init__()
        self.recipe, self.model, self.sets, self.words, self.bridge = recipe, model, sets, words, bridge
        self.bridge.requires_grad_(recipe.kept.bridge_rate > 0)
        if not recipe.kept.blocks_rate:
            model.requires_grad_(False)
        self.scales = Scales(recipe.kept)
        self.register_buffer("vectors", vectors, persistent=False)
        self.register_buffer("members", words.members, persistent=False)
        self.terms = recipe.terms(KeptTerm)
        self._teacher = [teacher.eval().requires_grad_(False)] if teacher else []  # a list: no submodule, not saved
        self.averages = Averages(self, recipe.kept.average) if recipe.kept.average else None
        # what never changes is in the base
        self.fixed = {f"model.{name}" for name, p in model.named_parameters() if not p.requires_grad}
        self.fixed.discard("model.vision_model.layernorm.bias")  # which was centred, perhaps on fewer crops than later

    def rate(self, name: str) -> float:
        """Of the learning rate, for the parameter of this name."""
        kept = self.recipe.kept
        rates = {"bridge": kept.bridge_rate, "scales": kept.scale_rate, "model": kept.blocks_rate}
        return rates[name.split(".")[0]]

    def forward(self, batch: dict[str, Tensor], stage: Stage) -> tuple[Tensor, dict[str, Tensor]]:
        loss, values = 0, {}
        noise = torch.Generator().manual_seed(int(batch["seed"]))
        named = {key: self._said(batch[key], noise) for key in ("classes", "groups") if key in batch}
        for number, of_set in enumerate(self.sets):
            view = self._view(number, batch, named, noise)
            for term in self.terms:
                for part, (weight, value) in term.losses(view).items():
                    values[f"loss/{term.name}/{part}_{of_set.kept.name}"] = value
                    loss = loss + of_set.weight * weight * value
        return loss, values

    def _said(self, rows: Tensor, noise: torch.Generator) -> Tensor:
        """Sentence vectors with a little noise, over the bridge: rows [...] -> [..., D] of unit length."""
        vectors = self.vectors[rows]
        if self.recipe.kept.noise:
            drawn = torch.randn(vectors.shape, generator=noise).to(vectors)
            vectors = unit(vectors + self.recipe.kept.noise * drawn / vectors.shape[-1] ** 0.5)
        return unit(self.bridge(vectors))

    def _view(
        self, number: int, batch: dict[str, Tensor], named: dict[str, Tensor], noise: torch.Generator
    ) -> KeptView:
        prefix = f"{number}."
        part = {key.removeprefix(prefix): value for key, value in batch.items() if key.startswith(prefix)}
        hidden, counts = part.pop("hidden").float(), {"final": 1.0, "values": self.recipe.kept.values}
        side, blocks = self.sets[number].kept.side, self.sets[number].kept.blocks
        with_values = counts["values"] > 0

        def look(model: Tipsv2Model) -> tuple[tuple[Tensor, Tensor], dict[str, Tensor]]:
            features = features_after(model.vision_model, hidden, blocks, (side, side), with_values)
            cls, caption_cls, *patches = (None if output is None else unit(output) for output in features)
            grids = dict(zip(("final", "values"), patches, strict=True))
            return (cls, caption_cls), {kind: grid.flatten(1, 2) for kind, grid in grids.items() if grid is not None}

        cls, features = look(self.model)
        targets = None
        if self._teacher:
            with torch.no_grad():
                targets = look(self._teacher[0].to(hidden.device))[1]
        captions = part.get("captions")
        return KeptView(
            cls=cls,
            features=features,
            counts=counts,
            names=self._said(part.pop("names"), noise) if "names" in part else None,
            classes=named.get("classes"),
            groups=named.get("groups"),
            members=self.members,
            captions=None if captions is None else self._said(captions.clamp(min=0), noise),
            part=part,
            scales=self.scales,
            targets=targets,
        )

    def after_step(self, step: int) -> None:
        """Once per optimiser step (0-based), never in evaluation."""
        clamp_temperature(self.model)
        if self.averages is not None:
            self.averages.update(step)

    def finished(self) -> AbstractContextManager:
        """While it lasts, model and bridge are what a run leaves: their averages, where there are such."""
        return self.averages.in_place() if self.averages is not None else nullcontext()

    def write_more(self, run: Path) -> None:
        """The bridge. The text tower in the run's model is the base's: it learns later."""
        with whole_file(run / BRIDGE) as part:
            save_file({key: value.detach().cpu().contiguous() for key, value in self.bridge.state_dict().items()}, part)


class Averages(nn.Module):
    """A running mean of what is trained (EMA): mean <- decay * mean + (1 - decay) * parameter, of every parameter that
    `module` trains. It is what a run exports, where single steps are noisy, and a part of the checkpoint.
    """

    def __init__(self, module: nn.Module, decay: float):
        super().__init__()
        self.decay = decay
        self._trained = [(name, p) for name, p in module.named_parameters() if p.requires_grad]  # a list: no submodules
        for name, parameter in self._trained:
            self.register_buffer(_key(name), parameter.detach().clone())

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After optimiser step `step` (0-based)."""
        decay = min(self.decay, (1 + step) / (WARM + step))
        for name, parameter in self._trained:
            getattr(self, _key(name)).lerp_(parameter.detach(), 1 - decay)

    @contextmanager
    @torch.no_grad()
    def in_place(self) -> Iterator[None]:
        """While it lasts, the parameters are their means."""
        last = [parameter.detach().clone() for _, parameter in self._trained]
        for name, parameter in self._trained:
            parameter.copy_(getattr(self, _key(name)))
        try:
            yield
        finally:
            for (_, parameter), value in zip(self._trained, last, strict=True):
                parameter.copy_(value)


def _key(name: str) -> str:
    return name.replace(".", "/")  # a buffer's name has no dots
