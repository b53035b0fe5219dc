"""Numbers out of label maps and similarity tables. A leaf: numpy in, floats out.

Sizes: C classes, Q queries, N candidates.
"""

from __future__ import annotations

import math

import numpy as np


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


def recall_at_k(scores: np.ndarray, relevant: np.ndarray, k: int) -> float:
    """Part of the queries with a right answer among their k best candidates.

    scores: [Q, N], higher is better.   relevant: [Q] index of the one right candidate, or [Q, N] bool where several are
    (an image with five captions). Ties count against the query: a candidate is ranked behind every equal one, so a
    table of constants does not look perfect.
    """
    scores, relevant = np.asarray(scores, dtype=np.float64), np.asarray(relevant)
    if k < 1 or scores.ndim != 2 or not scores.size:
        raise ValueError(
            f"recall_at_k needs k of at least 1 and scores [queries, candidates], not {k}, {scores.shape}."
        )
    if relevant.dtype != np.bool_:
        if relevant.shape != scores.shape[:1] or not ((relevant >= 0) & (relevant < scores.shape[1])).all():
            raise ValueError(
                f"relevant must hold one candidate of {scores.shape[1]} for each of {scores.shape[0]} queries."
            )
        relevant = np.arange(scores.shape[1]) == relevant[:, None]
    if relevant.shape != scores.shape:
        raise ValueError(f"relevant {relevant.shape} and scores {scores.shape} must have the same shape.")
    # Every relevant candidate counts as found if fewer than k wrong ones score as high as it does.
    best = np.where(relevant, scores, -np.inf).max(axis=1, keepdims=True)
    ahead = (~relevant & (scores >= best)).sum(axis=1)
    return float(((ahead < k) & relevant.any(axis=1)).mean())


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
