"""Who comes first among many: queries against candidates by cosine, a slab of the table at a time.

    ranks = rank(queries, candidates, answers)        # [Q, D], [N, D], the numbers of each query's right candidates
    (ranks.first < 1).mean(), ranks.precision.mean()  # recall at 1, mean average precision

The whole table of UnED's GLDv2 would be 7 GB, of iNaturalist's 140.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tipsv2.analysis.metrics import answer_ranks, average_precision
from tipsv2.records import bootstrap

SLAB = 2**24  # scores at a time
TOP = (1, 5)
NEAREST = 5  # candidates remembered for the pictures


@dataclass(frozen=True)
class Ranking:
    """What `rank` found for Q queries."""

    first: np.ndarray  # int64 [Q], how many wrong candidates stand before the best right one
    precision: np.ndarray  # float64 [Q], average precision; empty where it was not asked for
    nearest: np.ndarray  # int64 [Q, k], the best candidates, right or wrong, best first


def rank(
    queries: torch.Tensor,
    candidates: torch.Tensor,
    answers: Sequence[np.ndarray],
    own: np.ndarray | None = None,
    precision: bool = False,
) -> Ranking:
    """Rank candidates [N, D] for queries [Q, D], unit rows; ties count against the query.

    answers: the numbers of each query's right candidates.   own: int64 [Q], the candidate that is the query itself and
    is left out, -1 for none.   precision: also the average precision of each.
    """
    first, means, nearest = [], [], []
    for rows, scores in _slabs(queries, candidates):
        right = np.zeros(scores.shape, bool)
        for k, numbers in enumerate(answers[rows]):
            right[k, numbers] = True
        if own is not None:
            there = np.flatnonzero(own[rows] >= 0)
            scores[there, own[rows][there]] = -torch.inf
            right[there, own[rows][there]] = False
        table = scores.numpy()
        first.append(answer_ranks(table, right))
        if precision:
            means.append(average_precision(table, right))
        nearest.append(scores.topk(min(NEAREST, scores.shape[1])).indices.numpy())
    empty = np.zeros(0)
    return Ranking(np.concatenate(first), np.concatenate(means) if means else empty, np.concatenate(nearest))


def nearest(queries: torch.Tensor, candidates: torch.Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k best candidates of each query, best first: their cosines float32 [Q, k] and numbers int64 [Q, k]."""
    best = [scores.topk(min(k, scores.shape[1])) for _, scores in _slabs(queries, candidates)]
    return torch.cat([values for values, _ in best]).numpy(), torch.cat([numbers for _, numbers in best]).numpy()


def top(ranks: np.ndarray) -> dict[str, float]:
    """Top-1 and top-5 accuracy of the ranks of the right classes, int [N], 0 for the best."""
    return {f"top{k}": round(float((ranks < k).mean()), 4) for k in TOP}


def by_chance(classes: int) -> dict[str, float]:
    """What `top` is on average in random order."""
    return {f"top{k}": round(min(1.0, k / classes), 4) for k in TOP}


def interval(values: np.ndarray, counts: np.ndarray | None = None) -> list[float] | None:
    """The 95 % interval of a mean over samples, [low, high]; None for fewer than two samples.

    values: [N] sums over each sample, `counts` [N] of so many items: the captions of one image are drawn together.
    """
    values = np.asarray(values, np.float64)
    counts = np.ones(len(values)) if counts is None else np.asarray(counts, np.float64)
    if len(values) < 2:
        return None
    low, high = bootstrap(len(values), lambda weights: float(weights @ values / (weights @ counts)))
    return [round(low, 4), round(high, 4)]


def _slabs(queries: torch.Tensor, candidates: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
    step = max(1, SLAB // len(candidates))
    for start in range(0, len(queries), step):
        yield slice(start, start + step), queries[start : start + step] @ candidates.T
