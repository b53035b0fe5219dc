"""Names as soft targets of patches: an image classifier read at every position of its last feature map.

A classifier that ends in a mean over positions and a linear layer has an opinion of each position (CAM, arXiv
1512.04150). A picture is looked at once; its crops take their patches' share of that map.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from train.data.kept.crops import positions
from train.data.kept.folder import BEST
from train.data.views import Window
from train.foundations.efficientnet_lite import STRIDE, EfficientNetLite


@torch.inference_mode()
def scores_of(classifier: EfficientNetLite, picture: Image.Image, size: int) -> Tensor:
    """Class scores [K, h, w] of a picture whose short side becomes `size` pixels; sides to whole positions."""
    scale = size / min(picture.size)
    width, height = (max(1, round(side * scale / STRIDE)) * STRIDE for side in picture.size)
    pixels = np.array(picture.resize((width, height), Image.Resampling.BICUBIC))
    return classifier(torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255)[0]


def soft_names(
    scores: Tensor,
    windows: Sequence[Window],
    size: tuple[int, int],
    side: int,
    known: int = -1,
    temperature: float = 1.0,
    prior: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """What the patches of a picture's crops show: classes and probabilities [n, side * side, BEST], likeliest first.

    scores: [K, h, w] of the whole picture of `size` (width, height).   side: patches of a crop's side.
    known: the picture's class, whose score is `prior` higher everywhere: chance of softmax((scores + prior) /
    temperature). Probabilities are of all K, so that those kept do not sum to 1.
    """
    grid = torch.stack([positions(window, size, side) for window in windows])
    maps = scores[None].float().expand(len(windows), -1, -1, -1)
    sampled = F.grid_sample(maps, grid, mode="bilinear", padding_mode="border", align_corners=False)
    sampled = sampled.flatten(2).transpose(1, 2)  # [n, N, K]
    if known >= 0:
        sampled[..., known] += prior
    chance, classes = (sampled / temperature).softmax(-1).topk(min(BEST, sampled.shape[-1]), -1)
    missing = BEST - classes.shape[-1]  # a classifier of few classes
    return F.pad(classes, (0, missing)).numpy(), F.pad(chance, (0, missing)).numpy()
