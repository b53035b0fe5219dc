"""Masks as patch labels: every labelled patch chooses its own name among all names of the data set.

Where masks are at hand (drawn scenes, a `mask` column) this is what zero-shot segmentation does with the patches, made
into a loss: names go through the text tower, so both towers can learn, and no classifier is added to the encoder.
"""

from __future__ import annotations

from torch import Tensor, nn

from train.objectives import losses
from train.objectives.view import View, read
from train.parallel.distributed import total, world
from train.recipe.settings import PatchLabels, Stage, choose


class PatchLabelling(nn.Module):
    """Term `patch_labels`, where the batch holds labels [B, h, w] (-1 = unlabelled) and the names' tokens."""

    def __init__(self, settings: PatchLabels):
        super().__init__()
        choose("patch_labels.features", settings.features, "values", "final", "both")
        if settings.temperature <= 0:
            raise ValueError(f"patch_labels.temperature={settings.temperature} must be above 0.")
        self.settings = settings

    def forward(self, view: View, batch: dict[str, Tensor], stage: Stage) -> dict[str, tuple[float, Tensor]]:
        settings = self.settings
        names = read(view.model, batch["names_ids"], batch["names_mask"]).pooled  # [C, D]
        labels = batch["labels"].flatten(1)
        wanted = {"values": view.values, "final": view.patches}
        chosen = wanted if settings.features == "both" else {settings.features: wanted[settings.features]}
        return {
            f"patch_labels_{kind}": (
                settings.weight / len(chosen),
                losses.patch_labels(patches, names, labels, settings.temperature, lambda x: total(x) / world()),
            )
            for kind, patches in chosen.items()
        }
