"""Both CLS tokens: of a picture whose class is known against all classes, and against captions over the batch."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from train.objectives import losses
from train.objectives.kept_view import KeptView, cosines
from train.parallel.distributed import gather
from train.recipe.kept_settings import WholeNames

ROLES = ("cls", "caption_cls")


class NamingPictures(nn.Module):
    """Terms `class_*` of a set with known classes and `captions_*` of one with captions."""

    def __init__(self, settings: WholeNames):
        super().__init__()
        self.settings = settings

    def forward(self, view: KeptView) -> dict[str, tuple[float, Tensor]]:
        settings, out = self.settings, {}
        known, captions = view.part.get("known"), view.part.get("captions")
        for k, (role, cls) in enumerate(zip(ROLES, view.cls, strict=True)):
            if settings.weight and known is not None:
                logits = view.scales.softmax(cosines(cls, view.classes))
                each = F.cross_entropy(logits, known.clamp(min=0), reduction="none", label_smoothing=settings.smoothing)
                there = (known >= 0).float()
                out[f"class_{role}"] = settings.weight / 2, (each * there).sum() / there.sum().clamp(min=1)
            if settings.captions and captions is not None and view.captions is not None:
                text = view.captions[:, k] * (captions[:, k] >= 0)[:, None]
                loss = losses.contrastive(gather(cls), gather(text), 1 / view.scales.softmax_log.exp())
                out[f"captions_{role}"] = settings.captions / 2, loss
        return out
