"""The two-caption contrastive loss and, where asked for, grounding: captions against patches over the whole batch."""

from __future__ import annotations

from torch import Tensor, nn

from train.network.towers import MIN_TEMPERATURE
from train.objectives import losses
from train.objectives.view import View
from train.parallel.distributed import gather
from train.recipe.settings import Grounding, Stage, choose


class Contrastive(nn.Module):
    """Mean of two InfoNCE: CLS 1 with web alt-text, CLS 2 with a synthetic caption (TIPSv2 App. A.9, Sec. 3.5).

    Images of one caption are each other's positives (`losses.match`).
    """

    def __init__(self, web_weight: float = 0.5):
        """`web_weight` is the first one's share. Raises ValueError if it is none."""
        super().__init__()
        if not 0 <= web_weight <= 1:
            raise ValueError(f"web_weight={web_weight} is a share: it must lie between 0 and 1.")
        self.weights = {"web": web_weight, "synthetic": 1 - web_weight}

    def forward(self, view: View, batch: dict[str, Tensor], stage: Stage) -> dict[str, tuple[float, Tensor]]:
        temperature = view.model.temperature.float().clamp(min=MIN_TEMPERATURE)
        out = {}
        for role, image in (("web", view.cls), ("synthetic", view.caption_cls)):
            text = view.texts[role]
            out[f"contrastive_{role}"] = (
                self.weights[role],
                losses.contrastive(gather(image), gather(text.pooled), temperature, gather(text.key)),
            )
        return out


class TextGrounding(nn.Module):
    """The web caption against the patches of every image: `losses.grounding_scores`, negatives from all processes.

    The images of one process meet the captions of all, so that patches never travel.
    """

    def __init__(self, settings: Grounding):
        super().__init__()
        choose("grounding.features", settings.features, "values", "final", "both")
        self.settings = settings

    def forward(self, view: View, batch: dict[str, Tensor], stage: Stage) -> dict[str, tuple[float, Tensor]]:
        settings = self.settings
        if not stage.grounding:
            return {}
        temperature = view.model.temperature.float().clamp(min=MIN_TEMPERATURE)
        text, captions = gather(view.texts["web"].pooled), gather(view.texts["web"].key)
        wanted = {"values": view.values, "final": view.patches}
        chosen = wanted if settings.features == "both" else {settings.features: wanted[settings.features]}
        out = {}
        for name, patches in chosen.items():
            scores = gather(losses.grounding_scores(patches, text, stage.grounding_temperature))
            weight = settings.weight * stage.grounding / len(chosen)
            out[f"grounding_{name}"] = weight, losses.match(scores / temperature, captions)
        return out
