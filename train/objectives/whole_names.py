"""Both CLS tokens: of a picture whose class is known against all classes, and against captions over the batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from train.objectives.term import KeptTerm, Parts, ShareBelowOne, Weight

if TYPE_CHECKING:
    from train.objectives.view import KeptView


ROLES = ("cls", "caption_cls")


@dataclass(frozen=True)
class WholeNames(KeptTerm):
    """Both CLS tokens against names and captions: parts `class_*` of a set with known classes and `captions_*` of one
    with captions.
    """

    WEIGHTS: ClassVar = ("weight", "captions")

    weight: Weight = 0.0  # of the class that a picture is known to show, among all classes
    smoothing: ShareBelowOne = 0.1  # of that cross-entropy's labels
    captions: Weight = 0.0  # of the contrastive loss with the crops' captions

    def losses(self, view: KeptView) -> Parts:
        import torch.nn.functional as F

        from train.objectives import losses
        from train.objectives.view import cosines
        from train.parallel.distributed import gather

        out = {}
        known, captions = view.part.get("known"), view.part.get("captions")
        for k, (role, cls) in enumerate(zip(ROLES, view.cls, strict=True)):
            if self.weight and known is not None:
                logits = view.scales.softmax(cosines(cls, view.classes))
                loss = F.cross_entropy(logits, known.clamp(min=0), reduction="none", label_smoothing=self.smoothing)
                there = (known >= 0).float()
                out[f"class_{role}"] = self.weight / 2, (loss * there).sum() / there.sum().clamp(min=1)
            if self.captions and captions is not None and view.captions is not None:
                text = view.captions[:, k] * (captions[:, k] >= 0)[:, None]
                loss = losses.contrastive(gather(cls), gather(text), 1 / view.scales.softmax_log.exp())
                out[f"captions_{role}"] = self.captions / 2, loss
        return out
