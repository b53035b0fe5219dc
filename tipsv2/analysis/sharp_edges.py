"""Label maps whose edges are the picture's: a stretch of like colour gets one class, by its mean similarity.

The stretches are Felzenszwalb and Huttenlocher's superpixels (Efficient Graph-Based Image Segmentation, IJCV 2004;
scikit-image), of the picture at the size that the network saw. Of the ways tried on the 20 held-out photographs of
opentips-s14 and on 60 scenes of scenes:val with opentips-nano, among the names present (mIoU, mean over pictures, and
F1 of the edges within 0.75 % of the diagonal; seconds of one old core for a photograph of 640 x 480 pixels):

    bilinear, as `tipsv2.analysis.segmentation.label_map`   0.359  0.288      0.755  0.393      0.02
    superpixels, scale 50                          0.360  0.334      0.802  0.655      0.53
    superpixels, scale 100                         0.357  0.343      0.815  0.689      0.58
    half of scale 50, half bilinear                0.361  0.313      0.795  0.566      0.53
    3000 superpixels of SLIC                       0.355  0.290      0.756  0.403      0.19
Fewer superpixels of SLIC and a guided filter lost mIoU on the photographs.
Sizes: N classes, S stretches, h x w patches, H x W pixels.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from tipsv2.analysis.heatmap import to_pixels

SCALE, SIGMA, SMALLEST = 50, 0.8, 40  # of felzenszwalb: larger is coarser; blur, and fewest pixels of a stretch


def superpixels(image: Image.Image, grid: tuple[int, int], patch_size: int) -> np.ndarray:
    """The stretches of an RGB picture that was seen as `grid` (h, w) patches: int [H, W], 0 to S - 1, at the size the
    network saw or the picture's own if that is smaller.
    """
    from skimage.segmentation import felzenszwalb

    height, width = min(image.height, grid[0] * patch_size), min(image.width, grid[1] * patch_size)
    small = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    return felzenszwalb(small, scale=SCALE, sigma=SIGMA, min_size=SMALLEST)


def sharp_label_map(
    similarities: torch.Tensor, segments: np.ndarray, size: tuple[int, int], background: float | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `label_map` of tipsv2.analysis.segmentation: similarities [N, h, w] -> labels [H, W] int64 and the winners'
    mean similarities [H, W] float32, for size (H, W).

    segments: of `superpixels`.   background: where the winner's mean lies below it, the label is -1.
    """
    flat = segments.ravel()
    counts = np.bincount(flat)
    sums = (
        np.bincount(flat, to_pixels(cosines[None].cpu(), segments.shape)[0].numpy().ravel()) for cosines in similarities
    )
    means = torch.from_numpy(np.stack([cosines / counts for cosines in sums]).astype(np.float32))  # [N, S]
    scores, labels = means.max(dim=0)
    if background is not None:
        labels[scores < background] = -1
    rows, columns = (
        torch.arange(pixels) * samples // pixels for pixels, samples in zip(size, segments.shape, strict=True)
    )
    places = torch.from_numpy(segments.astype(np.int64))[rows[:, None], columns]
    return labels[places], scores[places]
