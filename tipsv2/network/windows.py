"""A large image in overlapping windows of the size its encoder was trained at, put together to one patch grid.

The windows are those of TIPSv2's zero-shot notebook in the mode "slide" (google-deepmind/tips,
pytorch/TIPS_zeroshot_segmentation.ipynb, after TCL, arXiv 2212.00785): as long as the training resolution, three
quarters of that apart. The notebook averages a softmax over its classes; here the directions of the patches are
averaged, so that any question can be asked of the grid later without looking at the image again. A cosine with a mean
direction is the mean cosine over that direction's length: of several classes the highest mean cosine wins.

    from tipsv2 import load
    from tipsv2.network.windows import encode_windows
    encode_windows(load(), "street.jpg", 1344).values      # [96, 128, D] for a picture of 4:3
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tipsv2.images import ImageSource, fit_size, open_image, to_tensor
from tipsv2.network.dense import crop_windows, stitch, window_corners
from tipsv2.network.encoder import Encoder, ImageFeatures

BATCH_SIZE = 8  # windows that go through together


def window_sizes(encoder: Encoder) -> tuple[int, int]:
    """(side, stride) of this encoder's windows in pixels the network sees, both in whole patches."""
    patch = encoder.patch_size
    side = max(1, encoder.info.resolution // patch)
    return side * patch, max(1, side * 3 // 4) * patch


def count_windows(encoder: Encoder, grid: tuple[int, int]) -> int:
    """How many windows a picture of so many patches (rows, columns) is looked at through."""
    rows, columns = grid
    return len(window_corners((rows * encoder.patch_size, columns * encoder.patch_size), *window_sizes(encoder)))


def encode_windows(
    encoder: Encoder, image: ImageSource, resolution: int | None = None, batch_size: int = BATCH_SIZE
) -> ImageFeatures:
    """The features of an image seen through windows.

    image: as in Encoder.encode_image.   resolution: short side in pixels of the picture the windows are cut from, by
    default twice the training resolution.
    Returns features like encode_image, `patches` and `values` being the means over the windows of their directions
    (so at most one long), both CLS the means over the windows. A picture that fits into one window is encode_image.
    Raises ImageError.
    """
    image = open_image(image)
    side, stride = window_sizes(encoder)
    resolution = 2 * encoder.info.resolution if resolution is None else resolution
    size = fit_size(image.width, image.height, resolution, encoder.patch_size)
    if max(size) <= side:
        return encoder.encode_image(image, resolution)
    pixels = to_tensor(image, size)
    corners = window_corners(size, side, stride)
    pieces: dict[str, list[torch.Tensor]] = {"cls": [], "caption_cls": [], "patches": [], "values": []}
    for start in range(0, len(corners), batch_size):
        seen = encoder.encode_pixels(crop_windows(pixels, corners[start : start + batch_size], side))
        for name, parts in pieces.items():
            parts.append(seen[name].cpu())
    cells = [(top // encoder.patch_size, left // encoder.patch_size) for top, left in corners]
    grid = (size[0] // encoder.patch_size, size[1] // encoder.patch_size)
    joined = {name: torch.cat(parts) for name, parts in pieces.items()}
    dense = {
        name: stitch(F.normalize(joined[name], dim=-1).permute(0, 3, 1, 2), cells, grid).permute(1, 2, 0).contiguous()
        for name in ("patches", "values")
    }
    return ImageFeatures(
        joined["cls"].mean(dim=0), joined["caption_cls"].mean(dim=0), **dense, size=(image.height, image.width)
    )
