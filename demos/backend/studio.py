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
from collections.abc import Hashable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cachetools import LRUCache

from demos.backend import belongings, heap
from demos.backend.cache import VisitorCache
from demos.backend.downloads import Downloads
from demos.backend.offer import Offer
from demos.backend.shelf import Shelf, amount
from tipsv2.checkpoints import bundled
from tipsv2.checkpoints.catalogue import ModelError, ModelInfo, is_cached
from tipsv2.images import MAX_ASPECT, MAX_PATCHES, ImageError, fit_size, open_image

if TYPE_CHECKING:
    from PIL import Image

    from tipsv2.network.encoder import Encoder
    from tipsv2.network.view import ImageFeatures

KEEP_ANSWERS = 8  # per image: maps and label maps
KEEP_IMAGES = 12  # per visitor, an image counting once for every encoder and resolution: a slider over a run's steps
KEEP_BYTES = 2_000_000_000  # of images and features, all visitors together: g/14 makes 200 MB of a large image
KEEP_OF_ONE = KEEP_BYTES // 4  # of one visitor; the 12 layers of b14 at 448 px are 38 MB in float16
MOST = 2048 * 2048  # pixels kept of an image: more than MAX_PATCHES hold, and what a full-size map costs has an end
LONGEST = 16_384  # of them in a row: what browsers draw
WARM_UP = (640, 360)  # (width, height) of a picture to begin with: among the usual shapes, the one of most patches


@dataclass(frozen=True, eq=False)
class Seen:
    """An image and what an encoder made of it. What the tabs compute of it goes with it."""

    image: Image.Image  # RGB, of MOST pixels at most
    features: ImageFeatures
    resolution: int  # short side the network saw, in pixels; less than asked for where the image is very long
    given: tuple[int, int]  # (width, height) of the file
    place: tuple[str, tuple] = ("", ())  # in the studio's cache: whose, and under which key
    layers: dict[int, ImageFeatures] = field(default_factory=dict)  # those below the last, in float16, no CLS
    answers: LRUCache = field(default_factory=lambda: LRUCache(KEEP_ANSWERS))  # question -> array, or tuple with some
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def num_bytes(self) -> int:
        """Memory that the image, its features and the answers take."""
        with self._lock:
            answers = [*self.answers.values()]
        held = [vars(features).values() for features in (self.features, *list(self.layers.values()))]
        held += [answer if isinstance(answer, tuple) else (answer,) for answer in answers]
        return image_bytes(self.image) + sum(getattr(array, "nbytes", 0) for some in held for array in some)

    def recall(self, question: Hashable):
        """The answer that `Studio.remember` keeps under a question, if it is still there."""
        with self._lock:
            return self.answers.get(question)


