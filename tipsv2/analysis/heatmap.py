"""Patch-text and patch-patch similarity, and the way from patches to image pixels.

A leaf: torch tensors in, torch tensors out; only `heatmap` takes pictures, and the encoder it needs is a parameter.
Sizes: N queries, h x w patches, D embedding width, H x W pixels.

    from tipsv2 import load
    from tipsv2.analysis.heatmap import heatmap
    maps = heatmap(load(), "dog.jpg", ["a dog", "grass"])      # [2, H, W] float32
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    import numpy as np

    from tipsv2.images import ImageSource
    from tipsv2.network.encoder import Encoder, ImageFeatures

MODES = ("cosine", "competing")
FEATURES = ("values", "final")


def similarity(patches: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """Cosine of every patch with every text: patches [h, w, D], text [N, D], any lengths -> [N, h, w] in [-1, 1]."""
    patches, text = F.normalize(patches, dim=-1), F.normalize(text, dim=-1)
    return torch.einsum("hwd,nd->nhw", patches, text)


def compete(similarities: torch.Tensor, temperature: float = 0.05) -> torch.Tensor:
    """Softmax over the queries at each patch: cosines [N, h, w] -> shares [N, h, w] that add up to one over N."""
    if temperature <= 0:
        raise ValueError(f"The temperature must be above 0, not {temperature}.")
    return (similarities / temperature).softmax(dim=0)


def patch_similarity(patches: torch.Tensor, row: int, col: int, other: torch.Tensor | None = None) -> torch.Tensor:
    """Cosine of the patch (row, col) of `patches` [h, w, D] with every patch -> [h, w].

    other: [h', w', D], the patches to compare with instead, of a second image.
    """
    height, width = patches.shape[:2]
    if not (0 <= row < height and 0 <= col < width):
        raise ValueError(f"Patch ({row}, {col}) lies outside the grid of {height} rows and {width} columns.")
    return similarity(patches if other is None else other, patches[row, col][None])[0]


def to_pixels(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Maps over patches [N, h, w] -> maps over pixels [N, H, W] for size (H, W), bilinear, align_corners=False."""
    return F.interpolate(maps[None].float(), size=tuple(size), mode="bilinear", align_corners=False)[0]


def heatmap(
    encoder: Encoder,
    image: ImageSource,
    queries: Sequence[str],
    mode: str = "cosine",
    features: str | int = "values",
    templates: str | Sequence[str] = "none",
    resolution: int | None = None,
    temperature: float = 0.05,
    distractors: Sequence[str] = (),
) -> np.ndarray:
    """Where in the image is each phrase?

    image: anything `tipsv2.images.open_image` takes.   queries: N phrases.
    mode: "cosine" (each query alone, [-1, 1]) or "competing" (softmax over the queries at each patch, [0, 1]).
    features: "values" (last block with attention replaced by its values: better aligned), "final" (last layer), or the
        number of a layer from 1, whose output goes through the final LayerNorm.
    templates, resolution: as in Encoder.encode_text and Encoder.encode_image.   temperature: of "competing".
    distractors: further phrases that take their share in "competing" and get no map.
    Returns float32 [N, H, W] in the pixels of the image that came in. Raises ValueError on unknown names or no queries.
    """
    if mode not in MODES:
        raise ValueError(f"Unknown mode '{mode}': use {' or '.join(MODES)}.")
    if not len(queries):
        raise ValueError("Give at least one phrase to look for.")
    if mode == "competing" and len(queries) + len(distractors) < 2:
        raise ValueError("Competing maps need at least two queries: add another phrase or use the mode 'cosine'.")
    text = encoder.encode_text(queries, templates)
    if mode == "competing" and len(distractors):
        text = torch.cat([text, encoder.encode_text(distractors, templates)])
    grid, size = patch_grid(encoder, image, features, resolution)
    maps = similarity(grid, text)
    if mode == "competing":
        maps = compete(maps, temperature)[: len(queries)]
    return to_pixels(maps, size).numpy()


def patch_grid(
    encoder: Encoder, image: ImageSource, features: str | int = "values", resolution: int | None = None
) -> tuple[torch.Tensor, tuple[int, int]]:
    """The patches [h, w, D] of an image and its size (H, W); arguments as in `heatmap`."""
    if isinstance(features, int):
        seen = encoder.encode_layers(image, [features], resolution)[features]
        return seen.patches, seen.size
    seen = encoder.encode_image(image, resolution)
    return pick_features(seen, features), seen.size


def pick_features(found: ImageFeatures, features: str) -> torch.Tensor:
    """The patch grid [h, w, D] of an ImageFeatures: its value features ("values") or its last layer ("final")."""
    if features not in FEATURES:
        raise ValueError(f"Unknown features '{features}': use {' or '.join(FEATURES)}.")
    return found.values if features == "values" else found.patches
