"""Square crops of pictures, drawn from a seed: where they lie, their colours, and what their patches show."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch import Tensor

from train.data.labels import patch_classes
from train.data.views import Window
from train.recipe.settings import PATCH

COLOURED = 0.8  # how often a crop's colours change
RANGES = {ImageEnhance.Brightness: (0.7, 1.3), ImageEnhance.Contrast: (0.7, 1.3), ImageEnhance.Color: (0.6, 1.3)}


def square(size: tuple[int, int], smallest: float, rng: np.random.Generator) -> Window:
    """A square of `smallest` to 1 of the short side of a picture (width, height), anywhere in it, mirrored or not."""
    width, height = size
    share, left, top, mirror = rng.random(4)
    side = min(size) * (smallest + share * (1 - smallest))
    x, y = left * (width - side), top * (height - side)
    return Window((x, y, x + side, y + side), mirror < 0.5)


def whole(size: tuple[int, int]) -> Window:
    """All of a square picture, as it is."""
    return Window((0, 0, *size), False)


def cut(picture: Image.Image, window: Window, size: int) -> Image.Image:
    """The window as a picture of `size` x `size`."""
    crop = picture.resize((size, size), Image.Resampling.BICUBIC, box=window.box)
    return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if window.mirrored else crop


def coloured(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Mostly somewhat lighter or darker, with more or less contrast and colour."""
    draws = rng.random(1 + len(RANGES))
    if draws[0] < COLOURED:
        for draw, (kind, (low, high)) in zip(draws[1:], RANGES.items(), strict=True):
            picture = kind(picture).enhance(low + draw * (high - low))
    return picture


def cut_labels(labels: np.ndarray, window: Window, size: int) -> Tensor:
    """A label map [H, W] in the window, by the nearest pixels: int64 [size, size]."""
    image = Image.fromarray(labels.astype(np.int32))
    numbers = np.array(image.resize((size, size), Image.Resampling.NEAREST, box=window.box))
    return torch.from_numpy(numbers[:, ::-1].copy() if window.mirrored else numbers).long()


def patch_shares(labels: Tensor) -> tuple[Tensor, Tensor]:
    """labels [S, S] -> what most of each patch shows, -1 = unlabelled, and which share of it does: both [N]."""
    most = patch_classes(labels)
    grid = labels.unfold(-2, PATCH, PATCH).unfold(-2, PATCH, PATCH).flatten(-2)
    return most.flatten(), (grid == most[..., None]).float().mean(-1).flatten()


def positions(window: Window, size: tuple[int, int], side: int) -> Tensor:
    """Where the patches of a crop have their centres in its picture, as `torch.nn.functional.grid_sample` counts:
    [side, side, 2] of x and y, -1 to 1. size: (width, height) of the picture.
    """
    left, top, right, bottom = window.box
    steps = (torch.arange(side) + 0.5) / side
    x = (left + steps * (right - left)) / size[0] * 2 - 1
    y = (top + steps * (bottom - top)) / size[1] * 2 - 1
    if window.mirrored:
        x = x.flip(0)
    down, along = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([along, down], -1)
