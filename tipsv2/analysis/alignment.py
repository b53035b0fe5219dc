"""Two encoders on the same image: whose patches follow the words better, by how much, and where they differ.

Teacher against student, or any two checkpoints: patch grids, widths and resolutions may differ. Cosines of two
encoders have different ranges, so what is compared does not depend on them: AUROC, or a map in its own standard
deviations. Without a mask nothing here says who is right, only who is sharper. Layer by layer:
`tipsv2.analysis.layers`.
Sizes: N queries, H x W pixels of the image.

    from tipsv2 import load
    from tipsv2.analysis.alignment import compare
    compare(load("opentips-nano"), load("google/tipsv2-b14"), "dog.jpg", ["a dog", "grass"]).sentence
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tipsv2.analysis.heatmap import layer_and_kind, patch_maps, peak, to_pixels
from tipsv2.analysis.metrics import auroc, mask_iou, mask_margin, peak_margins, pointing_hit
from tipsv2.images import open_image
from tipsv2.network.view import View

if TYPE_CHECKING:
    from tipsv2.images import ImageSource
    from tipsv2.network.encoder import Encoder

SCALES = ("z", "rank", "cosine")
FEATURE_NAMES = {"values": "values", "final": "final layer"}
_FLAT = 1e-6  # a standard deviation of cosines below it is rounding, not a map


@dataclass(frozen=True)
class MapScore:
    """One query's map of one encoder. "sd" is the standard deviation of this map over the image's pixels."""

    query: str
    peak: float  # highest cosine of any patch (heatmap.peak); its range differs from encoder to encoder
    x: int  # the middle of that patch, in pixels
    y: int
    sharpness: float  # how far the highest pixel is above the map's mean, in sd; a finer patch grid raises it a little
    margin: float | None  # query's cosine minus the best other query's at that pixel, in sd; None with one query
    inside: float | None = None  # mean inside the mask minus mean outside, in sd; this and the rest None without a mask
    pointing: bool | None = None  # is that pixel in the mask (metrics.pointing_hit)?
    auroc: float | None = None  # the chance that a pixel inside scores higher than one outside (metrics.auroc)
    iou: float | None = None  # at the threshold best for this map, so an upper bound (metrics.mask_iou)


@dataclass(frozen=True)
class Comparison:
    """What `compare` found; A is the first encoder, B the second."""

    names: tuple[str, str]
    queries: tuple[str, ...]
    maps: np.ndarray  # [2, N, H, W] float32 cosines
    scaled: np.ndarray  # [2, N, H, W] float32, the same on `scale`
    difference: np.ndarray  # [N, H, W] float32, B - A on `scale`: positive where B responds more
    scale: str
    scores: tuple[tuple[MapScore, ...], tuple[MapScore, ...]]
    agreement: tuple[float, ...]  # per query, Pearson's correlation of the two maps, -1 to 1
    sentence: str  # who aligns better here and by how much


def compare(
    a: Encoder,
    b: Encoder,
    image: ImageSource,
    queries: Sequence[str],
    masks: Sequence[np.ndarray | None] | None = None,
    features: str | tuple[str, str] = "values",
    templates: str | Sequence[str] = "none",
    resolutions: tuple[int | None, int | None] = (None, None),
    scale: str = "z",
    tolerance: float = 15,
) -> Comparison:
    """Both encoders' maps of an image, in its pixels, and what they are worth; see `compare_maps`.

    image, features, templates: as in `tipsv2.analysis.heatmap.heatmap`; features also a pair, for A and for B.
    resolutions: short side in pixels that A and B see, by default each as trained.
    """
    kinds = (features, features) if isinstance(features, str) else features
    if not len(queries):
        raise ValueError("Give at least one phrase to look for.")
    image, maps = open_image(image), []
    for encoder, features, resolution in zip((a, b), kinds, resolutions, strict=True):
        layer, kind = layer_and_kind(features)
        seen = encoder.look(image, View(resolution), layer)
        maps.append(patch_maps(seen, encoder.encode_text(queries, templates), kind))
    names = (a.info.name, b.info.name)
    if kinds[0] != kinds[1]:
        names = (f"{names[0]} ({FEATURE_NAMES[kinds[0]]})", f"{names[1]} ({FEATURE_NAMES[kinds[1]]})")
    return compare_maps(maps[0], maps[1], queries, names, masks, scale, tolerance, (image.height, image.width))


def compare_maps(
    maps_a: np.ndarray | torch.Tensor,
    maps_b: np.ndarray | torch.Tensor,
    queries: Sequence[str],
    names: tuple[str, str] = ("A", "B"),
    masks: Sequence[np.ndarray | None] | None = None,
    scale: str = "z",
    tolerance: float = 15,
    size: tuple[int, int] | None = None,
) -> Comparison:
    """maps_a, maps_b: cosines [N, h, w] of the patches with the same N queries on the same image, of any two encoders,
    layers or feature kinds, whose grids may differ; names say which.

    size: (H, W) in pixels at which they are compared, by default as large as they are.
    masks: for each query where it really is, bool [H, W] with some pixels in and some out, or None if nobody knows.
    scale: of the difference, as in `standardise`.   tolerance: of the pointing game, in pixels.
    Raises ValueError on shapes or masks that do not fit.
    """
    queries = tuple(queries)
    grids = [_checked_maps(maps, queries) for maps in (maps_a, maps_b)]
    pair = grids if size is None else [to_pixels(torch.from_numpy(grid), size).numpy() for grid in grids]
    if pair[0].shape != pair[1].shape:
        raise ValueError(f"Both maps must cover the same pixels, not {pair[0].shape[1:]} and {pair[1].shape[1:]}.")
    maps = np.stack(pair)
    masks = checked_masks(masks, len(queries), maps.shape[2:])
    if names[0] == names[1]:  # two runs' folders, or two layers of one encoder
        names = (f"{names[0]} (A)", f"{names[1]} (B)")
    scaled = np.stack([standardise(values, scale) for values in maps])
    z = np.stack([standardise(values, "z") for values in maps]).astype(np.float64)
    scores_a, scores_b = (
        _scores(grid, side, sd, queries, masks, tolerance) for grid, side, sd in zip(grids, maps, z, strict=True)
    )
    scores = (scores_a, scores_b)
    agreement = tuple(float(value) for value in (z[0] * z[1]).mean(axis=(1, 2)))
    text = sentence(names, scores, agreement)
    difference = scaled[1] - scaled[0]
    return Comparison((names[0], names[1]), queries, maps, scaled, difference, scale, scores, agreement, text)


def standardise(maps: np.ndarray, scale: str = "z") -> np.ndarray:
    """Each of maps [N, H, W] on a scale that two encoders share -> float32 [N, H, W].

    scale: "z" (minus the map's mean over the image, in its standard deviations; a flat map is all 0), "rank" (the part
    of the image's pixels that score lower, ties half: [0, 1]; only the order counts) or "cosine" (as they are).
    """
    if scale not in SCALES:
        raise ValueError(f"Unknown scale '{scale}': use {', '.join(SCALES)}.")
    if scale == "cosine":
        return np.asarray(maps, dtype=np.float32)
    flat = np.asarray(maps, dtype=np.float64).reshape(len(maps), -1)
    if scale == "z":
        spread = flat.std(axis=1, keepdims=True)
        flat = np.where(spread > _FLAT, flat - flat.mean(axis=1, keepdims=True), 0) / np.maximum(spread, _FLAT)
    else:
        ordered = np.sort(flat, axis=1)
        sides = [
            np.stack([np.searchsorted(o, f, side) for o, f in zip(ordered, flat, strict=True)])
            for side in ("left", "right")
        ]
        flat = (sides[0] + sides[1]) / (2 * flat.shape[1])
    return flat.reshape(np.shape(maps)).astype(np.float32)


def sentence(
    names: tuple[str, str],
    scores: tuple[Sequence[MapScore], Sequence[MapScore]],
    agreement: Sequence[float],
) -> str:
    """Who aligns better here, by how much, over what. Only queries with a mask can say "better"; without any the
    sentence says "sharper". Differences of AUROC below 0.01, or of sharpness below 0.1, are ties.
    """
    pairs = list(zip(*scores, strict=True))
    judged = [(a.query, a.auroc, b.auroc) for a, b in pairs if a.auroc is not None and b.auroc is not None]
    if not judged:
        rows = [(a.query, a.sharpness, b.sharpness) for a, b in pairs]
        over = f"over {len(rows)} queries" if len(rows) > 1 else f"for {_quoted([rows[0][0]])}"
        text = _verdict(names, rows, "is", "sharper", "peak height (in standard deviations)", over, 1)
        return (
            f"{text}; no mask was given, so sharper need not mean better "
            f"(the two sides' maps correlate {np.mean(agreement):.2f})."
        )
    if len(judged) > 1:
        over = f"over {len(judged)} queries" if len(judged) == len(pairs) else f"over the {len(judged)} queries"
    else:
        over = f"for {_quoted([judged[0][0]])}"
    if len(judged) < len(pairs):
        over += f" of {len(pairs)} with a mask" if len(judged) > 1 else ", the only query with a mask"
    text = _verdict(names, judged, "aligns", "better", "AUROC", over, 2)
    if np.mean([row[1:] for row in judged], axis=0).max() < 0.6:
        text += "; neither is far above chance, which is 0.50"
    return text + "."


def checked_masks(
    masks: Sequence[np.ndarray | None] | None, count: int, size: tuple[int, int]
) -> list[np.ndarray | None]:
    """A mask or None for each query; raises ValueError on masks not bool [H, W] or without an inside and an outside."""
    masks = [None if mask is None else np.asarray(mask) for mask in ([None] * count if masks is None else masks)]
    if len(masks) != count:
        raise ValueError(f"There are {len(masks)} masks for {count} queries: give one for each, None where unknown.")
    for number, mask in enumerate(masks, 1):
        if mask is None:
            continue
        if mask.shape != tuple(size) or mask.dtype != np.bool_:
            raise ValueError(f"Mask {number} must be bool {tuple(size)} like the image, not {mask.dtype} {mask.shape}.")
        if mask.all() or not mask.any():
            raise ValueError(
                f"Mask {number} marks {'every pixel' if mask.all() else 'no pixel'}: mark the thing and leave the rest."
            )
    return masks


def _scores(
    grids: np.ndarray,
    maps: np.ndarray,
    z: np.ndarray,
    queries: Sequence[str],
    masks: Sequence[np.ndarray | None],
    tolerance: float,
) -> tuple[MapScore, ...]:
    """A MapScore for each query: cosines of patches `grids` [N, h, w], of pixels `maps` [N, H, W] and the same in
    standard deviations, `z`.
    """
    spreads = np.maximum(maps.std(axis=(1, 2), dtype=np.float64), _FLAT)
    margins = peak_margins(maps) / spreads if len(maps) > 1 else [None] * len(maps)
    rows = []
    for query, grid, cosines, values, margin, mask in zip(queries, grids, maps, z, margins, masks, strict=True):
        top = peak(grid)
        judged: dict[str, Any] = {}
        if mask is not None:
            judged = dict(
                inside=mask_margin(values, mask),
                pointing=pointing_hit(cosines, mask, tolerance),
                auroc=auroc(cosines, mask),
                iou=mask_iou(cosines, mask)[0],
            )
        margin = None if margin is None else float(margin)
        x, y = top.at(cosines.shape)
        rows.append(MapScore(query, top.score, x, y, float(values.max()), margin, **judged))
    return tuple(rows)


def _verdict(
    names: tuple[str, str],
    rows: Sequence[tuple[str, float, float]],
    verb: str,
    better: str,
    measure: str,
    over: str,
    digits: int,
) -> str:
    """rows: (query, value of A, value of B). Two values closer than one step of the last digit shown are a tie."""
    tie = 10.0**-digits
    means = np.mean([row[1:] for row in rows], axis=0)
    first = int(means[1] > means[0])  # who leads
    other = 1 - first
    wins = [[row[0] for row in rows if row[1:][who] - row[1:][1 - who] >= tie] for who in (0, 1)]
    what = measure if len(rows) == 1 else f"mean {measure}"
    if means[first] - means[other] < tie:
        numbers = ", ".join(f"{name} {mean:.{digits}f}" for name, mean in zip(names, means, strict=True))
        text = f"Neither {verb} clearly {better} here: {what} {numbers} {over}"
        leads = " and ".join(f"{name} leads on {_quoted(won)}" for name, won in zip(names, wins, strict=True))
        return f"{text} ({leads})" if all(wins) else text
    numbers = f"{what} {means[first]:.{digits}f} against {means[other]:.{digits}f} {over}"
    if len(wins[first]) > len(wins[other]):
        text = f"{names[first]} {verb} {better} here: {numbers}"
        return f"{text}, though not on {_quoted(wins[other])}" if wins[other] else text
    return f"The queries disagree: {names[first]} leads with {numbers}, but {names[other]} on {_quoted(wins[other])}"


def _quoted(queries: Sequence[str], most: int = 3) -> str:
    text = ", ".join(f"'{query}'" for query in queries[:most])
    return text if len(queries) <= most else f"{text} and {len(queries) - most} more"


def _checked_maps(maps: np.ndarray | torch.Tensor, queries: Sequence[str]) -> np.ndarray:
    maps = np.asarray(maps, dtype=np.float32)
    if maps.ndim != 3 or not maps.size or len(maps) != len(queries) or not np.isfinite(maps).all():
        raise ValueError(f"Maps must be finite numbers [{len(queries)} queries, height, width], not {maps.shape}.")
    return maps
