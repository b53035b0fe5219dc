"""Is a name in the picture? The soft maximum of its cosines over all patches against what the labels say.

What an explorer reads off a picture to say "not here" is the best patch; nothing else asks that the best patch of a
name that is not there be low.
"""

from __future__ import annotations

from torch import Tensor, nn

from train.objectives import losses, name_losses
from train.objectives.kept_view import KeptView
from train.parallel.distributed import mean
from train.recipe.kept_settings import Presence


class Presences(nn.Module):
    """Terms `presence_*` of a set with labels."""

    def __init__(self, settings: Presence):
        super().__init__()
        self.settings = settings

    def forward(self, view: KeptView) -> dict[str, tuple[float, Tensor]]:
        if view.names is None:
            return {}
        settings, out = self.settings, {}
        there = name_losses.present(view.part["labels"], view.part["share"], len(view.names), settings.least)
        for kind, counts, patches in view.kinds():
            found = losses.grounding_scores(patches, view.names, settings.temperature)  # [B, C]
            logits = view.scales.presence(found)
            loss = name_losses.binary(logits, there, there.new_ones(len(there)), mean)
            out[f"presence_{kind}"] = settings.weight * counts, loss
        return out
