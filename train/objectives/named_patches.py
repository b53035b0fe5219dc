"""Labels of patches: every patch chooses its name among the set's, says of each whether it is it, and every name
chooses its patches.

As `train.objectives.patch_labels`, with a scale that learns and patches weighed by how much of them shows their label;
names come over the bridge. The second asks every name for itself, so that a cosine means the same beside any
others: what "not here" needs (train/objectives/name_losses.py).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from train.objectives import name_losses
from train.objectives.kept_view import KeptView, cosines
from train.parallel.distributed import mean
from train.recipe.kept_settings import NamedPatches


class NamingPatches(nn.Module):
    """Terms `names_*`, `binary_*` and `places_*` of a set with labels."""

    def __init__(self, settings: NamedPatches):
        super().__init__()
        self.settings = settings

    def forward(self, view: KeptView) -> dict[str, tuple[float, Tensor]]:
        if view.names is None:
            return {}
        settings, out = self.settings, {}
        labels, share = view.part["labels"].flatten(), view.part["share"].flatten()
        weights = share * (share >= settings.least) * (labels >= 0)
        right = F.one_hot(labels.clamp(min=0), len(view.names)).float()
        for kind, counts, patches in view.kinds():
            found = cosines(patches.flatten(0, 1), view.names)
            if settings.weight:
                loss = name_losses.named(view.scales.softmax(found), labels, weights, mean)
                out[f"names_{kind}"] = settings.weight * counts, loss
            if settings.binary:
                loss = name_losses.binary(view.scales.binary(found), right, weights, mean)
                out[f"binary_{kind}"] = settings.binary * counts, loss
            if settings.places:
                shape = view.part["labels"].shape
                scale = view.scales.softmax_log.exp().detach()
                loss = name_losses.places(
                    found.unflatten(0, shape), labels.view(shape), share.view(shape), scale, settings.least, mean
                )
                out[f"places_{kind}"] = settings.places * counts, loss
        return out
