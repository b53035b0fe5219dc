"""TIPSv2 encoders and what one can see with them.

    import tipsv2
    encoder = tipsv2.load()                              # or "opentips-nano", "google/tipsv2-b14", a folder
    features = encoder.look("dog.jpg")                   # ImageFeatures: cls, caption_cls, patches, values, size
    text = encoder.encode_text(["a dog", "grass"])       # [2, D] unit rows
    maps(features, text), label(features, text).labels   # of tipsv2.analysis.heatmap and .segmentation
    tipsv2.segment(encoder, "dog.jpg", ["dog", "grass"])

Names are resolved when first used, so that importing the package stays light.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for editors and type checkers: what _HOMES names
    from tipsv2.analysis.segmentation import Segmentation, segment
    from tipsv2.checkpoints.catalogue import ModelError, ModelInfo, available, find
    from tipsv2.images import ImageError, open_image
    from tipsv2.network.encoder import Encoder, load
    from tipsv2.network.view import ImageFeatures, View

_HOMES = {
    "load": "network.encoder",
    "Encoder": "network.encoder",
    "ImageFeatures": "network.view",
    "View": "network.view",
    "find": "checkpoints.catalogue",
    "available": "checkpoints.catalogue",
    "ModelInfo": "checkpoints.catalogue",
    "ModelError": "checkpoints.catalogue",
    "open_image": "images",
    "ImageError": "images",
    "segment": "analysis.segmentation",
    "Segmentation": "analysis.segmentation",
}
__all__ = [
    "Encoder",
    "ImageError",
    "ImageFeatures",
    "ModelError",
    "ModelInfo",
    "Segmentation",
    "View",
    "available",
    "find",
    "load",
    "open_image",
    "segment",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
