"""What the terms on kept crops look at: one set's crops of a step after all blocks, and the names they may show.

Sizes: B crops, N patches, D width, C names of the set, K classes of a classifier, G groups of classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from train.objectives.scales import Scales


@dataclass(frozen=True)
class KeptView:
    """Features and names are of unit length. `part` holds the set's other tensors, see `train.data.kept.batches`."""

    cls: tuple[Tensor, Tensor]  # the two CLS tokens, each [B, D]
    features: dict[str, Tensor]  # "final" and, where they count, "values": [B, N, D]
    counts: dict[str, float]  # of either: what its losses count
    part: dict[str, Tensor]
    names: Tensor | None  # [C, D] of the labels
    classes: Tensor | None  # [K, D]
    groups: Tensor | None  # [G, D]
    members: Tensor  # [K, G]
    captions: Tensor | None  # [B, 2, D] for the two CLS
    scales: Scales
    targets: dict[str, Tensor] | None  # features of a teacher, as `features`

    def kinds(self) -> Iterator[tuple[str, float, Tensor]]:
        """("final", what it counts, its patches), and the same of values."""
        for kind, patches in self.features.items():
            yield kind, self.counts[kind], patches


def unit(features: Tensor) -> Tensor:
    """To length one along the last dimension, float32."""
    return F.normalize(features.float(), dim=-1)


def cosines(features: Tensor, names: Tensor) -> Tensor:
    """[..., D] and [C, D], both of unit length -> [..., C] float32, also under autocast."""
    with torch.autocast(features.device.type, enabled=False):
        return features @ names.T
