"""What is inside a patch grid: principal components as colours, clusters, a map of patches and words, norms.

A leaf: torch tensors or numpy arrays in, numpy arrays out; the same grid and seed give the same answer every time.
Sizes: h x w patches, D embedding width, K components, N words.

    from tipsv2.analysis.projection import components_as_rgb, pca, project
    basis = pca([features.patches])                                      # one basis for any number of grids
    colors, = components_as_rgb([project(features.patches, basis)])      # [h, w, 3] in [0, 1]

Which basis makes colours comparable:
one model, several images     `pca` of all their grids together
teacher and student, one space (the student learned the teacher's patches)    `pca` of both grids together
models of different widths or spaces    `pca` of each, then `align` the second to the first on the same image
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

    Numbers = np.ndarray | torch.Tensor

GAPS = ("bridge", "keep")
_ROUNDING = 1e-12  # share of the mean squared length under which variance is float32's rounding, not structure


@dataclass(frozen=True)
class Basis:
    """Axes of a feature space, the one with most variance first; made by `pca` or `align`."""

    mean: np.ndarray  # [D] float64
    components: np.ndarray  # [K, D] float64: orthogonal rows, of length one (by `align`: of one other length)
    explained: np.ndarray  # [K] float64: share of the variance along each, in [0, 1]


@dataclass(frozen=True)
class Clusters:
    """What `kmeans` found: the largest cluster is number 0, and K may be less than what was asked for."""

    labels: np.ndarray  # [h, w] int64
    centers: np.ndarray  # [K, D] float32 unit rows
    shares: np.ndarray  # [K] float64: part of the patches, adding up to one


@dataclass(frozen=True)
class Norms:
    """What `patch_norms` found."""

    norms: np.ndarray  # [h, w] float32: length of each patch embedding
    scores: np.ndarray  # [h, w] float32: robust z-scores, 0 at the median
    outliers: np.ndarray  # [h, w] bool
    limit: float  # the norm above which a patch is an outlier


def pca(grids: Sequence, count: int = 3, masks: Sequence[np.ndarray] | None = None) -> Basis:
    """The `count` principal axes of all patches of the grids, each [h, w, D] of any size and one width D.

    masks: bool [h, w] for each grid, the patches that count (as from `foreground`).
    Neither centred per grid nor normalised. No randomness; of an axis' two directions the one whose entries' cubes add
    up to more than zero, which on flipped and re-encoded images changes less often than the direction of the largest
    entry. Axes that the patches do not have (fewer patches than axes, equal patches) are zeros and explain 0.
    Raises ValueError if the grids differ in width, hold NaN or infinity, or no patch counts.
    """
    from sklearn.decomposition import PCA

    if count < 1:
        raise ValueError(f"Ask for at least one component, not {count}.")
    arrays = [_grid(grid) for grid in grids]
    if len({array.shape[-1] for array in arrays}) > 1:
        widths = ", ".join(str(array.shape[-1]) for array in arrays)
        raise ValueError(f"One basis needs grids of one width, not {widths}: give each its own and align them.")
    if masks is None:
        masks = [np.ones(array.shape[:2], bool) for array in arrays]
    patches = [array[np.asarray(mask, bool)] for array, mask in zip(arrays, masks, strict=True)]
    if not sum(map(len, patches)):
        raise ValueError("There are no patches to find components of: give at least one grid, and leave some unmasked.")
    rows = np.concatenate(patches).astype(np.float64)
    mean = rows.mean(axis=0)
    components, explained = np.zeros((count, rows.shape[1])), np.zeros(count)
    if rows.var(axis=0).sum() > _ROUNDING * np.square(rows).sum(axis=1).mean():
        fitted = PCA(min(count, *rows.shape), svd_solver="covariance_eigh").fit(rows)
        real = fitted.explained_variance_ratio_ > _ROUNDING
        kept = fitted.components_[real]
        signs = np.where((kept**3).sum(axis=1) < 0, -1.0, 1.0)
        components[: len(kept)] = kept * signs[:, None]
        explained[: len(kept)] = fitted.explained_variance_ratio_[real]
    return Basis(mean, components, explained)


def project(patches: Numbers, basis: Basis) -> np.ndarray:
    """Patches [h, w, D] -> how far along each axis, [h, w, K] float32. Raises ValueError for another width."""
    patches = _grid(patches)
    if patches.shape[-1] != len(basis.mean):
        raise ValueError(f"Patches of width {patches.shape[-1]} do not fit a basis of width {len(basis.mean)}.")
    return ((patches - basis.mean) @ basis.components.T).astype(np.float32)


def align(basis: Basis, patches: Numbers, other: Basis, other_patches: Numbers) -> tuple[Basis, float]:
    """Turn `other` so that its colours mean what those of `basis` mean, where two models see the same image.

    patches [h, w, D] and other_patches [h', w', D']: the image in each model; the second's projection is resized to the
        first's grid to find the rotation. Each basis: `pca` of its own grid; their common number of axes is used, and
        with more than the three that are shown an axis can also be found among the second model's later ones.
    Orthogonal Procrustes (Schoenemann 1966) on scores of equal overall size: a rotation only, which unlike a regression
    or CCA cannot make up a likeness, so what the models see differently stays different in colour.
    Returns the turned basis of the second model (scaled to the first's spread; `explained` belongs to the new axes) and
    what remains different: 0 (the same but for rotation and size) to 1 (nothing in common).
    """
    import torch
    import torch.nn.functional as F
    from scipy.linalg import orthogonal_procrustes

    count = min(len(basis.components), len(other.components))
    target = project(patches, basis)[..., :count]
    source = torch.from_numpy(project(other_patches, other)[..., :count]).permute(2, 0, 1)[None]
    source = F.interpolate(source, size=target.shape[:2], mode="bilinear", antialias=True)[0].permute(1, 2, 0).numpy()
    target, source = (scores.reshape(-1, count).astype(np.float64) for scores in (target, source))
    target, source = target - target.mean(axis=0), source - source.mean(axis=0)
    spread, other_spread = np.linalg.norm(target), np.linalg.norm(source)
    if not spread or not other_spread:  # one of the models sees the same everywhere
        return Basis(other.mean, other.components[:count], other.explained[:count]), 1.0
    turn, likeness = orthogonal_procrustes(
        source / other_spread, target / spread
    )  # turn [K, K]: source @ turn ~ target
    components = turn.T @ other.components[:count] * (spread / other_spread)
    explained = np.square(turn).T @ other.explained[:count]  # axes of a PCA are uncorrelated: variances add up
    return Basis(other.mean, components, explained), float(np.clip(1 - likeness**2, 0, 1))


def components_as_rgb(
    projections: Sequence[np.ndarray],
    components: Sequence[int] = (0, 1, 2),
    percentiles: tuple[float, float] = (1, 99),
    masks: Sequence[np.ndarray] | None = None,
) -> list[np.ndarray]:
    """Three components of each projection [h, w, K] as red, green and blue -> float32 [h, w, 3] each, in [0, 1].

    components: which, counted from 0.   percentiles: of all projections together, per component, that become 0 and 1;
    values beyond them are clipped, a component that is the same everywhere is 0.5.
    masks: bool [h, w] for each; the other patches are black and do not count.
    """
    projections = [_grid(projection) for projection in projections]
    components = list(components)
    known = min(projection.shape[-1] for projection in projections)
    if len(components) != 3 or not all(0 <= index < known for index in components):
        raise ValueError(f"Choose three components between 0 and {known - 1}, not {components}.")
    if masks is None:
        masks = [np.ones(projection.shape[:2], bool) for projection in projections]
    masks = [np.asarray(mask, bool) for mask in masks]
    counted = np.concatenate([p[mask][:, components] for p, mask in zip(projections, masks, strict=True)])
    if not len(counted):
        return [np.zeros((*mask.shape, 3), np.float32) for mask in masks]
    low, high = np.percentile(counted, percentiles, axis=0)
    flat = high <= low
    colors = []
    for projection, mask in zip(projections, masks, strict=True):
        share = (projection[..., components] - low) / np.where(flat, 1.0, high - low)
        share = np.where(flat, 0.5, np.clip(share, 0, 1))
        colors.append(np.where(mask[..., None], share, 0).astype(np.float32))
    return colors


def foreground(projections: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Split projections [h, w, K] of one basis by the sign of their first component -> bool [h, w] each.

    DINOv2 (arXiv 2304.07193, Fig. 9) drops patches with a negative first component; which direction is the object's is
    left to the eye there, here the background is the side that has more of the pictures' borders. All True where the
    first component is 0 everywhere.
    """
    first = [_grid(projection)[..., 0] for projection in projections]
    if not any(scores.any() for scores in first):
        return [np.ones(scores.shape, bool) for scores in first]
    border = np.concatenate([np.concatenate([s[0], s[-1], s[1:-1, 0], s[1:-1, -1]]) for s in first])
    sign = -1 if (border > 0).mean() > 0.5 else 1
    return [sign * scores > 0 for scores in first]


def kmeans(patches: Numbers, k: int = 6, seed: int = 0) -> Clusters:
    """Group patches [h, w, D] by direction: k-means (k-means++, best of ten starts) of the patches at length one.

    Clusters are numbered by size, of equals the one that comes first in reading order. Where there are fewer different
    directions than k, there are so many clusters. Raises ValueError for k under 1, NaN or infinity.
    """
    from sklearn.cluster import KMeans

    if k < 1:
        raise ValueError(f"Ask for at least one cluster, not {k}.")
    patches = _grid(patches)
    rows = _unit(patches.reshape(-1, patches.shape[-1]))
    different = len(np.unique(rows.round(6), axis=0))  # 6 digits: x and 2x have one direction but for rounding
    fitted = KMeans(min(k, different), n_init=10, random_state=seed).fit(rows)
    names, first, counts = np.unique(fitted.labels_, return_index=True, return_counts=True)
    order = np.lexsort((first, -counts))
    renamed = np.zeros(names.max() + 1, np.int64)
    renamed[names[order]] = np.arange(len(names))
    centers = _unit(fitted.cluster_centers_[names[order]])
    return Clusters(renamed[fitted.labels_].reshape(patches.shape[:2]), centers, counts[order] / len(rows))


def patch_norms(patches: Numbers, cut: float = 3.5) -> Norms:
    """Lengths of patches [h, w, D] and which stand out upwards, as "register" artefacts do (arXiv 2309.16588).

    Outliers have a norm above median + `cut` * 1.4826 * MAD, MAD being the median distance from the median, the robust
    z-score that Iglewicz and Hoaglin (1993) advise to cut at 3.5. Where over half of the norms are equal, a millionth
    of the median stands in for the MAD.
    """
    patches = _grid(patches)
    norms = np.linalg.norm(patches.astype(np.float64), axis=-1)
    median = np.median(norms)
    mad = max(np.median(np.abs(norms - median)), 1e-6 * median, np.finfo(np.float32).tiny)
    scores = (norms - median) / (1.4826 * mad)
    return Norms(norms.astype(np.float32), scores.astype(np.float32), scores > cut, float(median + cut * 1.4826 * mad))


def joint_map(
    patches: Numbers,
    words: Numbers,
    neighbors: int = 15,
    min_dist: float = 0.1,
    gap: str = "bridge",
    seed: int = 0,
    tick: Callable[[], object] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Patches [h, w, D] and words [N, D] as points of one plane -> [h, w, 2] and [N, 2] float32, by UMAP on cosines.

    neighbors: whose nearness is kept, the point itself included; fewer where patches are few.
    gap: text and image embeddings fill two cones apart from each other, so a word's nearest neighbours are words.
        "bridge": neighbours of words and of patches are patches. UMAP measures each point's distances from that of its
        nearest neighbour, so the gap falls out and a word lies where its heatmap is highest; patches lie as without it.
        "keep": all are each other's neighbours, which shows the gap.
        Centring each modality is not offered: of one word it leaves nothing, and of few their differences only.
    tick: called some ten times a second while UMAP moves the points, between two of its rounds; what it raises ends
        the map.
    Neighbours are searched exactly and the start is PCA: the same seed gives the same map on one machine, with equal
    patches too. Fewer than 4 different directions are drawn by that PCA alone. N may be 0.
    The first call on a machine compiles UMAP, 8 to 25 s of a core, and keeps that on the disk, see `ready_maps`. Raises
    ValueError for a wrong width or gap.
    """
    if gap not in GAPS:
        raise ValueError(f"Unknown gap '{gap}': use {' or '.join(GAPS)}.")
    if neighbors < 2:
        raise ValueError(f"The number of neighbours must be at least 2, not {neighbors}.")
    patches = _grid(patches)
    shape, width = patches.shape[:2], patches.shape[-1]
    words = _numbers(words, "words") if len(words) else np.zeros((0, width), np.float32)
    if words.ndim != 2 or words.shape[1] != width:
        raise ValueError(f"Words must be rows [N, {width}], as wide as the patches, not {list(words.shape)}.")
    rows = _unit(np.concatenate([patches.reshape(-1, width), words]))
    count = shape[0] * shape[1]
    points = _layout(rows, count if gap == "bridge" else len(rows), neighbors, min_dist, seed, tick)
    return points[:count].reshape(*shape, 2), points[count:]


def ready_maps() -> None:
    """Have UMAP's compiled code in this process before the first map: from the disk, or compiled and kept there.

    Measured on two cores: 0.2 s where an earlier process has kept it, 8 s of a core where none has, and 25 s where the
    library below it, pynndescent, was never compiled either.
    """
    joint_map(np.random.default_rng(0).normal(size=(8, 8, 4)), np.ones((1, 4)), neighbors=5)


@functools.cache
def _umap() -> type:
    """UMAP's class. Its authors have numba compile it anew in every process; here it is kept where numba keeps the rest
    (beside the library, or in the user's cache: NUMBA_CACHE_DIR), which changes no number.
    """
    import umap
    from numba.core.registry import CPUDispatcher
    from umap import layouts, umap_

    for module in (umap_, layouts):
        for function in vars(module).values():
            if isinstance(function, CPUDispatcher) and function.py_func.__module__ == module.__name__:
                with contextlib.suppress(RuntimeError):  # nothing can be written: compiled anew then
                    function.enable_caching()
    return umap.UMAP


def _layout(
    rows: np.ndarray,
    anchors: int,
    neighbors: int,
    min_dist: float,
    seed: int,
    tick: Callable[[], object] | None = None,
) -> np.ndarray:
    """Unit rows [M, D] -> [M, 2]; the first `anchors` rows are everyone's neighbours, the others nobody's."""
    import warnings

    from sklearn.neighbors import NearestNeighbors

    inside, outside = rows[:anchors], rows[anchors:]
    start = project(rows[None], pca([inside[None]], count=2))[0]
    nearest = NearestNeighbors(n_neighbors=max(1, min(neighbors, anchors - 1) - 1), metric="cosine", algorithm="brute")
    nearest.fit(inside)
    if len(outside):  # to its nearest patch: along the axes of the patches the gap would throw a word far out
        start[anchors:] = start[nearest.kneighbors(outside, 1, return_distance=False)[:, 0]]
    if len(np.unique(inside.round(6), axis=0)) < 4:
        return start
    distances, indices = nearest.kneighbors()  # of each but itself
    if len(outside):
        more, which = nearest.kneighbors(outside)
        distances, indices = np.vstack([distances, more]), np.vstack([indices, which])
    # UMAP wants each point as its own first neighbour, at distance 0.
    distances = np.hstack([np.zeros((len(rows), 1)), distances]).astype(np.float32)
    indices = np.hstack([np.arange(len(rows))[:, None], indices]).astype(np.int32)
    with warnings.catch_warnings():  # it says that new points cannot be added later, which nobody asks for
        warnings.simplefilter("ignore", UserWarning)
        return _umap()(
            n_neighbors=distances.shape[1],
            min_dist=min_dist,
            metric="cosine",
            init=start / start.std(),
            precomputed_knn=(indices, distances),
            random_state=seed,
            n_jobs=1,
            tqdm_kwds=None if tick is None else dict(disable=False, file=_Ticking(tick), mininterval=0.1),
        ).fit_transform(rows)


class _Ticking:
    """What UMAP's progress bar is written to, its only way to tell how far it is; nothing is shown."""

    def __init__(self, tick: Callable[[], object]):
        self.tick = tick

    def write(self, text: str) -> None:
        self.tick()

    def flush(self) -> None:
        pass


def _grid(patches: Numbers) -> np.ndarray:
    patches = _numbers(patches, "patches")
    if patches.ndim != 3 or not patches.size:
        raise ValueError(f"Patches must be a grid [h, w, D], not {list(patches.shape)}; several grids go in a list.")
    return patches


def _numbers(values: Numbers, what: str) -> np.ndarray:
    """A tensor on any device or an array -> float32."""
    if hasattr(values, "detach"):
        values = values.detach().float().cpu().numpy()
    values = np.asarray(values, np.float32)
    if not np.isfinite(values).all():
        raise ValueError(f"The {what} hold NaN or infinity: load the model in float32, or check its weights.")
    return values


def _unit(rows: np.ndarray) -> np.ndarray:
    """Rows at length one, float32; rows of zeros stay."""
    rows = np.asarray(rows, np.float32)
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), np.finfo(np.float32).tiny)
