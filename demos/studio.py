"""What the tabs share behind the page: loaded encoders (everyone's) and encoded images (one visitor's own), bounded.

An encoder is loaded when somebody first needs it. An image is encoded once per model and resolution; every further
query only encodes text and compares. No gradio in here.

    studio = Studio("auto")
    encoder = studio.encoder()
    seen = studio.encode("visitor", encoder, "dog.jpg", 448)
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from demos.offer import LOCAL, Offer
from tipsv2.catalogue import ModelInfo, is_cached
from tipsv2.images import MAX_ASPECT, ImageError, fit_size, open_image

if TYPE_CHECKING:
    from PIL import Image

    from tipsv2.encoder import Encoder, ImageFeatures

KEEP_ENCODERS = 2  # a fresh choice and the one before it: going back and forth is instant
KEEP_IMAGES = 4  # per visitor
KEEP_BYTES = 2_000_000_000  # of features, all visitors together: g/14 makes 200 MB of a large image
MAX_PATCHES = 16_384  # as many as the official Space allows (1792 x 1792); more needs minutes on a CPU


@dataclass(frozen=True)
class Seen:
    """An image and what an encoder made of it."""

    image: Image.Image  # RGB
    features: ImageFeatures
    resolution: int  # short side the network saw, in pixels; less than asked for where the image is very long

    @property
    def num_bytes(self) -> int:
        """Memory the two patch grids take."""
        return sum(grid.numel() * grid.element_size() for grid in (self.features.patches, self.features.values))


class Studio:
    """Loaded encoders and encoded images.

    first: the encoders to open with, the first one is shown first; device: as in `tipsv2.load`; runs: a folder of
    training runs, whose finished ones are on offer.
    """

    def __init__(self, first: str | Sequence[str] = "auto", device: str = "auto", runs: Path | None = None):
        self.offer = Offer([first] if isinstance(first, str) else first, runs)
        self.device = device
        self.first, *_ = self.opening = self.offer.opening
        self._encoders: OrderedDict[str, tuple[tuple, Encoder]] = OrderedDict()  # with the stamp of their files
        self._seen: OrderedDict[tuple, Seen] = OrderedDict()  # (visitor, content, model, resolution), oldest use first
        self._loading = threading.Lock()
        self._visiting = threading.Lock()

    def choices(self) -> list[tuple[str, str]]:
        """(label, name) of every encoder on offer; the label says what choosing it costs."""
        return [(info.title + self._cost(info), info.name) for info in self.offer.infos()]

    def add(self, folder: str | Path, name: str | None = None) -> str:
        """Offer an encoder's folder to everybody, see `Offer.add`. Returns its name. Raises ModelError."""
        return self.offer.add(folder, name)

    def remove(self, name: str) -> None:
        """No longer offer a folder, and let go of what is in memory of it. Nothing on the disk is touched."""
        self.offer.remove(name)
        self._drop(name)

    def info(self, name: str | None = None) -> ModelInfo:
        """What is known of an encoder on offer without loading it. Raises ModelError on any other name."""
        info = self.offer.info(name or self.first)
        loaded = self._encoders.get(info.name)
        return loaded[1].info if loaded else info

    def encoder(self, name: str | None = None) -> Encoder:
        """The encoder of this name, loaded if it is not yet (the page's first one by default). Raises ModelError."""
        info = self.offer.info(name or self.first)
        stamp = _stamp(info)
        with self._loading:
            if stamp and info.name in self._encoders and self._encoders[info.name][0] != stamp:
                self._drop(info.name)  # a run that went on has written other weights into the same place
            if info.name not in self._encoders:
                from tipsv2.encoder import load

                loaded = load(info.location, device=self.device)
                loaded.info = replace(info, width=loaded.info.width, resolution=loaded.info.resolution)
                while len(self._encoders) >= KEEP_ENCODERS:
                    self._encoders.popitem(last=False)
                self._encoders[info.name] = stamp, loaded
            self._encoders.move_to_end(info.name)
            return self._encoders[info.name][1]

    def encode(self, visitor: str, encoder: Encoder, path: str | Path, resolution: int | None = None) -> Seen:
        """The features of an image file at a short side of `resolution` pixels, from this visitor's memory if they are
        there. Raises ImageError.
        """
        wanted = int(resolution or encoder.info.resolution)
        key = (visitor, _fingerprint(path), encoder.info.name, wanted)
        with self._visiting:
            seen = self._seen.get(key)
        if seen is None:
            image = open_image(path)
            affordable = self.affordable(image.size, wanted, encoder.patch_size)
            seen = Seen(image, encoder.encode_image(image, affordable), affordable)
        with self._visiting:
            self._seen[key] = seen
            self._seen.move_to_end(key)
            own = [each for each in self._seen if each[0] == visitor]
            for old in own[:-KEEP_IMAGES]:
                del self._seen[old]
            while len(self._seen) > 1 and sum(each.num_bytes for each in self._seen.values()) > KEEP_BYTES:
                self._seen.popitem(last=False)
        return seen

    def forget(self, visitor: str) -> None:
        """Drop a visitor's images."""
        with self._visiting:
            for key in [each for each in self._seen if each[0] == visitor]:
                del self._seen[key]

    def _drop(self, name: str) -> None:
        """Let go of an encoder and of everything it has seen."""
        self._encoders.pop(name, None)
        with self._visiting:
            for key in [each for each in self._seen if each[2] == name]:
                del self._seen[key]

    @staticmethod
    def affordable(size: tuple[int, int], resolution: int, patch_size: int) -> int:
        """`resolution`, or the largest one below it that gives an image of size (width, height) MAX_PATCHES at most."""
        width, height = size
        aspect = min(max(width, height) / min(width, height), MAX_ASPECT)
        rows, columns = (side // patch_size for side in fit_size(width, height, resolution, patch_size))
        if rows * columns <= MAX_PATCHES:
            return resolution
        return int((MAX_PATCHES / aspect) ** 0.5) * patch_size

    def _cost(self, info: ModelInfo) -> str:
        if info.source == "bundled":
            return ""
        if info.source != "hub":
            return " · run" if info.source == "run" else " · local folder"
        if info.name in self._encoders or is_cached(info):
            return " · on this machine"
        return f" · downloads {_megabytes(info.download_mb)}" if info.download_mb else " · downloads"


def _fingerprint(path: str | Path) -> bytes:
    try:
        return hashlib.sha256(Path(path).read_bytes()).digest()
    except OSError:
        raise ImageError("The image is no longer there: upload it again.") from None


def _stamp(info: ModelInfo) -> tuple:
    """Tells two states of a local folder's weights apart; () where they cannot change or are gone."""
    if info.source not in LOCAL:
        return ()
    return tuple((path.name, path.stat().st_mtime_ns) for path in sorted(Path(info.location).glob("*.safetensors")))


def _megabytes(number: int) -> str:
    return f"{number / 1000:.1f} GB" if number >= 1000 else f"{number} MB"
