"""Labels of patches: every patch chooses its name among the set's, says of each whether it is it, and every name
chooses its patches.

As `train.objectives.patch_labels`, with a scale that learns and patches weighed by how much of them shows their label;
names come over the bridge. The second asks every name for itself, so that a cosine means the same beside any
others: what "not here" needs (train/objectives/losses.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from train.objectives.term import KeptTerm, Parts, Share, Weight

if TYPE_CHECKING:
    from train.objectives.view import KeptView


@dataclass(frozen=True)
class NamedPatches(KeptTerm):
    """Kept crops with labels: every labelled patch its name among the set's names, every name its patches. Parts
    `names_*`, `binary_*` and `places_*`.
    """

    WEIGHTS: ClassVar = ("weight", "binary", "places")
    ARRAY: ClassVar = ("labels", "labels")

    weight: Weight = 0.0  # of the cross-entropy over names
    binary: Weight = 0.0  # of every name for itself: a sigmoid of scale * cosine + bias
    places: Weight = 0.0  # of a name's own patches against the picture's others
    least: Share = 0.5  # a patch counts from this share of its most frequent label on, and as much as that share

    def losses(self, view: KeptView) -> Parts:
        import torch.nn.functional as F

        from train.objectives import losses
        from train.objectives.view import cosines
        from train.parallel.distributed import mean

        if view.names is None:
            return {}
        out = {}
        labels, share = view.part["labels"].flatten(), view.part["share"].flatten()
        weights = share * (share >= self.least) * (labels >= 0)
        right = F.one_hot(labels.clamp(min=0), len(view.names)).float()
        for kind, counts, patches in view.kinds():
            likeness = cosines(patches.flatten(0, 1), view.names)
            if self.weight:
                loss = losses.named(view.scales.softmax(likeness), labels, weights, mean)
                out[f"names_{kind}"] = self.weight * counts, loss
            if self.binary:
                loss = losses.binary(view.scales.binary(likeness), right, weights, mean)
                out[f"binary_{kind}"] = self.binary * counts, loss
            if self.places:
                shape = view.part["labels"].shape
                scale = view.scales.softmax_log.exp().detach()
                loss = losses.places(
                    likeness.unflatten(0, shape), labels.view(shape), share.view(shape), scale, self.least, mean
                )
                out[f"places_{kind}"] = self.places * counts, loss
        return out
