"""Zero-shot segmentation: class names -> label map, with or without a background.

The protocol is TIPSv2's (google-deepmind/tips, pytorch/TIPS_zeroshot_segmentation.ipynb, whole-image mode): value
features, cosine with the templates' mean text embedding, bilinear to pixels, arg-max.
Sizes: N classes, h x w patches, H x W pixels.

    from tipsv2 import load, segment
    segment(load(), "dog.jpg", ["dog", "grass", "sky"]).shares
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tipsv2.heatmap import pick_features, similarity, to_pixels

BACKGROUND = -1  # in label maps
BACKGROUND_NAME = "background"  # in shares
_VALUES_AT_ONCE = 32_000_000  # of the classes' maps at full size: with many classes they would not fit


@dataclass(frozen=True)
class Segmentation:
    """What `segment` found."""

    labels: np.ndarray  # [H, W] int64: an index into `classes`, or BACKGROUND (-1)
    classes: tuple[str, ...]
    shares: dict[
        str, float
    ]  # name -> part of the pixels, in [0, 1], adding up to one; "background" where one was asked for
    scores: np.ndarray  # [H, W] float32: cosine of the winner, a background word included


def label_map(
    similarities: torch.Tensor, size: tuple[int, int], background: float | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """similarities [N, h, w] -> labels [H, W] int64 and the winners' similarities [H, W] float32, for size (H, W).

    Interpolated bilinearly before the arg-max; of equals the first wins.
    background: where the winner's similarity is below it, the label is BACKGROUND (-1).
    """
    scores = torch.full(size, -torch.inf, device=similarities.device)
    labels = torch.zeros(size, dtype=torch.int64, device=similarities.device)
    step = max(1, _VALUES_AT_ONCE // labels.numel())
    for start in range(0, len(similarities), step):
        maps = to_pixels(similarities[start : start + step], size)
        best, index = maps.max(dim=0)
        better = best > scores
        labels[better] = index[better] + start
        scores[better] = best[better]
    if background is not None:
        labels[scores < background] = BACKGROUND
    return labels, scores


def segment(
    encoder,
    image,
    classes: Sequence[str],
    templates: str | Sequence[str] = "tips9",
    features: str = "values",
    background: float | Sequence[str] | None = None,
    resolution: int | None = None,
) -> Segmentation:
    """Give every pixel of the image the class it resembles most.

    image, templates, resolution: as in Encoder.   classes: N different names.   features: "values" or "final".
    background: None (every pixel gets a class), a cosine (pixels whose best class lies below it are background), or a
        list of words that compete with the classes and all count as background, such as ["sky", "wall"].
    Raises ValueError on missing, blank or repeated names.
    """
    names = tuple(_strip(classes, "classes"))
    if not names:
        raise ValueError("Give at least one class name.")
    words = () if background is None or isinstance(background, int | float) else tuple(_strip(background, "background"))
    threshold = float(background) if isinstance(background, int | float) else None
    every = [*names, *words]
    if repeated := {name for name in every if every.count(name) > 1}:
        raise ValueError(f"'{min(repeated)}' is listed twice: name every class and background word once.")
    if background is not None and BACKGROUND_NAME in names:
        raise ValueError("A class cannot be called 'background' when a background is asked for: leave one of them out.")
    text = encoder.encode_text(every, templates)
    found = encoder.encode_image(image, resolution)
    labels, scores = label_map(similarity(pick_features(found, features), text), found.size, threshold)
    labels[labels >= len(names)] = BACKGROUND
    counts = torch.bincount(labels.flatten() + 1, minlength=len(names) + 1).double() / labels.numel()
    shares = dict(zip(names, counts[1:].tolist(), strict=True))
    if background is not None:
        shares[BACKGROUND_NAME] = counts[0].item()
    return Segmentation(labels.numpy(), names, shares, scores.numpy())


def _strip(names: Sequence[str], what: str) -> list[str]:
    if isinstance(names, str):
        raise ValueError(f"The {what} must be a list of words, not one string: split it at its commas.")
    return [name.strip() if isinstance(name, str) else name for name in names]
