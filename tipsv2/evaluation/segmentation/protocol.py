"""How a picture gets a label map by zero-shot segmentation, step by step as TIPSv2's notebook does it.

    views = look(encoder, [image], Protocol("slide", ("values",), 448, 448, 336))
    guess(views[0], "values", text, words, truth.shape)     # [H, W] classes

The source is google-deepmind/tips, pytorch/TIPS_zeroshot_segmentation.ipynb, modes "whole" and "slide" (the latter
after TCL, arXiv 2212.00785). Both make the short side `resolution`, then both sides whole patches, bicubic each time.
whole: the cosines of the one grid, bilinear to the size of the truth, arg-max.
slide: windows `stride` apart, the last of a row and column shifted back inside; cosines, bilinear to the window,
softmax over the classes without a temperature, the mean where windows overlap, bilinear to the size of the truth,
arg-max.
Sizes: C rows of text, N windows, h x w patches, D width, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from tipsv2.analysis.heatmap import similarity
from tipsv2.analysis.segmentation import label_bands, label_map
from tipsv2.images import MAX_RESOLUTION, to_tensor
from tipsv2.network.dense import crop_windows, layer_features, window_corners

if TYPE_CHECKING:
    from tipsv2.network.encoder import Encoder

BATCH_SIZE = 16  # pictures or windows that go through together
OUTPUT_OF = {"values": "values", "final": "patches"}  # of Encoder.encode_pixels


@dataclass(frozen=True)
class Protocol:
    """What is done to every picture."""

    kind: str  # "whole" | "slide"
    features: tuple[str, ...]  # of "values", "final", "layer:1" to the last: what the cosines are taken of
    resolution: int  # short side in pixels
    window: int = 0  # side in pixels, of "slide"
    stride: int = 0


@dataclass(frozen=True)
class View:
    """A picture as the network saw it."""

    grids: dict[str, torch.Tensor]  # features -> [N, h, w, D], N is 1 for "whole"
    size: tuple[int, int]  # (H, W) of the resized picture
    corners: list[tuple[int, int]] | None  # (top, left) of the windows in it, None for "whole"
    window: tuple[int, int]  # (H, W) of the windows before they were brought to whole patches


@dataclass(frozen=True)
class Words:
    """What the patches are compared with, and which class each of these words stands for."""

    rows: tuple[str, ...]
    owners: np.ndarray  # int64 [C]: class of each row
    background: int | None = None
    threshold: float | None = None  # what scores below is background

    @classmethod
    def of(
        cls, classes: Sequence[str], background: int | None = None, rule: float | Sequence[str] | None = None
    ) -> Words:
        """classes: of the data set.   background: the one of them that is the background.   rule: words for it, or the
        score under which a pixel is background, by default the class's own name. Raises ValueError on a rule without a
        background, or without a word.
        """
        if background is None:
            if rule is not None:
                raise ValueError("This data set has no background class: leave the background out.")
            return cls(tuple(classes), np.arange(len(classes)))
        others = [k for k in range(len(classes)) if k != background]
        if isinstance(rule, int | float):
            return cls(tuple(classes[k] for k in others), np.array(others), background, float(rule))
        words = [classes[background]] if rule is None else list(rule)
        if not words:
            raise ValueError("Give at least one word for the background, or a number.")
        rows = (*(classes[k] for k in others), *words)
        return cls(rows, np.array(others + [background] * len(words)), background)

    @property
    def told(self) -> float | list[str]:
        """The rule, as a record shows it."""
        words = [row for row, owner in zip(self.rows, self.owners, strict=True) if owner == self.background]
        return words if self.threshold is None else self.threshold


def layer_of(features: str, num_layers: int) -> int | None:
    """ "layer:5" -> 5, None for "values" and "final". Raises ValueError on other features and layers."""
    if features in OUTPUT_OF:
        return None
    kind, _, number = features.partition(":")
    if kind != "layer" or not number.isdigit() or not 1 <= int(number) <= num_layers:
        raise ValueError(f"features={features!r} is unknown; choose values, final, or layer:1 to layer:{num_layers}.")
    return int(number)


def resized(image: Image.Image, resolution: int) -> torch.Tensor:
    """An RGB picture with its short side made `resolution` pixels, bicubic, the long side rounded down -> [3, H, W]."""
    if not 1 <= resolution <= MAX_RESOLUTION:
        raise ValueError(f"The resolution must lie between 1 and {MAX_RESOLUTION} pixels, not {resolution}.")
    short = min(image.size)
    width, height = (side if short == resolution else int(resolution * side / short) for side in image.size)
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    return to_tensor(image, (height, width))


def look(encoder: Encoder, images: Sequence[Image.Image], protocol: Protocol) -> list[View]:
    """The patches of RGB pictures. Equally large pictures and windows go through the network together."""
    views: list[View] = []
    waiting: dict[tuple[int, int], list[tuple[int, torch.Tensor]]] = {}  # size -> (view, crop), in order
    for number, image in enumerate(images):
        pixels = resized(image, protocol.resolution)
        size = (pixels.shape[1], pixels.shape[2])
        corners = window_corners(size, protocol.window, protocol.stride) if protocol.kind == "slide" else None
        crops = pixels[None] if corners is None else crop_windows(pixels, corners, protocol.window)
        views.append(View({}, size, corners, (crops.shape[2], crops.shape[3])))
        for crop in _whole_patches(crops, encoder.patch_size):
            waiting.setdefault(tuple(crop.shape[1:]), []).append((number, crop))
    patches: list[dict[str, list[torch.Tensor]]] = [{kind: [] for kind in protocol.features} for _ in views]
    for crops in waiting.values():
        for start in range(0, len(crops), BATCH_SIZE):
            batch = crops[start : start + BATCH_SIZE]
            seen = _features(encoder, torch.stack([crop for _, crop in batch]), protocol.features)
            for kind, grids in seen.items():
                for (number, _), grid in zip(batch, grids, strict=True):
                    patches[number][kind].append(grid)
    for view, kinds in zip(views, patches, strict=True):
        view.grids.update({kind: torch.stack(grids) for kind, grids in kinds.items()})
    return views


def labels_of(
    view: View, features: str, text: torch.Tensor, size: tuple[int, int], threshold: float | None = None
) -> torch.Tensor:
    """int64 [H, W] on the CPU for size (H, W): the row of `text` [C, D] that each pixel resembles most.

    threshold: -1 where the best row has less, a cosine for "whole" and a mean share of the softmax for "slide".
    """
    cosines = cosines_of(view, features, text)
    if view.corners is None:
        return label_map(cosines[0], size, threshold)[0].cpu()
    return label_bands(partial(mean_shares, cosines, view), view.size, size, threshold)[0].cpu()


def cosines_of(view: View, features: str, text: torch.Tensor) -> list[torch.Tensor]:
    """[C, h, w] of each grid with the rows of `text` [C, D]."""
    return [similarity(grid, text.to(grid.device)) for grid in view.grids[features]]


def mean_shares(cosines: Sequence[torch.Tensor], view: View, first: int, last: int) -> torch.Tensor:
    """Rows `first` to `last` of the resized picture: the softmax over C of the windows' cosines, made pixels, and its
    mean where they overlap [C, last - first, W]. A few rows at a time stay in a CPU's cache from cosine to mean.
    """
    (height, width), (rows, columns) = view.window, cosines[0].shape[1:]
    total = cosines[0].new_zeros(len(cosines[0]), last - first, view.size[1])
    count = total.new_zeros(last - first, view.size[1])
    down, right = _bilinear(rows, height).to(total.device), _bilinear(columns, width).to(total.device)
    for maps, (top, left) in zip(cosines, view.corners or (), strict=True):
        start, stop = max(first, top), min(last, top + height)
        if start < stop:
            part = (down[start - top : stop - top] @ maps @ right.T).exp_()  # no cosine is too large for exp
            place = (slice(start - first, stop - first), slice(left, left + width))
            total[(slice(None), *place)].addcdiv_(part, part.sum(dim=0))
            count[place] += 1
    return total.div_(count)


@cache
def _bilinear(samples: int, pixels: int) -> torch.Tensor:
    """[pixels, samples]: what every pixel of a line takes of every sample, as F.interpolate does it."""
    return F.interpolate(torch.eye(samples)[None], size=pixels, mode="linear", align_corners=False)[0].T.contiguous()


def guess(
    view: View, features: str, text: torch.Tensor, words: Words, size: tuple[int, int], among: np.ndarray | None = None
) -> np.ndarray:
    """The class that each pixel resembles most, int64 [H, W] for size (H, W).

    text: of `words.rows`.   among: only these classes may be guessed.
    """
    rows = np.arange(len(words.rows)) if among is None else np.flatnonzero(np.isin(words.owners, among))
    labels = labels_of(view, features, text[torch.from_numpy(rows)], size, words.threshold).numpy()
    classes: np.ndarray = words.owners[rows][labels]
    return classes if words.background is None else np.where(labels < 0, words.background, classes)


def _whole_patches(crops: torch.Tensor, patch: int) -> torch.Tensor:
    """[N, 3, H, W] -> sides resized up to multiples of the patch size."""
    size = [-(-side // patch) * patch for side in crops.shape[2:]]
    if size == list(crops.shape[2:]):
        return crops
    return F.interpolate(crops, size=size, mode="bicubic", align_corners=False)


@torch.no_grad()
def _features(encoder: Encoder, pixels: torch.Tensor, kinds: Sequence[str]) -> dict[str, torch.Tensor]:
    """pixels [B, 3, H, W] -> kind -> float32 [B, h, w, D]."""
    outputs = {kind: OUTPUT_OF[kind] for kind in kinds if kind in OUTPUT_OF}
    seen = encoder.encode_pixels(pixels, only=tuple(outputs.values())) if outputs else {}
    features = {kind: seen[output] for kind, output in outputs.items()}
    layers = {int(kind.removeprefix("layer:")): kind for kind in kinds if kind not in outputs}
    if layers:
        pixels = pixels.to(encoder.device)  # in float32: an encoder of another type rounds them later
        for number, (_, _, patches, _) in layer_features(encoder.model.vision_model, pixels, layers):
            features[layers[number]] = patches.float()
    return features
