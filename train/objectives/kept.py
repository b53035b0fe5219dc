"""KeptObjective: the terms on kept crops. The last blocks of the vision tower, its final norm and a bridge learn.

The bridge carries a sentence encoder's vectors to where the patches are; a text tower learns it afterwards. It stands
where Objective does: `train.run.loop.fit` trains either.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import Tipsv2Model

from tipsv2.files import whole_file
from tipsv2.network.dense import features_after
from train.data.kept.sets import KeptSet
from train.data.kept.words import Words
from train.network.teachers import move
from train.network.towers import clamp_temperature
from train.objectives.averages import Averages
from train.objectives.kept_distillation import KeptDistilling
from train.objectives.kept_view import KeptView, unit
from train.objectives.named_patches import NamingPatches
from train.objectives.presence import Presences
from train.objectives.scales import Scales
from train.objectives.soft_names import SoftNaming
from train.objectives.whole_names import NamingPictures
from train.recipe.settings import Recipe, Stage

BRIDGE = "bridge.safetensors"


class KeptObjective(nn.Module):
    """`forward(batch, stage)` -> loss and what it is made of: term, features and set; `after_step` moves averages."""

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
        self.terms = nn.ModuleDict()
        if recipe.named_patches.weight or recipe.named_patches.binary or recipe.named_patches.places:
            self.terms["named_patches"] = NamingPatches(recipe.named_patches)
        if recipe.presence.weight:
            self.terms["presence"] = Presences(recipe.presence)
        if recipe.soft_names.weight or recipe.soft_names.groups:
            self.terms["soft_names"] = SoftNaming(recipe.soft_names)
        if recipe.whole_names.weight or recipe.whole_names.captions:
            self.terms["whole_names"] = NamingPictures(recipe.whole_names)
        if recipe.kept_distillation.weight:
            self.terms["kept_distillation"] = KeptDistilling(recipe.kept_distillation)
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
        for number, each in enumerate(self.sets):
            view = self._view(number, batch, named, noise)
            for term in self.terms.values():
                for name, (weight, value) in term(view).items():
                    values[f"{name}_{each.kept.name}"] = value
                    loss = loss + each.weight * weight * value
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
            found = features_after(model.vision_model, hidden, blocks, (side, side), with_values)
            cls, caption_cls, *patches = (None if each is None else unit(each) for each in found)
            grids = dict(zip(("final", "values"), patches, strict=True))
            return (cls, caption_cls), {kind: grid.flatten(1, 2) for kind, grid in grids.items() if grid is not None}

        cls, features = look(self.model)
        targets = None
        if self._teacher:
            move(self._teacher[0], hidden.device)
            with torch.no_grad():
                targets = look(self._teacher[0])[1]
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
