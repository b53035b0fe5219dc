"""Losses of names against patches and pictures, as pure functions: tensors and floats in, a scalar out, in fp32.

B images, N patches, C names, K classes of a classifier, G groups of classes, R rows: patches of any images together.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

OTHERS = 10  # patches, see `places`


def named(logits: Tensor, labels: Tensor, weights: Tensor, average: Callable[[Tensor], Tensor] = lambda x: x) -> Tensor:
    """Weighted mean over rows of - log softmax(logits)[own name].

    Args:
        logits: [R, C]. labels: [R] int64; -1 = none, no part of the mean. weights: [R], 0 or more.
        average: the mean of a number over processes, so that a row weighs the same in whichever it is.
    """
    weights = weights.float() * (labels >= 0)
    each = F.cross_entropy(logits.float(), labels.clamp(min=0), reduction="none")
    return (each * weights).sum() / average(weights.sum()).clamp(min=1e-6)


def binary(
    logits: Tensor, targets: Tensor, weights: Tensor, average: Callable[[Tensor], Tensor] = lambda x: x
) -> Tensor:
    """Every name for itself: weighted mean over rows of the sum over names of - log of the right answer's probability.

    p = sigmoid(logits) for a name that is there, 1 - p for one that is not; a target between the two mixes both. The
    sigmoid loss of SigLIP (arXiv 2303.15343), of patches or pictures and names in place of pairs.

    Args:
        logits: [R, C], scale * cosine + bias. targets: [R, C] in [0, 1]. weights: [R], 0 or more.
        average: as in `named`.
    """
    weights = weights.float()
    each = F.binary_cross_entropy_with_logits(logits.float(), targets.float(), reduction="none").sum(-1)
    return (each * weights).sum() / average(weights.sum()).clamp(min=1e-6)


def soft_named(
    logits: Tensor, classes: Tensor, chance: Tensor, average: Callable[[Tensor], Tensor] = lambda x: x
) -> Tensor:
    """Cross-entropy of the likeliest classes: - sum_k chance_k log softmax(logits)[classes_k], a mean over rows in
    which each weighs what its likeliest class has: where a classifier is unsure it says little.

    Args:
        logits: [R, K]. classes: [R, n] int64, likeliest first. chance: [R, n]; a row may sum to less than 1.
        average: as in `named`.
    """
    chance = chance.float()
    weights = chance[:, 0]
    each = -(logits.float().log_softmax(-1).gather(-1, classes) * chance).sum(-1)
    return (each * weights).sum() / average(weights.sum()).clamp(min=1e-6)


def places(
    cosines: Tensor,
    labels: Tensor,
    share: Tensor,
    scale: float,
    least: float,
    average: Callable[[Tensor], Tensor] = lambda x: x,
) -> Tensor:
    """Where in its picture is a name? Each patch of it against all labelled patches that are not.

    softplus(log sum_n exp(scale * cos_n) - log OTHERS - scale * cos_own), n over the others: 0 for a patch that lies
    well above them, so that a few wrong ones count and not how many there are. The mean over a name's patches, then
    over names and pictures that have both kinds. It asks what a heatmap shows, within one picture and name.

    Args:
        cosines: [B, N, C]. labels: [B, N] int64, -1 = none. share: [B, N]; a name's patches have `least` or more.
        scale: positive. average: as in `named`.
    """
    logits = cosines.float() * scale
    own = F.one_hot(labels.clamp(min=0), cosines.shape[-1]).bool() & (labels >= 0)[..., None]
    others = ~own & (labels >= 0)[..., None]
    own = own & (share >= least)[..., None]
    valid = (own.any(1) & others.any(1)).float()  # [B, C]
    against = logits.masked_fill(~others, -1e4).logsumexp(1, keepdim=True) - math.log(OTHERS)
    each = (F.softplus(against - logits) * own).sum(1) / own.sum(1).clamp(min=1)
    return (each * valid).sum() / average(valid.sum()).clamp(min=1e-6)


def group_chances(classes: Tensor, chance: Tensor, members: Tensor) -> Tensor:
    """How likely a patch shows any class of a group: sums of its likeliest classes.

    Args:
        classes: [R, n] int64. chance: [R, n]. members: [K, G], 1 where a class is of a group.
    Returns: [R, G] in [0, 1].
    """
    every = torch.zeros(len(classes), len(members), device=chance.device).scatter_add_(1, classes, chance.float())
    return (every @ members.float()).clamp(0, 1)


def present(labels: Tensor, share: Tensor, names: int, least: float) -> Tensor:
    """Which names are in a picture: those that `least` or more of some patch shows.

    Args:
        labels: [B, N] int64, -1 = none. share: [B, N], of the patch that shows its label. names: how many there are.
    Returns: [B, C] of 0 and 1.
    """
    seen = torch.where((labels >= 0) & (share >= least), labels, names)
    return torch.zeros(len(labels), names + 1, device=labels.device).scatter_(1, seen, 1.0)[:, :names]
