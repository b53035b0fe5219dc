"""Zero-shot segmentation: class names -> label map, with or without a background.

The protocol is TIPSv2's (google-deepmind/tips, pytorch/TIPS_zeroshot_segmentation.ipynb, whole-image mode): value
features, cosine with the templates' mean text embedding, bilinear to pixels, arg-max. A class may have several words,
"gear|cog": a patch has its cosine with the nearest of them.
Sizes: N classes, h x w patches, H x W pixels.

    from tipsv2 import load, segment
    segment(load(), "dog.jpg", ["dog", "grass", "sky"]).shares
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from tipsv2.analysis.heatmap import pick_features, similarity
from tipsv2.analysis.label_maps import BACKGROUND
from tipsv2.analysis.sharp_edges import sharp_label_map, superpixels
from tipsv2.analysis.verdict import NOT_HERE, Verdict, calibration_of, judge, most_present
from tipsv2.images import ImageSource, open_image

if TYPE_CHECKING:
    from tipsv2.network.encoder import Encoder

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
    scores: np.ndarray  # [H, W] float32: cosine of the winner, a background word included
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
    """Maps of words [W, h, w] -> maps of the `count` classes that own them: the highest of each class's words.

    Of two ways, this one serves words for different looks of a class: the mean of their vectors lies near none of them.
    """
    if len(similarities) == count:
        return similarities
    maps = similarities.new_full((count, *similarities.shape[1:]), -torch.inf)
    return maps.index_reduce(0, owners.to(maps.device), similarities, "amax")


def class_verdicts(encoder: Encoder, values: torch.Tensor, names: Sequence[str]) -> list[Verdict]:
    """Is a class in the picture? By the one of its words that is most. values: value features [h, w, D]."""
    words, owners = words_of_classes(names)
    judged = judge(encoder, values, words)
    return [
        most_present([verdict for verdict, owner in zip(judged, owners.tolist(), strict=True) if owner == number])
        for number in range(len(names))
    ]


def seen_only(
    encoder: Encoder, similarities: torch.Tensor, verdicts: Sequence[Verdict], calibrated: bool = True
) -> tuple[torch.Tensor, float]:
    """Maps [N, h, w] for the background VERDICT -> (maps on which classes that are not here win nowhere, the least
    cosine of a class's pixel). calibrated: they are of what the calibration's floor is of, values of the last layer.
    """
    there = torch.tensor([verdict.answer != NOT_HERE for verdict in verdicts])
    known = calibration_of(encoder.info) if calibrated else None
    return torch.where(there[:, None, None], similarities, ABSENT), -1.0 if known is None else known.floor


def divide(
    similarities: torch.Tensor,
    num_classes: int,
    size: tuple[int, int],
    threshold: float | None = None,
    segments: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """`label_map` where all but the first `num_classes` of the similarities are of background words: these get the
    label BACKGROUND too. -> labels int64 [H, W], scores float32 [H, W].

    segments: of `tipsv2.analysis.sharp_edges.superpixels`, to follow the picture's edges.
    """
    if segments is None:
        labels, scores = label_map(similarities, size, threshold)
    else:
        labels, scores = sharp_label_map(similarities, segments, size, threshold)
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
) -> Segmentation:
    """Give every pixel of the image the class it resembles most.

    image, templates, resolution: as in Encoder.   classes: N different names, "gear|cog" with several words.
    features: "values" or "final".
    background: None (every pixel gets a class), a cosine (pixels whose best class lies below it are background), a list
        of words that compete with the classes and all count as background, such as ["sky", "wall"], or VERDICT: by the
        encoder's calibration, see `tipsv2.analysis.verdict`.
    layer: take the features of another layer than the last, 1 to encoder.num_layers.
    windows: look at the image through windows of the training resolution, see `tipsv2.network.windows`; last layer
    only.   sharp: let the edges follow the picture's, see `tipsv2.analysis.sharp_edges`.
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
    if windows:
        from tipsv2.network.windows import encode_windows

        seen = encode_windows(encoder, image, resolution)
    elif layer is not None:
        seen = encoder.encode_layers(image, [layer], resolution)[layer]
    else:
        seen = encoder.encode_image(image, resolution)
    maps = nearest_of(similarity(pick_features(seen, features), text), owners, len(every))
    shown, verdicts = maps, None
    if background == VERDICT:
        last = seen if layer in (None, encoder.num_layers) else encoder.encode_image(image, resolution)
        verdicts = class_verdicts(encoder, last.values, names)
        shown, threshold = seen_only(encoder, maps, verdicts, last is seen and features == "values")
    segments = superpixels(open_image(image), _grid_of(maps), encoder.patch_size) if sharp else None
    labels, scores = divide(shown, len(names), seen.size, threshold, segments)
    table = class_table(maps[: len(names)], labels, scores)
    shares, means, peaks = (dict(zip(names, column.tolist(), strict=True)) for column in table)
    if background is not None:
        shares[BACKGROUND_NAME] = float((labels == BACKGROUND).mean())
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
