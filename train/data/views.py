"""Views of an image: the global crop is the picture or most of it, local crops are small windows of that."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

ASPECT = 4 / 3  # the longest side of a global crop, in short sides, before it is resized to a square


@dataclass(frozen=True)
class Window:
    """A part of a picture: left, top, right and bottom in pixels, and whether it is mirrored."""

    box: tuple[float, float, float, float]
    mirrored: bool


def random_window(size: tuple[int, int], generator: torch.Generator, scale=(0.5, 1.0), flip: float = 0.0) -> Window:
    """A window of `scale` of the area of a picture of size (width, height); mirrored in `flip` of cases.

    A window is at most ASPECT wide or high, so of a long picture it may keep less than `scale`.
    """
    share, form, left, top, mirror = torch.rand(5, generator=generator).tolist()
    width, height = size
    area = width * height * (scale[0] + share * (scale[1] - scale[0]))
    aspect = ASPECT ** (2 * form - 1)
    wide, high = min(width, math.sqrt(area * aspect)), min(height, math.sqrt(area / aspect))
    wide, high = min(wide, high * ASPECT), min(high, wide * ASPECT)
    x, y = left * (width - wide), top * (height - high)
    return Window((x, y, x + wide, y + high), mirror < flip)


def global_crop(picture: Image.Image, size: int, window: Window) -> Tensor:
    """The window resized to a square (antialiased): [3, size, size] in [0, 1]."""
    pixels = np.array(picture.resize((size, size), Image.Resampling.BILINEAR, box=window.box), dtype=np.uint8)
    if window.mirrored:
        pixels = pixels[:, ::-1].copy()
    return torch.from_numpy(pixels).permute(2, 0, 1).float().div_(255).contiguous()


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
