"""Layer by layer: how alike two encoders' patches are in each layer (linear CKA), and where patches follow the words.

Depths, widths and patch grids may differ. Layers are numbered 1 to L as in `Encoder.encode_layers`.
Sizes: N queries, n = h x w patches, D and D' widths, L layers.

    from tipsv2.analysis.layers import layer_cka, layer_scores
    teacher, student = (encoder.encode_layers("dog.jpg") for encoder in encoders)
    layer_cka([(teacher, student)])                                     # [L of teacher, L of student]
    layer_scores(student, encoders[1].encode_text(["a dog"]))           # "sharpness", [L, 1]
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from tipsv2.analysis.alignment import checked_masks, standardise
from tipsv2.analysis.heatmap import maps
from tipsv2.analysis.metrics import auroc

if TYPE_CHECKING:
    from tipsv2.network.view import ImageFeatures

MOST_SIDE = 32  # patches a side that CKA looks at: its Gram matrices hold n * n numbers for every layer


def linear_cka(x: torch.Tensor, y: torch.Tensor, debiased: bool = True) -> float:
    """Linear CKA (Kornblith et al., arXiv 1905.00414) of the same n items in two spaces: x [n, D], y [n, D'] -> float.

    1 where one is a rotation and uniform scaling of the other, 0 where they have nothing in common; undefined if one is
    constant. debiased: with the unbiased estimate of HSIC (Song et al., JMLR 2012), at most 1, around 0 and so at times
    below it for unrelated spaces; plain CKA is far above 0 for those unless n is far above D. Needs n of 4 or more.
    """
    a, b = _centred_gram(x, debiased), _centred_gram(y, debiased)
    return float(a @ b / (a.norm() * b.norm()))


def layer_cka(
    pairs: Iterable[tuple[Mapping[int, ImageFeatures], Mapping[int, ImageFeatures]]], debiased: bool = True
) -> np.ndarray:
    """`linear_cka` of every layer of A with every layer of B over an image's patches -> float64 [L of A, L of B].

    pairs: for each image what `Encoder.encode_layers` of A and of B returned; may be a generator. Patches are averaged
    to the smaller of the two grids, MOST_SIDE a side at most. Several images as in minibatch CKA (Nguyen et al.,
    arXiv 2010.15327): HSIC is averaged over them before the ratio is taken.
    """
    totals: list[torch.Tensor] = []  # the cross term, and each side's own
    for a, b in pairs:
        shapes = [next(iter(layers.values())).patches.shape[:2] for layers in (a, b)]
        grid = (min(MOST_SIDE, *(rows for rows, _ in shapes)), min(MOST_SIDE, *(columns for _, columns in shapes)))
        grams_a, grams_b = (_layer_grams(layers, grid, debiased) for layers in (a, b))
        count = grid[0] * grid[1]
        weight = 1 / (count * (count - 3)) if debiased else 1 / (count - 1) ** 2
        sums = grams_a @ grams_b.T, grams_a.square().sum(dim=1), grams_b.square().sum(dim=1)
        terms = [weight * value.double() for value in sums]
        totals = [total + term for total, term in zip(totals, terms, strict=True)] if totals else terms
    if not totals:
        raise ValueError("Give at least one image to compare layers on.")
    cross, own_a, own_b = totals
    return (cross / (own_a[:, None] * own_b[None]).sqrt()).numpy()


def layer_scores(
    layers: Mapping[int, ImageFeatures],
    text: torch.Tensor,
    masks: Sequence[np.ndarray | None] | None = None,
    features: str = "values",
) -> tuple[str, np.ndarray]:
    """In which layer do patches follow the words? layers: of `Encoder.encode_layers`; text [N, D], masks, features: as
    in `compare_maps` and `tipsv2.analysis.heatmap`.

    Returns ("auroc", table) if any query has a mask, else ("sharpness", table), as in MapScore; the table is float64
    [L, N], nan for queries without a mask beside some with one.
    """
    table, measure = [], "sharpness"
    for layer in layers.values():
        pixels = maps(layer, text, features).numpy()
        checked = checked_masks(masks, len(text), pixels.shape[1:])
        if any(mask is not None for mask in checked):
            measure = "auroc"
            table.append([np.nan if m is None else auroc(values, m) for values, m in zip(pixels, checked, strict=True)])
        else:
            table.append(standardise(pixels).max(axis=(1, 2)))
    return measure, np.array(table, dtype=np.float64)


def _centred_gram(x: torch.Tensor, debiased: bool) -> torch.Tensor:
    """x [n, D] -> its Gram matrix, centred, flat [n * n]; CKA of two spaces is the cosine of their two.

    debiased: U-centred (Szekely and Rizzo, Ann. Stat. 2014), whose dot product is Song's unbiased HSIC times n (n - 3).
    """
    count = len(x)
    if count < (4 if debiased else 2):
        raise ValueError(f"CKA needs at least 4 patches to compare, not {count}: raise the resolution.")
    x = x - x.mean(dim=0)  # already centres the plain Gram matrix; changes the other only in its rounding
    gram = x @ x.T
    if debiased:
        gram.fill_diagonal_(0)
        sums = gram.sum(dim=0) / (count - 2)
        gram += sums.sum() / (count - 1) - sums[:, None] - sums[None]
        gram.fill_diagonal_(0)
    return gram.flatten()


def _layer_grams(layers: Mapping[int, ImageFeatures], grid: tuple[int, int], debiased: bool) -> torch.Tensor:
    """The patches of every layer, averaged to `grid` -> centred Gram matrices [L, n * n]."""
    grids = (layer.patches.permute(2, 0, 1) for layer in layers.values())
    return torch.stack(
        [_centred_gram(F.adaptive_avg_pool2d(patches, grid).flatten(1).T, debiased) for patches in grids]
    )
