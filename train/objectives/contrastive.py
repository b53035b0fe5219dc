"""The two-caption contrastive loss: CLS 1 with web alt-text, CLS 2 with a synthetic caption. Every run has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from train.objectives.term import PairTerm, Parts, Share

if TYPE_CHECKING:
    from torch import Tensor, nn

    from train.objectives.view import View
    from train.recipe.settings import Stage


@dataclass(frozen=True)
class Contrastive(PairTerm):
    """Mean of two InfoNCE (TIPSv2 App. A.9, Sec. 3.5). Images of one caption are each other's positives
    (`losses.match`).
    """

    web_weight: Share = 0.5  # of the first [App. A.9]; the second has what is left of 1

    def losses(self, view: View, batch: dict[str, Tensor], stage: Stage, state: nn.Module) -> Parts:
        from train.objectives import losses
        from train.parallel.distributed import gather

        temperature, out, weights = view.temperature, {}, {"web": self.web_weight, "synthetic": 1 - self.web_weight}
        for role, image in (("web", view.cls), ("synthetic", view.caption_cls)):
            text = view.texts[role]
            loss = losses.contrastive(gather(image), gather(text.pooled), temperature, gather(text.key))
            out[role] = weights[role], loss
        return out