class Studio:
    """Loaded encoders and encoded images.

    first: the encoders to open with, the first one is shown first; device: as in `tipsv2.load`; runs: a folder of
    training runs, whose finished ones are on offer; memory: bytes for loaded models, see `Shelf`.
    """

    def __init__(
        self,
        first: str | Sequence[str] = "auto",
        device: str = "auto",
        runs: Path | None = None,
        memory: int | None = None,
    ):
        names = [first] if isinstance(first, str) else first
        self.offer = Offer(names, runs)
        self.device = device
        self.first, *_ = self.opening = self.offer.opening
        self.unasked = (
            self.first if names[0] == "auto" and self.first != bundled.default() else None
        )  # found, named by nobody
        self.fallen_back = ""  # why the bundled encoder answers instead of it
        self.shelf = Shelf(device, memory)
        self.downloads = Downloads()
        self._seen = VisitorCache(KEEP_IMAGES, KEEP_OF_ONE, KEEP_BYTES)  # key: (content, model, resolution, windows)

    def choices(self, visitor: str | None = None) -> list[tuple[str, str]]:
        """(label, name) of every encoder on offer, to this visitor too; the label says how large it is and what
        choosing it costs.
        """
        return [(label(info), info.name) for info in self.offer.infos(visitor)]

    def add(self, folder: str | Path, name: str | None = None) -> str:
        """Offer an encoder's folder to everybody, see `Offer.add`. Returns its name. Raises ModelError."""
        return self.offer.add(folder, name)

    def add_private(self, folder: str | Path, visitor: str) -> str:
        """Offer an encoder's folder to one visitor, see `Offer.add_private`. Returns its name. Raises ModelError."""
        return self.offer.add_private(folder, visitor)

    def remove(self, name: str) -> None:
        """No longer offer a folder, and let go of what is in memory of it. Nothing on the disk is touched."""
        self.offer.remove(name)
        self.shelf.drop(name)
        self.forget_features(name)

    def info(self, name: str | None = None) -> ModelInfo:
        """What is known of an encoder on offer without loading it. Raises ModelError on any other name."""
        info = self.offer.info(name or self.first)
        loaded = self.shelf.loaded(info.name)
        return loaded.info if loaded else info

    def encoder(self, name: str | None = None) -> Encoder:
        """The encoder of this name, loaded if it is not yet (the page's first one by default); never downloads, see
        `fetch`. Raises ModelError; where nobody named the first one, the bundled encoder takes the place of one that
        cannot be opened.
        """
        try:
            return self._get(self.offer.info(name or self.first))
        except ModelError as error:
            if name or not self.unasked:
                raise
            self.fallen_back = f"{error} The bundled encoder answers instead."
            self.first, self.opening = bundled.default(), (bundled.default(), *self.opening[1:])
            return self._get(self.offer.info(bundled.default()))

    def encoders(self, *names: str | None) -> tuple[Encoder, ...]:
        """Several that are needed at the same time. Raises ModelError, also where they do not fit together."""
        infos = [self.offer.info(name or self.first) for name in names]
        return tuple(self._get(info, keep=[other.name for other in infos if other.name != info.name]) for info in infos)

    def _get(self, info: ModelInfo, keep: Sequence[str] = ()) -> Encoder:
        if not self.shelf.current(info):
            self.forget_features(info.name)  # what other weights of this name have seen
        return self.shelf.get(info, keep, self.offer.infos())

    def fetch(self, name: str | None, visitor: str) -> Iterator[tuple[int, int]]:
        """Bring an encoder onto this machine, if it is not, while yielding (bytes done, bytes in all). Raises
        ModelError: it would not fit into memory, the download failed, or the visitor has cancelled it.
        """
        info = self.offer.info(name or self.first)
        if info.source == "hub" and not is_cached(info):
            self.shelf.would_evict(info, others=self.offer.infos())  # refuses; nobody goes before it is there
            yield from self.downloads.follow(info, visitor)

    def encode(
        self, visitor: str, encoder: Encoder, path: str | Path, resolution: int | None = None, windows: bool = False
    ) -> Seen:
        """The features of an image file at a short side of `resolution` pixels, from this visitor's memory if they are
        there. windows: looked at through windows, see `tipsv2.network.view`. Raises ImageError.
        """
        from tipsv2.network.view import View, windowed

        wanted = int(resolution or encoder.info.resolution)
        belongings.claim(visitor, path)
        key = (_fingerprint(path), encoder.info.name, wanted, windows)
        seen = self._seen.get(visitor, key)
        if seen is None:
            image, given = open_shown(path)
            affordable = self.affordable(image.size, wanted, encoder.patch_size)
            features = encoder.look(image, windowed(encoder, affordable) if windows else View(affordable))
            seen = Seen(image, features, affordable, given, (visitor, key))
            self._seen.keep(visitor, key, seen)
        return seen

    def warm_up(self, download: bool = False) -> None:
        """Load what the app opens with and let each encode one photograph's shape: the first visitor need not wait for
        either, and memory is from the start what it stays at. download: also what is not on this machine yet, as a
        Space does; what cannot be had is said on the page later.
        """
        from PIL import Image

        for name in self.opening:
            with suppress(ModelError):
                if download:
                    for _ in self.fetch(name, "start"):
                        pass
                encoder = self.encoder(name)
                if encoder.device.type == "cpu":
                    encoder.encode_image(Image.new("RGB", WARM_UP))

    def forget(self, visitor: str) -> None:
        """Drop a visitor's images and no longer download for them."""
        self.downloads.cancel(visitor)
        self.offer.forget(visitor)
        self._seen.forget(visitor)
        heap.give_back()

    def forget_features(self, name: str) -> None:
        """Drop what the encoder of this name has seen, whoever asked it."""
        self._seen.drop(lambda key: key[1] == name)

    def layer(self, seen: Seen, encoder: Encoder, layer: int) -> ImageFeatures:
        """What an encoder that ended after this layer (1 to its last) would make of an image it has seen; no CLS of any
        but the last.

        The first question about another layer than the last costs one pass through the encoder for all of them, or for
        that one where all would not fit into KEEP_OF_ONE. Raises ValueError on a layer that does not exist.
        """
        from tipsv2.network.view import ImageFeatures

        if layer == encoder.num_layers:
            return seen.features
        features = seen.layers.get(layer)
        if features is None:
            others = encoder.num_layers - 1  # in float16 two grids of each take what one takes in float32
            fits = seen.num_bytes + others * seen.features.patches.nbytes <= self._seen.of_one
            asked = range(1, encoder.num_layers) if fits and 1 <= layer <= others else [layer]
            by_layer = encoder.encode_layers(seen.image, asked, seen.resolution)
            halves = {
                number: ImageFeatures(None, None, grids.patches.half(), grids.values.half(), grids.size)
                for number, grids in by_layer.items()
            }
            if not fits:
                seen.layers.clear()
            seen.layers.update(halves)
            features = halves[layer]
            self._has_grown(seen)
        return replace(features, patches=features.patches.float(), values=features.values.float())

    def remember(self, seen: Seen, question: Hashable, answer) -> None:
        """Keep an answer as long as the image: an array, or a tuple with some. `Seen.recall` gives it back."""
        with seen._lock:
            seen.answers[question] = answer
        self._has_grown(seen)

    def _has_grown(self, seen: Seen) -> None:
        if self._seen.get(*seen.place) is seen:  # not forgotten meanwhile
            who, place = seen.place
            self._seen.keep(who, place, seen)

    @staticmethod
    def affordable(size: tuple[int, int], resolution: int, patch_size: int) -> int:
        """`resolution`, or the largest one below it that gives an image of size (width, height) MAX_PATCHES at most."""
        width, height = size
        aspect = min(max(width, height) / min(width, height), MAX_ASPECT)
        rows, columns = (side // patch_size for side in fit_size(width, height, resolution, patch_size))
        if rows * columns <= MAX_PATCHES:
            return resolution
        return int((MAX_PATCHES / aspect) ** 0.5) * patch_size


def shown_size(width: int, height: int) -> tuple[int, int]:
    """The size at which an image is looked at: (width, height), or what is left of it with MOST pixels."""
    scale = min(1.0, LONGEST / max(width, height), (MOST / (width * height)) ** 0.5)
    if scale == 1:
        return width, height
    return max(1, int(width * scale + 1e-6)), max(1, int(height * scale + 1e-6))  # 16383.99... is 16384


def open_shown(path: str | Path) -> tuple[Image.Image, tuple[int, int]]:
    """An image file -> (the image at `shown_size`, the (width, height) it has). Raises ImageError."""
    from PIL import Image

    image = open_image(path)
    small = shown_size(*image.size)
    return (image if small == image.size else image.resize(small, Image.Resampling.LANCZOS)), image.size


def image_bytes(image: Image.Image) -> int:
    """Memory an RGB image takes: Pillow keeps four bytes a pixel."""
    return 4 * image.width * image.height


def _fingerprint(path: str | Path) -> bytes:
    try:
        return hashlib.sha256(Path(path).read_bytes()).digest()
    except OSError:
        raise ImageError("The image is no longer there: upload it again.") from None


def where(info: ModelInfo) -> str:
    """Where an encoder is: what choosing it costs."""
    if info.source != "hub":
        return {"bundled": "bundled", "run": "run"}.get(info.source, "local folder")
    if is_cached(info):
        return "on this machine"
    return f"downloads {amount(info.download_mb * 10**6)}" if info.download_mb else "downloads"


def label(info: ModelInfo) -> str:
    """An encoder in a menu: title, parameters, training resolution, where it is."""
    facts = [
        info.title,
        info.parameters.replace(" ", "") if info.parameters != "unknown" else "",
        f"{info.resolution} px" if info.resolution else "",
        where(info) if info.source != "bundled" else "",  # its title says so
    ]
    return " · ".join(fact for fact in facts if fact)
