"""DPT heads and what they predicted: one loaded model (everyone's), the last predictions (each visitor's own), bounded.

The heads bring an encoder of their own, in float32 up to 5 GB, so one model is in memory at a time: another one takes
its place. Only `fetch` downloads, and only when a visitor has asked for it. No gradio in here.

    memory = DepthMemory("auto")
    for done, total in memory.fetch("tipsv2-b14-dpt", "visitor"): ...
    scene = memory.predict("visitor", "tipsv2-b14-dpt", "room.jpg", 448)
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from demos.backend import belongings, space, turns
from demos.backend.downloads import Downloads
from demos.backend.shelf import SHARE, amount, free_bytes
from demos.backend.studio import image_bytes, open_shown
from tipsv2.checkpoints.catalogue import (
    DPT,
    DPT_TYPE,
    ModelError,
    ModelInfo,
    cached_folder,
    find,
    is_cached,
    num_parameters,
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
    found: DptResult
    model: str
    resolution: int  # short side in pixels that was asked for

    @property
    def num_bytes(self) -> int:
        """Memory that image and predictions take."""
        parts = (self.found.depth, self.found.normals, self.found.labels)
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
    """The models with heads on offer. device: as in `tipsv2.load`; own: offered first, beside the released ones."""

    def __init__(self, device: str = "auto", own: Sequence[ModelInfo] = ()):
        self.device = device
        self._infos: dict[str, ModelInfo] = {info.name: info for info in own}
        for name, info in DPT.items():
            self._infos.setdefault(name, info)  # a folder may carry the name of what it is a copy of
        self.first = next(iter(self._infos))
        self.downloads = Downloads()  # apart from the encoders': cancelling one leaves the other
        self._dpt: Dpt | None = None
        self._scenes: OrderedDict[tuple, Scene] = OrderedDict()  # (visitor, path, model, resolution)
        self._loading = threading.Lock()
        self._visiting = threading.Lock()

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
        info, dpt = self.info(name), self._dpt
        if dpt is not None and dpt.info.name == info.name:
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
            self._check_room(info)
            yield from self.downloads.follow(info, visitor)

    def heads(self, name: str | None = None) -> Dpt:
        """The model of this name, loaded in place of the one before. Never downloads. Raises ModelError."""
        info = self.info(name)
        with self._loading:
            where = self.where(info.name)
            if where == "hub":
                raise ModelError(
                    f"{info.location} is not on this machine: load it in the Depth tab, or call /load_heads."
                )
            if where != "loaded":
                from tipsv2.analysis.depth import load_dpt

                self._check_room(info)
                self._dpt = None  # before the next one is read: two of them may not fit
                dpt = load_dpt(info.location, device=self.device, progress=False)
                again = (load_dpt, info.location, self.device)
                self._dpt = turns.share(space.lend(dpt, info.name, space.DPT, again), space.DPT)
            return self._dpt

    def _check_room(self, info: ModelInfo) -> None:
        """Refuse, before a download and before reading, what will not fit in the place of the one loaded."""
        folder = cached_folder(info) if info.source == "hub" else Path(info.location)
        need = 4 * num_parameters(folder) if folder else info.download_mb * 1e6  # float32, as the downloads are
        held = sum(each.nbytes for each in self._dpt.model.parameters()) if self._dpt else 0
        free = SHARE * (free_bytes(self.device) + held)
        if need > free:
            raise ModelError(
                f"{info.title} needs {amount(need)} of memory, {amount(free)} are free for it: choose smaller heads."
            )

    def predict(self, visitor: str, name: str | None, path: str | Path, resolution: int) -> Scene:
        """What this model says of an image file, from this visitor's memory if it is there. resolution: short side in
        pixels, 0 for as trained. Raises ImageError.
        """
        belongings.claim(visitor, path)
        key = (visitor, str(path), self.info(name).name, int(resolution))  # Gradio's paths hold the content's hash
        with self._visiting:
            scene = self._scenes.get(key)
        if scene is None:
            image, _ = open_shown(path)
            heads = self.heads(name)
            used = key[3] or heads.info.resolution
            scene = Scene(image, heads.predict(image, used), key[2], used)
        with self._visiting:
            self._scenes[key] = scene
            self._scenes.move_to_end(key)
            own = [each for each in self._scenes if each[0] == visitor]
            for old in own[:-KEEP_SCENES]:
                del self._scenes[old]
            while len(self._scenes) > 1 and sum(each.num_bytes for each in self._scenes.values()) > KEEP_BYTES:
                self._scenes.popitem(last=False)
        return scene

    def forget(self, visitor: str) -> None:
        """Drop a visitor's predictions and end the visitor's download."""
        self.downloads.cancel(visitor)
        with self._visiting:
            for key in [each for each in self._scenes if each[0] == visitor]:
                del self._scenes[key]

    def _cost(self, info: ModelInfo) -> str:
        words = {"loaded": "loaded", "folder": "local folder", "cached": "on this machine"}
        return words.get(self.where(info.name)) or f"↓ {amount(info.download_mb * 1e6)}"


def _size(info: ModelInfo) -> str:
    title = info.title.removeprefix("TIPSv2 ").removesuffix(" with DPT heads")
    return f"{title} · {info.parameters.replace(' ', '')}" if info.parameters != "unknown" else title
