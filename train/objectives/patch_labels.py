"""Masks as patch labels: every labelled patch chooses its own name among all names of the data set.

Where masks are at hand (drawn scenes, a `mask` column) this is what zero-shot segmentation does with the patches, made
into a loss: names go through the text tower, so both towers can learn, and no classifier is added to the encoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from train.objectives.term import Needs, PairTerm, Parts, Positive, Weight, kinds

if TYPE_CHECKING:
    from torch import Tensor, nn

    from train.objectives.view import View
    from train.recipe.settings import Stage


@dataclass(frozen=True)
class PatchLabels(PairTerm):
    """`losses.patch_labels`, where the batch holds labels [B, h, w] (-1 = unlabelled) and the names' tokens."""

    weight: Weight = 0.0
    features: Literal["values", "final", "both"] = "values"  # which patches learn
    temperature: Positive = 0.05  # of the softmax over names, in cosine units

    def needs(self, stage: Stage) -> Needs:
        return Needs(values=self.features != "final")

    def losses(self, view: View, batch: dict[str, Tensor], stage: Stage, state: nn.Module) -> Parts:
        from train.objectives import losses
        from train.objectives.view import read
        from train.parallel.distributed import mean

        names = read(view.model, batch["names_ids"], batch["names_mask"]).pooled  # [C, D]
        labels, chosen = batch["labels"].flatten(1), kinds(self.features)
        return {
            kind: (
                self.weight / len(chosen),
                losses.patch_labels(view.of(kind), names, labels, self.temperature, mean),
            )
            for kind in chosen
        }
