"""DPT heads and what they predicted: loaded models (everyone's, on the encoders' shelf and under its budget), the last
predictions (each visitor's own), bounded.

The heads bring an encoder of their own, in float32 up to 5 GB. Only `fetch` downloads, and only when a visitor has
asked for it. No gradio in here.

    memory = DepthMemory(Shelf("auto"))
    for done, total in memory.fetch("tipsv2-b14-dpt", "visitor"): ...
    scene = memory.predict("visitor", "tipsv2-b14-dpt", "room.jpg", 448)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from demos.backend import belongings
from demos.backend.cache import VisitorCache
from demos.backend.downloads import Downloads
from demos.backend.shelf import HEADS, Shelf, amount
from demos.backend.studio import image_bytes, open_shown
from tipsv2.checkpoints.catalogue import (
    DPT,
    DPT_TYPE,
    ModelError,
    ModelInfo,
    find,
    is_cached,
    read_config,
)

if TYPE_CHECKING:
    from PIL import Image

    from tipsv2.analysis.depth import Dpt, DptResult

KEEP_SCENES = 2  # per visitor: an image and the one before it, or two resolutions
KEEP_BYTES = 600_000_000  # of predictions, all visitors together: one of 2048 x 1536 pixels takes 57 MB


@dataclass(frozen=True)
class Scene:
    """An image and what a model with DPT heads predicted of it."""

    image: Image.Image  # RGB
    result: DptResult
    model: str
    resolution: int  # short side in pixels that was asked for

    @property
    def num_bytes(self) -> int:
        """Memory that image and predictions take."""
        parts = (self.result.depth, self.result.normals, self.result.labels)
        return image_bytes(self.image) + sum(part.nbytes for part in parts if part is not None)


def apart(names: Sequence[str]) -> tuple[list[str], list[ModelInfo]]:
    """Models the app was started with -> those that are encoders ("auto" if none is), and what is known of the others,
    which have DPT heads. Raises ModelError on an unknown name.
    """
    encoders, heads = [], []
    for name in names:
        info = find(name)
        if info.name in DPT and info.source == "hub" or info.source == "folder" and _says_heads(info):
            heads.append(info)
        else:
            encoders.append(name)
    return encoders or ["auto"], heads


def _says_heads(info: ModelInfo) -> bool:
    try:
        read_config(Path(info.location), DPT_TYPE)
    except ModelError:
        return False
    return True


class DepthMemory:
    """The models with heads on offer. shelf: where loaded models are; own: offered first, beside the released ones."""

    def __init__(self, shelf: Shelf, own: Sequence[ModelInfo] = ()):
        self.shelf = shelf
        self._infos: dict[str, ModelInfo] = {info.name: info for info in own}
        for name, info in DPT.items():
            self._infos.setdefault(name, info)  # a folder may carry the name of what it is a copy of
        self.first = next(iter(self._infos))
        self.downloads = Downloads()  # apart from the encoders': cancelling one leaves the other
        self._scenes = VisitorCache(KEEP_SCENES, KEEP_BYTES, KEEP_BYTES)  # key: (path, model, resolution)

    def info(self, name: str | None = None) -> ModelInfo:
        """What is known of a model on offer without loading it. Raises ModelError on any other name."""
        name = (name or self.first).removeprefix("google/")
        if name not in self._infos:
            raise ModelError(f"The heads '{name[:80]}' are not on offer here: choose among {', '.join(self._infos)}.")
        return self._infos[name]

    def choices(self) -> list[tuple[str, str]]:
        """(label, name) of every model on offer; the label says how large it is and where, with ↓ what it downloads."""
        return [(f"{_size(info)} · {self._cost(info)}", name) for name, info in self._infos.items()]

    def where(self, name: str | None = None) -> str:
        """ "loaded", "folder" (a local one), "cached" (downloaded before) or "hub" (to download)."""
        info = self.info(name)
        if self.shelf.loaded(info.name, HEADS):
            return "loaded"
        if info.source != "hub":
            return "folder"
        return "cached" if is_cached(info) else "hub"

    def fetch(self, name: str | None, visitor: str) -> Iterator[tuple[int, int]]:
        """Bring a model onto this machine, if it is not, while yielding (bytes done, bytes in all). Raises ModelError
        if that fails, the visitor cancels it, or the model would not fit into memory.
        """
        info = self.info(name)
        if self.where(name) == "hub":
            self.shelf.would_evict(info, others=list(self._infos.values()), kind=HEADS)  # refuses; nobody goes yet
            yield from self.downloads.follow(info, visitor)

    def heads(self, name: str | None = None) -> Dpt:
        """The model of this name, loaded if it is not. Never downloads. Raises ModelError."""
        return self.shelf.get(self.info(name), others=list(self._infos.values()), kind=HEADS)

    def predict(self, visitor: str, name: str | None, path: str | Path, resolution: int) -> Scene:
        """What this model says of an image file, from this visitor's memory if it is there. resolution: short side in
        pixels, 0 for as trained. Raises ImageError.
        """
        belongings.claim(visitor, path)
        key = (str(path), self.info(name).name, int(resolution))  # Gradio's paths hold the content's hash
        scene = self._scenes.get(visitor, key)
        if scene is None:
            image, _ = open_shown(path)
            heads = self.heads(name)
            used = key[2] or heads.info.resolution
            scene = Scene(image, heads.predict(image, used), key[1], used)
            self._scenes.keep(visitor, key, scene)
        return scene

    def forget(self, visitor: str) -> None:
        """Drop a visitor's predictions and end the visitor's download."""
        self.downloads.cancel(visitor)
        self._scenes.forget(visitor)

    def _cost(self, info: ModelInfo) -> str:
        words = {"loaded": "loaded", "folder": "local folder", "cached": "on this machine"}
        return words.get(self.where(info.name)) or f"↓ {amount(info.download_mb * 1e6)}"


def _size(info: ModelInfo) -> str:
    title = info.title.removeprefix("TIPSv2 ").removesuffix(" with DPT heads")
    return f"{title} · {info.parameters.replace(' ', '')}" if info.parameters != "unknown" else title
