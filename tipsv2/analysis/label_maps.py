"""True label maps: read from a picture file, brought to an image's size, compared with what was found. Numpy only.

A label map is an integer array [H, W]: a class's place in its list, BACKGROUND where there is none of the classes,
IGNORED where nobody knows and nothing is counted.
Sizes: N classes, H x W pixels.

    numbers, colors = open_labels("mask.png")
    truth = resize_labels(from_numbers(numbers, 150), labels.shape)
    agreement(labels, truth, 150).mean
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from tipsv2.analysis.metrics import accuracy, class_iou, confusion_matrix
from tipsv2.images import ImageError, open_image, open_stored

BACKGROUND = -1
IGNORED = -2
VOID = 255  # in files: what the benchmarks' label files write where nobody knows
EXACT = ("PNG", "GIF", "BMP", "TIFF")  # formats that keep every value


def open_labels(source: str | Path | bytes) -> tuple[np.ndarray | None, np.ndarray]:
    """A picture that holds labels -> (numbers int64 [H, W], colours uint8 [H, W, 3]).

    numbers: grey values (of 8 or 16 bits) or places in the palette; None where the picture has colours without a
    palette. Black and white is 0 and 255. Raises ImageError, on a JPEG too: it changes the values.
    """
    image = _exact(source)
    return _numbers(image), np.asarray(open_image(image))


def open_numbers(source: str | Path | bytes) -> np.ndarray | None:
    """The numbers of `open_labels` alone."""
    return _numbers(_exact(source))


def open_colors(source: str | Path | bytes) -> np.ndarray:
    """The colours of `open_labels` alone."""
    return np.asarray(open_image(_exact(source)))


def _exact(source: str | Path | bytes) -> Image.Image:
    """A label picture as it is stored, in a format that keeps its values."""
    image = open_stored(source)
    if image.format not in EXACT:
        raise ImageError(f"{image.format} pictures change labels a little: save the mask as PNG.")
    return image


def _numbers(image: Image.Image) -> np.ndarray | None:
    if image.mode == "1":
        return np.asarray(image).astype(np.int64) * 255
    if image.mode in ("L", "P", "I", "I;16", "I;16B", "I;16L"):
        return np.asarray(image).astype(np.int64)
    if image.mode in ("LA", "PA"):
        return np.asarray(image)[..., 0].astype(np.int64)
    colors = np.asarray(open_image(image))
    return colors[..., 0].astype(np.int64) if (colors == colors[..., :1]).all() else None


def from_numbers(numbers: np.ndarray, num_classes: int, first: int = 1) -> np.ndarray:
    """Numbers of a label file [H, W] -> label map.

    first: the number of the first class. With 1, 0 is BACKGROUND, as in ADE20K, PASCAL VOC and PASCAL Context; with 0
    there is none, as in Cityscapes' train ids and COCO-Stuff 164k. VOID (255) is IGNORED, unless it is a class.
    Raises ValueError on numbers that are no class.
    """
    labels = np.asarray(numbers, dtype=np.int64) - first
    known = (labels >= -first) & (labels < num_classes)
    void = (np.asarray(numbers) == VOID) & ~known
    if not (known | void).all():
        worst = int(np.asarray(numbers)[~(known | void)].max())
        raise ValueError(
            f"The mask holds the number {worst}, but the list has {num_classes} classes, numbered from {first}: "
            "take the list the mask was made for."
        )
    return np.where(void, IGNORED, labels)


def from_colors(colors: np.ndarray, legend: np.ndarray, share: float = 0.98) -> np.ndarray | None:
    """A picture [H, W, 3] painted in the colours of a legend [N, 3] -> label map; white is BACKGROUND, a pixel of any
    other colour (a soft edge) IGNORED. None where fewer than `share` of the pixels have a colour of the legend.
    """

    codes = color_codes(colors)
    labels = places_of(codes, color_codes(legend), IGNORED)
    labels[codes == color_codes((255, 255, 255))] = BACKGROUND
    return labels if (labels != IGNORED).mean() >= share and (labels >= 0).any() else None


def color_codes(colors: ArrayLike) -> np.ndarray:
    """Colours [..., 3] in 0..255 -> int64 [...]: one number a colour."""
    red, green, blue = np.moveaxis(np.asarray(colors), -1, 0)
    return (red.astype(np.int64) << 16) | (green.astype(np.int64) << 8) | blue


def places_of(codes: np.ndarray, keys: np.ndarray, other: int) -> np.ndarray:
    """Where each of the codes (integers of any shape) stands in `keys` [N], which are all different: int64, `other`
    where it does not.
    """
    codes, keys = np.asarray(codes), np.asarray(keys)
    order = np.argsort(keys, kind="stable")
    place = order[np.minimum(np.searchsorted(keys, codes, sorter=order), len(keys) - 1)]
    return np.where(keys[place] == codes, place, other)


def resize_labels(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A label map at another size (H, W): every pixel takes the label of the nearest one."""
    if labels.shape == tuple(size):
        return labels
    image = Image.fromarray(labels.astype(np.int32)).resize((size[1], size[0]), Image.Resampling.NEAREST)
    return np.asarray(image).astype(np.int64)


@dataclass(frozen=True)
class Agreement:
    """What `agreement` found; nan where something was not scored."""

    iou: np.ndarray  # [N] float64
    background: float  # IoU of the background
    mean: float  # of the IoUs that were scored
    accuracy: float  # part of the compared pixels that have the right label
    compared: float  # part of all pixels
    wrong: np.ndarray  # [H, W] bool: compared, and not right


def agreement(labels: np.ndarray, truth: np.ndarray, num_classes: int, whole: bool = True) -> Agreement:
    """A label map that was found against the true one, both [H, W]: intersection over union by
    `tipsv2.analysis.metrics`.

    whole: the truth tells of every class. The mean is over the classes in either map, and BACKGROUND is one of them if
    `labels` has some; if it has none, the pixels that are BACKGROUND in truth are not compared. Not whole: the truth
    marks some classes, and only these are scored; every other label, found or true, is one "other" for them.
    """
    labels, truth = np.asarray(labels), np.asarray(truth)
    other = num_classes
    if whole:
        compared = np.where(labels < 0, other, labels)
        kept = BACKGROUND if (labels < 0).any() else None
    else:
        compared = np.where(np.isin(labels, np.unique(truth[truth >= 0])), labels, other)
        kept = BACKGROUND
    target = np.where(truth == IGNORED, -1, np.where(truth < 0, other if kept is not None else -1, truth))
    confusion = confusion_matrix(target, compared, num_classes + 1)
    iou = class_iou(confusion)
    scored = iou.copy()
    if not whole or not confusion[other].any():
        scored[other] = np.nan  # no true background: the classes it was taken from have lost already
    return Agreement(
        iou[:num_classes],
        float(scored[other]),
        float(np.nanmean(scored)) if np.isfinite(scored).any() else float("nan"),
        accuracy(confusion),
        float((target >= 0).mean()),
        (target >= 0) & (target != compared),
    )
