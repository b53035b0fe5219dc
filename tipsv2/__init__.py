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
__all__ = list(_HOMES)


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
