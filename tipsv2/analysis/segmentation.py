"""Zero-shot segmentation: class names -> label map, with or without a background.

The protocol is TIPSv2's (google-deepmind/tips, pytorch/TIPS_zeroshot_segmentation.ipynb, whole-image mode): value
features, cosine with the templates' mean text embedding, bilinear to pixels, arg-max.
Sizes: N classes, h x w patches, H x W pixels.

    from tipsv2 import load, segment
    segment(load(), "dog.jpg", ["dog", "grass", "sky"]).shares
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tipsv2.analysis.heatmap import pick_features, similarity
from tipsv2.analysis.label_maps import BACKGROUND

BACKGROUND_NAME = "background"  # in shares
BLOCK = 64  # pixels a side that are decided together: their maps stay in a CPU's cache


@dataclass(frozen=True)
class Segmentation:
    """What `segment` found."""

    labels: np.ndarray  # [H, W] int64: an index into `classes`, or BACKGROUND (-1)
    classes: tuple[str, ...]
    shares: dict[
        str, float
    ]  # name -> part of the pixels, in [0, 1], adding up to one; "background" where one was asked for
    scores: np.ndarray  # [H, W] float32: cosine of the winner, a background word included
    means: dict[str, float]  # name -> mean cosine over the pixels that are this class, nan if none is
    peaks: dict[str, float]  # name -> the highest cosine of any patch, whether or not the class was found


def label_map(
    similarities: torch.Tensor, size: tuple[int, int], background: float | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """similarities [N, h, w] -> labels [H, W] int64 and the winners' similarities [H, W] float32, for size (H, W).

    Interpolated bilinearly before the arg-max; of equals the first wins.
    background: where the winner's similarity is below it, the label is BACKGROUND (-1).
    """
    return label_bands(lambda first, last: similarities[:, first:last], similarities.shape[1:], size, background)


def label_bands(
    band: Callable[[int, int], torch.Tensor],
    shape: tuple[int, int],
    size: tuple[int, int],
    background: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`label_map` of maps that need not exist all at once: band(first, last) gives their rows [N, last - first, w],
    of shape (h, w), from the top down, each asked for once or twice.

    Block by block: a class that is nowhere in a block as high as another is everywhere cannot win there (what is
    interpolated lies between its neighbours), so most classes are never brought to full size.
    """
    labels, scores, columns = torch.empty(0), torch.empty(0), []
    for rows in _neighbours(shape[0], size[0], BLOCK):
        maps = band(rows.first, rows.last + 1).float()
        if not columns:
            labels = torch.empty(size, dtype=torch.int64, device=maps.device)
            scores = torch.empty(size, device=maps.device)
            side = BLOCK if maps.device.type == "cpu" else size[1]  # elsewhere few large pieces are faster
            columns = [each.to(maps.device) for each in _neighbours(shape[1], size[1], side)]
        rows = rows.to(maps.device)
        for some in columns:
            part = maps[:, :, some.first : some.last + 1]
            alive = (part.amax(dim=(1, 2)) >= part.amin(dim=(1, 2)).max()).nonzero()[:, 0]
            part = part[alive]
            part = torch.lerp(part[:, :, some.before], part[:, :, some.after], some.share)
            part = torch.lerp(part[:, rows.before], part[:, rows.after], rows.share[:, None])
            best, index = part.max(dim=0)
            scores[rows.at, some.at], labels[rows.at, some.at] = best, alive[index]
    if background is not None:
        labels[scores < background] = BACKGROUND
    return labels, scores


@dataclass(frozen=True)
class _Line:
    """A stretch of pixels along a side, and which samples each lies between (bilinear, corners not aligned)."""

    at: slice  # of the pixels
    first: int  # sample of all that are needed
    last: int
    before: torch.Tensor  # int64 [n], from `first`
    after: torch.Tensor
    share: torch.Tensor  # float32 [n], of `after`

    def to(self, device: torch.device) -> _Line:
        moved = (each.to(device) for each in (self.before, self.after, self.share))
        return _Line(self.at, self.first, self.last, *moved)


def _neighbours(samples: int, pixels: int, most: int) -> list[_Line]:
    """A side of `pixels` over `samples`, in stretches of at most `most` pixels."""
    place = ((torch.arange(pixels, dtype=torch.float64) + 0.5) * (samples / pixels) - 0.5).clamp(0, samples - 1)
    before = place.floor().long()
    after, share = (before + 1).clamp(max=samples - 1), (place - before).float()
    lines = []
    for start in range(0, pixels, most):
        at = slice(start, min(start + most, pixels))
        first, last = int(before[at.start]), int(after[at.stop - 1])
        lines.append(_Line(at, first, last, before[at] - first, after[at] - first, share[at]))
    return lines


