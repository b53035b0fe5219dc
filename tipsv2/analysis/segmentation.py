"""Zero-shot segmentation: class names -> label map, with or without a background.

The protocol is TIPSv2's (google-deepmind/tips, pytorch/TIPS_zeroshot_segmentation.ipynb), in both its modes: value
features, cosine with the templates' mean text embedding, bilinear to pixels, arg-max; through windows the cosines are
brought to the window's pixels, a softmax over the classes without a temperature follows, its mean where windows
overlap, bilinear to the picture's pixels, arg-max. `label` does it, for `segment`, the app and the evaluation alike. A
class may have several words, "gear|cog": a patch has its cosine with the nearest of them.
Sizes: N classes, h x w patches, H x W pixels, M windows.

    from tipsv2 import View, load, segment
    segment(load(), "dog.jpg", ["dog", "grass", "sky"]).shares
    features = encoder.look("dog.jpg", View(resample="bicubic"))        # the same in two steps
    label(features, encoder.encode_text(["dog", "grass", "sky"], "tips9")).labels
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from tipsv2.analysis.heatmap import mean_of_windows, patch_maps, pick_features
from tipsv2.analysis.label_maps import BACKGROUND
from tipsv2.analysis.sharp_edges import sharp_label_map, superpixels
from tipsv2.analysis.verdict import HERE, PERHAPS, Verdict, calibration_of, judge, most_present
from tipsv2.images import ImageSource, open_image
from tipsv2.network.view import View, windowed

if TYPE_CHECKING:
    from tipsv2.network.encoder import Encoder
    from tipsv2.network.view import ImageFeatures

BACKGROUND_NAME = "background"  # in shares
VERDICT = "verdict"  # as a background: classes that are not here get no pixel, nor do pixels too unlike their class
OR = "|"  # between a class's words
ABSENT = -2.0  # under every cosine
BLOCK = 64  # pixels a side that are decided together: their maps stay in a CPU's cache


@dataclass(frozen=True)
class Segmentation:
    """What `segment` found."""

    labels: np.ndarray  # [H, W] int64: an index into `classes`, or BACKGROUND (-1)
    classes: tuple[str, ...]
    shares: dict[
        str, float
    ]  # name -> part of the pixels, in [0, 1], adding up to one; "background" where one was asked for
    scores: np.ndarray  # [H, W] float32: of the winner, background words included: its cosine, or as in `Labels`
    means: dict[str, float]  # name -> mean cosine over the pixels that are this class, nan if none is
    peaks: dict[str, float]  # name -> the highest cosine of any patch, whether or not the class was found
    verdicts: dict[str, Verdict] | None = None  # name -> is it there? Where the background is VERDICT


def label_map(
    similarities: torch.Tensor, size: tuple[int, int], background: float | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """similarities [N, h, w] -> labels [H, W] int64 and the winners' similarities [H, W] float32, for size (H, W).

    Interpolated bilinearly before the arg-max; of equals the first wins.
    background: where the winner's similarity is below it, the label is BACKGROUND (-1).
    """
    return label_bands(lambda first, last: similarities[:, first:last], _grid_of(similarities), size, background)


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
    labels, scores = torch.empty(0), torch.empty(0)
    columns: list[_Line] = []
    for rows in _neighbours(shape[0], size[0], BLOCK):
        maps = band(rows.first, rows.last + 1).float()
        if not columns:
            labels = torch.empty(size, dtype=torch.int64, device=maps.device)
            scores = torch.empty(size, device=maps.device)
            side = BLOCK if maps.device.type == "cpu" else size[1]  # elsewhere few large pieces are faster
            columns = [line.to(maps.device) for line in _neighbours(shape[1], size[1], side)]
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
        moved = (indices.to(device) for indices in (self.before, self.after, self.share))
        return _Line(self.at, self.first, self.last, *moved)


def _grid_of(maps: torch.Tensor) -> tuple[int, int]:
    """(h, w) of maps [N, h, w]."""
    return maps.shape[1], maps.shape[2]


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


def words_of_classes(names: Sequence[str]) -> tuple[list[str], torch.Tensor]:
    """Names such as "gear|cog" -> (all words, the class of each, int64). Raises ValueError on one without words."""
    words, owners = [], []
    for number, name in enumerate(names):
        own = [word.strip() for word in name.split(OR) if word.strip()] if isinstance(name, str) else [name]
        if not own and OR in name:
            raise ValueError(f"The class '{name}' has no words: write them on both sides of the {OR}.")
        words += own or [name]
        owners += [number] * max(1, len(own))
    return words, torch.tensor(owners)


def nearest_of(similarities: torch.Tensor, owners: torch.Tensor, count: int) -> torch.Tensor:
    """Maps of words [..., W, h, w] -> maps of the `count` classes that own them: the highest of each class's words.

    Of two ways, this one serves words for different looks of a class: the mean of their vectors lies near none of them.
    """
    if similarities.shape[-3] == count:
        return similarities
    shape = (*similarities.shape[:-3], count, *similarities.shape[-2:])
    nearest = similarities.new_full(shape, -torch.inf)
    return nearest.index_reduce(-3, owners.to(nearest.device), similarities, "amax")


def class_verdicts(encoder: Encoder, values: torch.Tensor, names: Sequence[str]) -> list[Verdict]:
    """Is a class in the picture? By the one of its words that is most. values: value features [h, w, D]."""
    words, owners = words_of_classes(names)
    judged = judge(encoder, values, words)
    return [
        most_present([verdict for verdict, owner in zip(judged, owners.tolist(), strict=True) if owner == number])
        for number in range(len(names))
    ]


def seen_only(encoder: Encoder, verdicts: Sequence[Verdict], calibrated: bool = True) -> tuple[torch.Tensor, float]:
    """What the background VERDICT means for `label`: (which classes may win [N], the least cosine of a class's pixel).
    calibrated: the cosines are of what the calibration's floor is of, values of the last layer.
    """
    known = calibration_of(encoder.info) if calibrated else None
    there = torch.tensor([verdict.answer in (HERE, PERHAPS) for verdict in verdicts])
    return there, -1.0 if known is None else known.floor


@dataclass(frozen=True)
class Labels:
    """What `label` found, on the device of the features."""

    labels: torch.Tensor  # int64 [H, W]: a class, or BACKGROUND (-1)
    scores: torch.Tensor  # float32 [H, W]: the winner's cosine, or mean share of the softmax over windows apart
    peaks: torch.Tensor  # float32 [N]: the highest cosine of any patch with each class


def label(
    features: ImageFeatures,
    text: torch.Tensor,
    kind: str = "values",
    owners: torch.Tensor | None = None,
    classes: int | None = None,
    threshold: float | None = None,
    there: torch.Tensor | None = None,
    segments: np.ndarray | None = None,
    size: tuple[int, int] | None = None,
) -> Labels:
    """Give every pixel the class it resembles most. The features of one `look` answer any number of questions.

    text: rows [W, D] of `Encoder.encode_text`.   kind: "values" or "final".   owners: the class of each row where a
    class has several words, see `words_of_classes`.   classes: how many of the owners are classes; those after them are
    background words, whose label is BACKGROUND; by default all are.   threshold: the score below which a pixel is
    BACKGROUND.   there: bool [classes], those that may win.   segments: of
    `tipsv2.analysis.sharp_edges.superpixels`, to follow the picture's edges.   size: (H, W), by default the image's.
    """
    maps = patch_maps(features, text, kind)
    if owners is not None:
        maps = nearest_of(maps, owners, int(owners.max()) + 1)
    classes = maps.shape[-3] if classes is None else classes
    peaks = maps.amax(dim=(-2, -1)).reshape(-1, maps.shape[-3]).amax(dim=0)[:classes]
    if there is not None:
        allowed = torch.cat([there, there.new_ones(maps.shape[-3] - classes)]).to(maps.device)
        maps = torch.where(allowed[:, None, None], maps, ABSENT)
    size = features.size if size is None else size
    if features.windows is None:
        shape, band = (maps.shape[1], maps.shape[2]), lambda first, last: maps[:, first:last]
    else:
        shape, band = features.windows.size, partial(mean_of_windows, maps, features.windows, softmax=True)
    if segments is None:
        labels, scores = label_bands(band, shape, size, threshold)
    else:
        labels, scores = sharp_label_map(band(0, shape[0]), segments, size, threshold)
    labels[labels >= classes] = BACKGROUND
    return Labels(labels, scores, peaks)


def class_shares(labels: np.ndarray, scores: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Of `count` classes, float64 [count] each: part of the pixels, and mean score of a class's own pixels, nan if it
    has none. labels, scores: [H, W] of `label`.
    """
    own = labels.ravel() >= 0
    places, values = labels.ravel()[own], scores.ravel()[own]
    pixels = np.bincount(places, minlength=count)
    totals = np.bincount(places, weights=values, minlength=count)
    return pixels / labels.size, np.divide(totals, pixels, out=np.full(count, np.nan), where=pixels > 0)


def segment(
    encoder: Encoder,
    image: ImageSource,
    classes: Sequence[str],
    templates: str | Sequence[str] = "tips9",
    features: str = "values",
    background: float | str | Sequence[str] | None = None,
    resolution: int | None = None,
    layer: int | None = None,
    windows: bool = False,
    sharp: bool = False,
    resample: str = "bicubic",
) -> Segmentation:
    """Give every pixel of the image the class it resembles most.

    image, templates, resolution: as in Encoder.   classes: N different names, "gear|cog" with several words.
    features: "values" or "final".
    background: None (every pixel gets a class), a cosine (pixels whose best class lies below it are background; with
        windows and "bicubic" a share of the softmax), a list of words that compete with the classes and all count as
        background, such as ["sky", "wall"], or VERDICT: by the encoder's calibration, see `tipsv2.analysis.verdict`.
    layer: take the features of another layer than the last, 1 to encoder.num_layers.
    windows: look at the image through windows of the training resolution; last layer only.   sharp: let the edges
    follow the picture's, see `tipsv2.analysis.sharp_edges`.
    resample: "bicubic", as TIPSv2's notebook and `python -m tipsv2 evaluate segmentation` look at pictures, or
    "bilinear", as `heatmap` and the explorer do; see `tipsv2.network.view`.
    Raises ValueError on missing, blank or repeated names.
    """
    names = tuple(_strip(classes, "classes"))
    if not names:
        raise ValueError("Give at least one class name.")
    words: tuple[str, ...] = ()
    if not (background is None or isinstance(background, int | float) or background == VERDICT):
        words = tuple(_strip(background, "background"))
    threshold = float(background) if isinstance(background, int | float) else None
    every = [*names, *words]
    if repeated := {name for name in every if every.count(name) > 1}:
        raise ValueError(f"'{min(repeated)}' is listed twice: name every class and background word once.")
    if background is not None and BACKGROUND_NAME in names:
        raise ValueError("A class cannot be called 'background' when a background is asked for: leave one of them out.")
    if windows and layer not in (None, encoder.num_layers):
        raise ValueError("Windows show the last layer only: leave out the layer or the windows.")
    spoken, owners = words_of_classes(every)
    text = encoder.encode_text(spoken, templates)
    view = windowed(encoder, resolution, resample) if windows else View(resolution, resample=resample)
    seen = encoder.look(image, view, layer)
    there = verdicts = None
    if background == VERDICT:
        # The calibration is of whole pictures: windows apart have no grid to be judged by.
        last = layer in (None, encoder.num_layers) and seen.windows is None
        whole = seen if last else encoder.look(image, View(resolution, resample=resample))
        verdicts = class_verdicts(encoder, whole.values, names)
        there, threshold = seen_only(encoder, verdicts, last and features == "values")
    segments = None
    if sharp:
        size = seen.windows and seen.windows.size
        rows, columns = (
            (side // encoder.patch_size for side in size) if size else pick_features(seen, features).shape[:2]
        )
        segments = superpixels(open_image(image), (rows, columns), encoder.patch_size)
    labelled = label(seen, text, features, owners, len(names), threshold, there, segments)
    labels, scores = labelled.labels.numpy(), labelled.scores.numpy()
    shares, means = (
        dict(zip(names, column.tolist(), strict=True)) for column in class_shares(labels, scores, len(names))
    )
    if background is not None:
        shares[BACKGROUND_NAME] = float((labels == BACKGROUND).mean())
    peaks = dict(zip(names, labelled.peaks.double().tolist(), strict=True))
    by_name = None if verdicts is None else dict(zip(names, verdicts, strict=True))
    return Segmentation(labels, names, shares, scores, means, peaks, by_name)


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
