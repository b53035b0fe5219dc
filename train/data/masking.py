"""Random patch masks from an explicit generator: the same generator state gives the same mask."""

from __future__ import annotations

import torch
from torch import Tensor


def random_mask(batch: int, patches: int, ratio: float, generator: torch.Generator | None = None) -> Tensor:
    """Mask exactly round(ratio * patches) patches of every image, uniformly at random (TIPSv2: 0.75, not blocks).

    Returns: [batch, patches] bool, True = masked.
    Raises: ValueError if ratio is outside [0, 1].
    """
    if not 0 <= ratio <= 1:
        raise ValueError(f"mask ratio {ratio} is outside 0 to 1.")
    scores = torch.rand(batch, patches, generator=generator)
    return scores.argsort(dim=1).argsort(dim=1) < round(ratio * patches)


def random_words(words: Tensor, ratio: float, generator: torch.Generator | None = None) -> Tensor:
    """Mask round(ratio * n) of the n words of every caption, uniformly at random; at least one if ratio is above 0.

    words: [B, L] bool, False for padding and special tokens, which are never masked.
    Returns: [B, L] bool, True = masked.
    Raises: ValueError if ratio is outside [0, 1].
    """
    if not 0 <= ratio <= 1:
        raise ValueError(f"mask ratio {ratio} is outside 0 to 1.")
    scores = torch.rand(words.shape, generator=generator).masked_fill(~words, 2.0)
    counts = (ratio * words.sum(1)).round().clamp(min=1 if ratio else 0)
    return words & (scores.argsort(dim=1).argsort(dim=1) < counts[:, None])
