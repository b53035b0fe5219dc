"""Views of an image: the global crop is the picture, local crops are small windows of it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def local_crops(images: Tensor, count: int, size: int, generator: torch.Generator, scale=(0.15, 0.5)) -> Tensor:
    """Random square windows covering `scale` of the area, each resampled to `size` pixels; flips at random.

    Args:
        images: [B, 3, S, S] in [0, 1].
    Returns: [count, B, 3, size, size].
    """
    batch = len(images)
    shape = (count * batch,)
    side = torch.empty(shape).uniform_(*scale, generator=generator).sqrt()  # of the half-width 1
    center = (torch.rand(2, *shape, generator=generator) * 2 - 1) * (1 - side)
    flip = (torch.rand(shape, generator=generator) < 0.5).float() * 2 - 1
    theta = torch.zeros(*shape, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = side * flip, side
    theta[:, 0, 2], theta[:, 1, 2] = center
    grid = F.affine_grid(theta, (*shape, 3, size, size), align_corners=False)
    crops = F.grid_sample(images.repeat(count, 1, 1, 1), grid, align_corners=False, padding_mode="border")
    return crops.view(count, batch, 3, size, size)
