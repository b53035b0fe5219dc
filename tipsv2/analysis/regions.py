"""The part of a map above a threshold: its mask, its connected parts with their boxes, its outline.

A leaf: numpy arrays in and out; scikit-image finds parts and outlines.
Sizes: H x W pixels, N parts.

    from tipsv2.analysis.regions import at_share, find_regions
    region = find_regions(maps[0], at_share(maps[0], 0.6))     # maps of tipsv2.analysis.heatmap.heatmap
    region.share, [part.box for part in region.parts]
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Part:
    """A connected part of a mask: pixels that touch, also at a corner."""

    box: tuple[int, int, int, int]  # (left, top, right, bottom) in pixels, right and bottom outside of it
    area: int  # in pixels
    peak: float  # highest value inside: of a patch that it touches, where the patches are known, else of a pixel


@dataclass(frozen=True)
class Regions:
    """What `find_regions` found."""

    mask: np.ndarray  # [H, W] bool
    parts: tuple[Part, ...]  # the largest first
    threshold: float

    @property
    def share(self) -> float:
        """Part of the picture that the mask covers, in [0, 1]."""
        return float(self.mask.mean())


def at_share(values: np.ndarray, share: float) -> float:
    """The value that lies `share` (0 to 1) of the way from the least to the greatest of `values`, of any shape."""
    if not 0 <= share <= 1:
        raise ValueError(f"The share of the range must lie between 0 and 1, not {share}.")
    values = np.asarray(values)
    low, high = float(values.min()), float(values.max())
    return low + share * (high - low)


def find_regions(
    values: np.ndarray, threshold: float, smallest: float = 0.0, patches: np.ndarray | None = None
) -> Regions:
    """Where a map is at or above `threshold`, and the connected parts of that.

    values: [H, W].   smallest: parts that cover less than this share of the picture are left out, of the mask too.
    patches: [h, w], the map before it was brought to pixels: then a part's peak is that of `tipsv2.analysis.heatmap`.
    Raises ValueError on values of another shape.
    """
    from skimage.measure import label, regionprops

    values = np.asarray(values)
    if values.ndim != 2 or not values.size:
        raise ValueError(f"A map must be [H, W] with at least one pixel, not {list(values.shape)}.")
    labels, scores = label(values >= threshold, connectivity=2), values
    if patches is not None:
        rows, columns = (
            ((np.arange(pixels) + 0.5) * count / pixels).astype(int)
            for pixels, count in zip(values.shape, patches.shape, strict=True)
        )
        scores = np.asarray(patches)[rows[:, None], columns]
    large = [part for part in regionprops(labels, scores) if part.area >= smallest * values.size]
    large.sort(key=lambda part: -part.area)
    parts = []
    for region in large:
        top, left, bottom, right = region.bbox
        parts.append(Part((left, top, right, bottom), int(region.area), float(region.intensity_max)))
    return Regions(np.isin(labels, [region.label for region in large]), tuple(parts), float(threshold))


def outlines(mask: np.ndarray, tolerance: float = 0.7) -> list[np.ndarray]:
    """The borders of a mask [H, W] -> closed lines of points (x, y) float [n, 2], holes included, in pixels of the
    picture whose corners are (0, 0) and (W, H).   tolerance: how far in pixels a line may leave out points.
    """
    from skimage.measure import approximate_polygon, find_contours

    height, width = mask.shape
    lines = []
    for line in find_contours(np.pad(np.asarray(mask, np.float32), 1), 0.5):
        points = approximate_polygon(line, tolerance)[:, ::-1] - 0.5  # padding and centres of pixels: -1 + 1/2
        lines.append(np.clip(points, 0, (width, height)))
    return lines
