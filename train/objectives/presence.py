"""Is a name in the picture? The soft maximum of its cosines over all patches against what the labels say.

What an explorer reads off a picture to say "not here" is the best patch; nothing else asks that the best patch of a
name that is not there be low.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from train.objectives.term import KeptTerm, Parts, Positive, Share, Weight

if TYPE_CHECKING:
    from train.objectives.view import KeptView


@dataclass(frozen=True)
class Presence(KeptTerm):
    """Kept crops with labels: is a name in the picture, judged by the soft maximum over its patches."""

    ARRAY: ClassVar = ("labels", "labels")

    weight: Weight = 0.0
    temperature: Positive = 1 / 30  # of the soft maximum, in cosine units
    least: Share = 0.3  # share of a patch that shows what is in the picture

    def losses(self, view: KeptView) -> Parts:
        from train.objectives import losses
        from train.parallel.distributed import mean

        if view.names is None:
            return {}
        out = {}
        there = losses.present(view.part["labels"], view.part["share"], len(view.names), self.least)
        for kind, counts, patches in view.kinds():
            scores = losses.grounding_scores(patches, view.names, self.temperature)  # [B, C]
            loss = losses.binary(view.scales.presence(scores), there, there.new_ones(len(there)), mean)
            out[kind] = self.weight * counts, loss
        return out
