"""Numbers out of label maps, similarity tables and heatmaps with masks. A leaf: numpy in, floats out.

Sizes: C classes, Q queries, N candidates, H x W pixels.
"""

from __future__ import annotations

import math

import numpy as np

UNFOUND = np.iinfo(np.int64).max  # the rank of what is not among the candidates


def confusion_matrix(
    target: np.ndarray, predicted: np.ndarray, num_classes: int, ignore: int | None = -1
) -> np.ndarray:
    """Counts [C, C] int64, row = target, column = prediction; add those of many images for a data set's numbers.

    target, predicted: integer arrays of one shape, values in 0..C-1. Where the target is `ignore` nothing is counted.
    """
    target, predicted = np.asarray(target), np.asarray(predicted)
    if target.shape != predicted.shape:
        raise ValueError(f"Target {target.shape} and prediction {predicted.shape} must have the same shape.")
    keep = np.ones(target.shape, bool) if ignore is None else target != ignore
    target, predicted = target[keep].astype(np.int64), predicted[keep].astype(np.int64)
    for name, values in (("target", target), ("prediction", predicted)):
        if values.size and not 0 <= values.min() <= values.max() < num_classes:
            raise ValueError(
                f"The {name} holds labels from {values.min()} to {values.max()}, outside the {num_classes} classes."
            )
    return np.bincount(target * num_classes + predicted, minlength=num_classes**2).reshape(num_classes, num_classes)


def class_iou(confusion: np.ndarray) -> np.ndarray:
    """Intersection over union of each class, [C] float64; nan for a class in neither target nor prediction."""
    hits = np.diag(confusion).astype(np.float64)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - hits
    return np.divide(hits, union, out=np.full(len(hits), np.nan), where=union > 0)


def mean_iou(confusion: np.ndarray) -> float:
    """Mean of `class_iou` over the classes that occur in target or prediction; nan if none does."""
    iou = class_iou(confusion)
    return float(np.nanmean(iou)) if np.isfinite(iou).any() else float("nan")


def accuracy(confusion: np.ndarray) -> float:
    """Part of all counted items on the diagonal; nan if nothing was counted."""
    total = confusion.sum()
    return float(np.trace(confusion) / total) if total else float("nan")


