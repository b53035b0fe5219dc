"""Grounding (ours): the web caption against the patches of every image, the best patches counting most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from train.objectives.term import Needs, PairTerm, Parts, Weight, kinds

if TYPE_CHECKING:
    from torch import Tensor, nn

    from train.objectives.view import View
    from train.recipe.settings import Stage


@dataclass(frozen=True)
class Grounding(PairTerm):
    """`losses.grounding_scores` over the batch, negatives from all processes.

    The images of one process meet the captions of all, so that patches never travel. A stage says which share of the
    weight counts (`grounding`) and how soft the maximum is (`grounding_temperature`).
    """

    weight: Weight = 0.0
    features: Literal["values", "final", "both"] = "values"  # which patches are grounded

    def needs(self, stage: Stage) -> Needs:
        return Needs(values=bool(stage.grounding) and self.features != "final")

    def activations(self, stage: Stage, images: float, patch: int) -> float:
        """Cosines of all patches with all captions, twice."""
        count = len(kinds(self.features)) if stage.grounding else 0
        return 2 * 4 * images * stage.batch_size * (stage.size // patch) ** 2 * count

    def losses(self, view: View, batch: dict[str, Tensor], stage: Stage, state: nn.Module) -> Parts:
        from train.objectives import losses
        from train.parallel.distributed import gather

        if not stage.grounding:
            return {}
        text, captions = gather(view.texts["web"].pooled), gather(view.texts["web"].key)
        temperature, out, chosen = view.temperature, {}, kinds(self.features)
        for kind in chosen:
            scores = gather(losses.grounding_scores(view.of(kind), text, stage.grounding_temperature))
            weight = self.weight * stage.grounding / len(chosen)
            out[kind] = weight, losses.match(scores / temperature, captions)
        return out