def divide(
    similarities: torch.Tensor, num_classes: int, size: tuple[int, int], threshold: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """`label_map` where all but the first `num_classes` of the similarities are of background words: these get the
    label BACKGROUND too. -> labels int64 [H, W], scores float32 [H, W].
    """
    labels, scores = label_map(similarities, size, threshold)
    labels[labels >= num_classes] = BACKGROUND
    return labels.numpy(), scores.numpy()


def class_table(
    similarities: torch.Tensor, labels: np.ndarray, scores: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What there is to say of each class: (shares, means, peaks), each float64 [N].

    similarities: [N, h, w] of the classes only.   labels, scores: [H, W] of `divide`.
    shares: part of the pixels.   means: mean score of a class's own pixels, nan if it has none.   peaks: the highest
    similarity of any patch, whoever got the pixels there.
    """
    count = len(similarities)
    own = labels.ravel() >= 0
    places, values = labels.ravel()[own], scores.ravel()[own]
    pixels = np.bincount(places, minlength=count)
    totals = np.bincount(places, weights=values, minlength=count)
    means = np.divide(totals, pixels, out=np.full(count, np.nan), where=pixels > 0)
    return pixels / labels.size, means, similarities.amax(dim=(1, 2)).double().numpy()


def segment(
    encoder,
    image,
    classes: Sequence[str],
    templates: str | Sequence[str] = "tips9",
    features: str = "values",
    background: float | Sequence[str] | None = None,
    resolution: int | None = None,
    layer: int | None = None,
    windows: bool = False,
) -> Segmentation:
    """Give every pixel of the image the class it resembles most.

    image, templates, resolution: as in Encoder.   classes: N different names.   features: "values" or "final".
    background: None (every pixel gets a class), a cosine (pixels whose best class lies below it are background), or a
        list of words that compete with the classes and all count as background, such as ["sky", "wall"].
    layer: take the features of another layer than the last, 1 to encoder.num_layers.
    windows: look at the image through windows of the training resolution, see `tipsv2.network.windows`; last layer
    only. Raises ValueError on missing, blank or repeated names.
    """
    names = tuple(_strip(classes, "classes"))
    if not names:
        raise ValueError("Give at least one class name.")
    words = () if background is None or isinstance(background, int | float) else tuple(_strip(background, "background"))
    threshold = float(background) if isinstance(background, int | float) else None
    every = [*names, *words]
    if repeated := {name for name in every if every.count(name) > 1}:
        raise ValueError(f"'{min(repeated)}' is listed twice: name every class and background word once.")
    if background is not None and BACKGROUND_NAME in names:
        raise ValueError("A class cannot be called 'background' when a background is asked for: leave one of them out.")
    if windows and layer not in (None, encoder.num_layers):
        raise ValueError("Windows show the last layer only: leave out the layer or the windows.")
    text = encoder.encode_text(every, templates)
    if windows:
        from tipsv2.network.windows import encode_windows

        found = encode_windows(encoder, image, resolution)
    elif layer is not None:
        found = encoder.encode_layers(image, [layer], resolution)[layer]
    else:
        found = encoder.encode_image(image, resolution)
    maps = similarity(pick_features(found, features), text)
    labels, scores = divide(maps, len(names), found.size, threshold)
    shares, *rest = (each.tolist() for each in class_table(maps[: len(names)], labels, scores))
    shares = dict(zip(names, shares, strict=True))
    if background is not None:
        shares[BACKGROUND_NAME] = float((labels == BACKGROUND).mean())
    return Segmentation(labels, names, shares, scores, *(dict(zip(names, each, strict=True)) for each in rest))


def background_rule(text: str | None) -> float | list[str] | None:
    """What a --background of the command line means: None, "0.3" -> 0.3, "wall, sky" -> ["wall", "sky"]."""
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        return [word.strip() for word in text.split(",") if word.strip()]


def _strip(names: Sequence[str], what: str) -> list[str]:
    if isinstance(names, str):
        raise ValueError(f"The {what} must be a list of words, not one string: split it at its commas.")
    return [name.strip() if isinstance(name, str) else name for name in names]