def answer_ranks(scores: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """How many wrong candidates stand before each query's best right one, int64 [Q]: 0 is found at once.

    scores: [Q, N], higher is better.   relevant: [Q] index of the one right candidate, or [Q, N] bool where several are
    (an image with five captions). Ties count against the query: a candidate is ranked behind every equal one, so a
    table of constants does not look perfect. UNFOUND where a query has no right candidate.
    """
    scores, relevant = np.asarray(scores, dtype=np.float64), np.asarray(relevant)
    if scores.ndim != 2 or not scores.size:
        raise ValueError(f"Ranks need scores [queries, candidates] of at least one each, not {scores.shape}.")
    if relevant.dtype != np.bool_:
        if relevant.shape != scores.shape[:1] or not ((relevant >= 0) & (relevant < scores.shape[1])).all():
            raise ValueError(
                f"relevant must hold one candidate of {scores.shape[1]} for each of {scores.shape[0]} queries."
            )
        relevant = np.arange(scores.shape[1]) == relevant[:, None]
    if relevant.shape != scores.shape:
        raise ValueError(f"relevant {relevant.shape} and scores {scores.shape} must have the same shape.")
    best = np.where(relevant, scores, -np.inf).max(axis=1, keepdims=True)
    ahead = (~relevant & (scores >= best)).sum(axis=1)
    return np.where(relevant.any(axis=1), ahead, UNFOUND)


def recall_at_k(scores: np.ndarray, relevant: np.ndarray, k: int) -> float:
    """Part of the queries with a right answer among their k best candidates; see `answer_ranks`."""
    if k < 1:
        raise ValueError(f"recall_at_k needs k of at least 1, not {k}.")
    return float((answer_ranks(scores, relevant) < k).mean())


def average_precision(scores: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """The mean, over a query's right candidates, of the part of right ones among all down to there: float64 [Q].

    scores: [Q, N], higher is better.   relevant: [Q, N] bool. Among equals the wrong ones stand first, as in
    `answer_ranks`; without ties it is scikit-learn's average_precision_score. 0 where a query has no right candidate.
    """
    scores, relevant = np.asarray(scores), np.asarray(relevant)
    if scores.ndim != 2 or scores.shape != relevant.shape or relevant.dtype != np.bool_:
        raise ValueError(f"Scores {scores.shape} and relevant {relevant.shape} (bool) must be [queries, candidates].")
    precisions = np.zeros(len(scores))
    for query, (row, right) in enumerate(zip(scores, relevant, strict=True)):
        if right.any():
            hits = np.sort(row[right])[::-1]
            wrong = row[~right & (row >= hits[-1])]  # only these can stand before a right one
            ahead = wrong.size - np.searchsorted(np.sort(wrong), hits)
            place = np.arange(1, hits.size + 1)
            precisions[query] = (place / (place + ahead)).mean()
    return precisions


def chance_recall_at_k(relevant: np.ndarray, k: int) -> float:
    """What `recall_at_k` is on average if the candidates come in random order.

    relevant: [Q, N] bool. A query with r right answers among N misses them all in k draws without replacement with
    probability C(N - r, k) / C(N, k).
    """
    relevant = np.asarray(relevant)
    if k < 1 or relevant.ndim != 2 or not relevant.size or relevant.dtype != np.bool_:
        raise ValueError(f"chance_recall_at_k needs k of at least 1 and bool [queries, candidates], not {k}.")
    candidates = relevant.shape[1]
    k = min(k, candidates)
    ways, many = np.unique(relevant.sum(axis=1), return_counts=True)
    misses = [math.comb(candidates - int(right), k) / math.comb(candidates, k) for right in ways]
    return float(1 - np.average(misses, weights=many))


def auroc(scores: np.ndarray, mask: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a pixel inside the mask scores higher than one outside, ties half.

    scores, mask (bool): of one shape. 0.5 is chance, 1 perfect; no threshold and no scale enters, so encoders whose
    cosines have different ranges can be compared. nan where the mask marks nothing or everything.
    """
    inside, outside = _inside_outside(scores, mask)
    if not inside.size or not outside.size:
        return float("nan")
    inside, outside = np.sort(inside), np.sort(outside)  # the inside only because looking up in order is far faster
    below, not_above = (np.searchsorted(outside, inside, side) for side in ("left", "right"))
    return float((below.mean() + not_above.mean()) / (2 * outside.size))


def mask_iou(scores: np.ndarray, mask: np.ndarray, threshold: float | None = None) -> tuple[float, float]:
    """Intersection over union of `scores >= threshold` and the mask (bool, same shape) -> (IoU, the threshold used).

    threshold: None takes the one that gives the highest IoU (of equals the highest), found with the mask's help: what
    the map could reach, not what a user without the mask would get. (nan, nan) where the mask marks nothing.
    """
    inside, outside = _inside_outside(scores, mask)
    if not inside.size:
        return float("nan"), float("nan")
    inside, outside = np.sort(inside), np.sort(outside)
    # IoU can only fall from one pixel inside the mask to the next, so the best threshold is one of their values.
    levels = inside[::-1] if threshold is None else np.array([threshold])
    hits = inside.size - np.searchsorted(inside, levels)
    iou = hits / (inside.size + outside.size - np.searchsorted(outside, levels))
    best = int(iou.argmax())
    return float(iou[best]), float(levels[best])


def pointing_hit(scores: np.ndarray, mask: np.ndarray, tolerance: float = 15) -> bool:
    """The pointing game: does the highest pixel of scores [H, W] lie in the mask [H, W] bool, or `tolerance` pixels
    (Euclidean, inclusive) away from it at most? Of equally high pixels the first, row by row, points.

    15 pixels are the game's own margin (Zhang et al., Top-down Neural Attention by Excitation Backprop, IJCV 2018,
    arXiv 1608.00507); 0 asks for the mask itself.
    """
    scores, mask = _same_shape(scores, mask)
    if tolerance < 0:
        raise ValueError(f"The tolerance must be 0 pixels or more, not {tolerance}.")
    row, col = np.unravel_index(int(scores.argmax()), scores.shape)
    rows, cols = mask.nonzero()
    return bool(((rows - row) ** 2 + (cols - col) ** 2 <= tolerance**2).any())


def mask_margin(scores: np.ndarray, mask: np.ndarray) -> float:
    """Mean score inside the mask (bool, same shape) minus the mean outside, in the scores' own units; nan where the
    mask marks nothing or everything.
    """
    inside, outside = _inside_outside(scores, mask)
    return float(inside.mean() - outside.mean()) if inside.size and outside.size else float("nan")


def peak_margins(maps: np.ndarray) -> np.ndarray:
    """Where each map is highest, by how much does it beat the best of the others there? maps [Q, H, W] -> [Q] float64.

    Negative where another query scores higher at this query's own peak; nan if there is only one map.
    """
    maps = np.asarray(maps, dtype=np.float64).reshape(len(maps), -1)
    if len(maps) < 2:
        return np.full(len(maps), np.nan)
    there = maps[:, maps.argmax(axis=1)]  # [Q, Q]: column q holds what every map says at q's peak
    own = there.diagonal().copy()
    np.fill_diagonal(there, -np.inf)
    return own - there.max(axis=0)


def _inside_outside(scores: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores, mask = _same_shape(scores, mask)
    return scores[mask], scores[~mask]


def _same_shape(scores: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores, mask = np.asarray(scores, dtype=np.float64), np.asarray(mask)
    if mask.dtype != np.bool_ or scores.shape != mask.shape or not np.isfinite(scores).all():
        raise ValueError(
            f"A mask must be bool and have the shape of its finite scores {scores.shape}, "
            f"not {mask.dtype} {mask.shape}."
        )
    return scores, mask
