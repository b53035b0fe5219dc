"""Is this picture of a kind that the encoder learned from? An encoder of drawings answers on a photograph as well.

A logistic regression of the mean and the spread of a picture's patches (directions of the last layer's value
features), fitted by `python -m tipsv2 calibrate ... --unlike PICTURES` to pictures of the kind that the encoder knows
against others, and kept in verdict.json. Without it every picture counts as known.
Sizes: h x w patches, D embedding width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class Familiar:
    """weights: of the 2 D numbers of `summary`; bias: of the regression. least: likelihood, in [0, 1], from which a
    picture is of a known kind: at most one in twenty others reaches it.   unlike: what it was told from, one text a
    collection.   figures: of other pictures than those it was fitted to.
    """

    weights: tuple[float, ...]
    bias: float
    least: float
    unlike: tuple[str, ...] = ()
    figures: dict | None = None

    def likelihood(self, numbers: Sequence[float]) -> float:
        """In [0, 1]. numbers: as `summary` gives them."""
        odds = self.bias + math.fsum(w * x for w, x in zip(self.weights, numbers, strict=True))
        return 1 / (1 + math.exp(-max(-500.0, min(500.0, odds))))

    def holds(self, patches: torch.Tensor) -> bool:
        """Does the encoder know this kind of picture? patches: [h, w, D], its value features, of any length. Raises
        ValueError where this is of another encoder.
        """
        numbers = summary(patches)
        if len(numbers) != len(self.weights):
            raise ValueError(
                f"Kinds of pictures are told by {len(self.weights)} numbers, but this encoder gives {len(numbers)}: "
                "write its verdict.json anew with python -m tipsv2 calibrate."
            )
        return self.likelihood(numbers) >= self.least

    @classmethod
    def of(cls, content: dict) -> Familiar:
        """What a verdict.json holds. Raises KeyError, TypeError or ValueError where that is no such thing."""
        weights = tuple(map(float, content["weights"]))
        bias, least = float(content["bias"]), float(content["least"])
        if not weights or not all(map(math.isfinite, (*weights, bias, least))):
            raise ValueError("what is familiar is not finite")
        return cls(weights, bias, least, tuple(map(str, content.get("unlike", ()))), content.get("figures"))


def summary(patches: torch.Tensor) -> list[float]:
    """Mean and standard deviation over the directions of [h, w, D] patches, two at least -> 2 D numbers."""
    directions = F.normalize(patches.float().flatten(0, -2), dim=-1)
    return torch.cat([directions.mean(dim=0), directions.std(dim=0)]).tolist()
