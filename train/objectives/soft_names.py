"""A classifier's names at every patch, softly, and the wider words above them: names without any label map.

The classifier says where it is sure; its thousand names then reach patches of any photograph, and each hypernym of
them ("dog", "vehicle") as the sum of its classes.
"""

from __future__ import annotations

from torch import Tensor, nn

from train.objectives import name_losses
from train.objectives.kept_view import KeptView, cosines
from train.parallel.distributed import mean
from train.recipe.kept_settings import SoftNames


class SoftNaming(nn.Module):
    """Terms `soft_*` and `groups_*` of a set with soft names."""

    def __init__(self, settings: SoftNames):
        super().__init__()
        self.settings = settings

    def forward(self, view: KeptView) -> dict[str, tuple[float, Tensor]]:
        if "soft" not in view.part:
            return {}
        settings, out = self.settings, {}
        at, classes, chance = view.part["soft_at"], view.part["soft"], view.part["chance"]
        for kind, counts, patches in view.kinds():
            chosen = patches.flatten(0, 1)[at]
            if settings.weight:
                logits = view.scales.softmax(cosines(chosen, view.classes))
                out[f"soft_{kind}"] = settings.weight * counts, name_losses.soft_named(logits, classes, chance, mean)
            if settings.groups and view.groups is not None:
                targets = name_losses.group_chances(classes, chance, view.members)
                logits = view.scales.binary(cosines(chosen, view.groups))
                loss = name_losses.binary(logits, targets, chance[:, 0], mean)
                out[f"groups_{kind}"] = settings.groups * counts, loss
        return out
