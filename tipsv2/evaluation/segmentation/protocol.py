"""The words of a data set's classes, and what a picture's features say of its pixels with them.

    view = View(448, resample="bicubic")            # mode "whole" of TIPSv2's notebook; "slide" has windows, too
    (features,) = look(encoder, [image], view, ("values",))
    guess(features, "values", text, words, truth.shape)     # [H, W] classes

How pictures are looked at is `tipsv2.network.view`, how features become labels `tipsv2.analysis.segmentation.label`:
`python -m tipsv2 segment` gives the same labels.
Sizes: C rows of text, D width, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from tipsv2.analysis.segmentation import label
from tipsv2.network import view as views
from tipsv2.network.view import ImageFeatures, View

if TYPE_CHECKING:
    from tipsv2.network.encoder import Encoder

OUTPUT_OF = {"values": "values", "final": "patches"}  # of Encoder.encode_pixels


@dataclass(frozen=True)
class Words:
    """What the patches are compared with, and which class each of these words stands for."""

    rows: tuple[str, ...]
    owners: np.ndarray  # int64 [C]: class of each row
    background: int | None = None
    threshold: float | None = None  # what scores below is background

    @classmethod
    def of(
        cls, classes: Sequence[str], background: int | None = None, rule: float | Sequence[str] | None = None
    ) -> Words:
        """classes: of the data set.   background: the one of them that is the background.   rule: words for it, or the
        score under which a pixel is background, by default the class's own name. Raises ValueError on a rule without a
        background, or without a word.
        """
        if background is None:
            if rule is not None:
                raise ValueError("This data set has no background class: leave the background out.")
            return cls(tuple(classes), np.arange(len(classes)))
        others = [k for k in range(len(classes)) if k != background]
        if isinstance(rule, int | float):
            return cls(tuple(classes[k] for k in others), np.array(others), background, float(rule))
        words = [classes[background]] if rule is None else list(rule)
        if not words:
            raise ValueError("Give at least one word for the background, or a number.")
        rows = (*(classes[k] for k in others), *words)
        return cls(rows, np.array(others + [background] * len(words)), background)

    @property
    def rule(self) -> float | list[str]:
        """The rule, as a record shows it."""
        words = [row for row, owner in zip(self.rows, self.owners, strict=True) if owner == self.background]
        return words if self.threshold is None else self.threshold


def layer_of(features: str, num_layers: int) -> int | None:
    """ "layer:5" -> 5, None for "values" and "final". Raises ValueError on other features and layers."""
    if features in OUTPUT_OF:
        return None
    kind, _, number = features.partition(":")
    if kind != "layer" or not number.isdigit() or not 1 <= int(number) <= num_layers:
        raise ValueError(f"features={features!r} is unknown; choose values, final, or layer:1 to layer:{num_layers}.")
    return int(number)


def look(encoder: Encoder, images: Sequence, view: View, kinds: Sequence[str]) -> list[ImageFeatures]:
    """The features of pictures, where the encoder made them, with what these kinds of features need and no more.

    kinds: "values", "final" or both; or one layer, "layer:5", whose patches are then `patches`. Raises ValueError on
    others.
    """
    others = [kind for kind in kinds if kind not in OUTPUT_OF]
    if others and len(kinds) > 1:
        raise ValueError(f"features={others[0]!r} is looked at alone.")
    layer = layer_of(others[0], encoder.num_layers) if others else None
    return views.look(encoder, images, view, layer, [OUTPUT_OF.get(kind, "patches") for kind in kinds], device=None)


def guess(
    features: ImageFeatures,
    kind: str,
    text: torch.Tensor,
    words: Words,
    size: tuple[int, int],
    among: np.ndarray | None = None,
) -> np.ndarray:
    """The class that each pixel resembles most, int64 [H, W] for size (H, W).

    kind: one that was looked for.   text: of `words.rows`.   among: only these classes may be guessed.
    """
    rows = np.arange(len(words.rows)) if among is None else np.flatnonzero(np.isin(words.owners, among))
    chosen = text[torch.from_numpy(rows)]
    labels = label(features, chosen, asked(kind), threshold=words.threshold, size=size).labels.cpu().numpy()
    classes: np.ndarray = words.owners[rows][labels]
    return classes if words.background is None else np.where(labels < 0, words.background, classes)


def asked(kind: str) -> str:
    """A kind of features as `tipsv2.analysis.heatmap.pick_features` knows it: a layer's patches are "final"."""
    return "values" if kind == "values" else "final"
