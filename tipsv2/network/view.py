"""How an image is looked at: what of it the network sees, in one piece or through windows, and what comes of it.

    encoder.look("street.jpg")                                      # the whole picture, as encoders are trained
    encoder.look("street.jpg", windowed(encoder, 1344)).values      # [96, 128, D] for a picture of 4:3
    encoder.look("street.jpg", View(resample="bicubic"))            # the whole picture, as TIPSv2's notebook segments

Two ways lead to the network's pixels:
bilinear  One antialiased resize to whole patches, as in training. Windows lie on the grid of patches and are joined: of
          a patch that several of them show, the directions are averaged, so that any question can be asked of the one
          grid later. A cosine with a mean direction is the mean cosine over that direction's length: of several classes
          the highest mean cosine wins.
bicubic   As TIPSv2's zero-shot notebook does (google-deepmind/tips, pytorch/TIPS_zeroshot_segmentation.ipynb, modes
          "whole" and "slide", the latter after TCL, arXiv 2212.00785): the short side becomes `resolution`, the long
          one is rounded down, then the picture or each window is brought up to whole patches. Its windows share no
          grid and stay apart; what is asked of each is averaged over pixels, see `tipsv2.analysis.heatmap`.
Sizes: N windows, h x w patches, D width, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from PIL import Image

from tipsv2.images import by_size, fit_size, open_image, shortened, to_tensor
from tipsv2.network.dense import OUTPUTS, crop_windows, stitch, window_corners

if TYPE_CHECKING:
    from tipsv2.network.encoder import Encoder

RESAMPLES = ("bilinear", "bicubic")
BATCH_SIZE = 16  # pictures or windows that go through together


@dataclass(frozen=True)
class View:
    """How an image is looked at; see the module. Raises ValueError on a resampling that does not exist."""

    resolution: int | None = None  # short side in pixels of the resized picture; None: as trained
    window: int | None = None  # side of square windows in those pixels; None: the picture in one piece
    stride: int | None = None  # from one window to the next; both in whole patches where windows are joined
    resample: str = "bilinear"  # of RESAMPLES

    def __post_init__(self) -> None:
        if self.resample not in RESAMPLES:
            raise ValueError(f"Unknown resampling '{self.resample}': use {' or '.join(RESAMPLES)}.")


@dataclass(frozen=True)
class Windows:
    """Where windows lie that share no grid of patches."""

    corners: tuple[tuple[int, int], ...]  # (top, left) in the resized picture
    window: tuple[int, int]  # (H, W) before they were brought to whole patches
    size: tuple[int, int]  # (H, W) of the resized picture


@dataclass(frozen=True)
class ImageFeatures:
    """What an image becomes: float32 tensors, on the CPU where nothing else is said, after the final LayerNorm, not
    normalised to unit length. Joined windows give mean directions, at most one long; both CLS are means over windows.
    """

    # None where it was not asked for, which whoever asked knows: hence Any
    cls: torch.Tensor | Any  # [D], trained against web alt-texts: the one to compare with text
    caption_cls: torch.Tensor | Any  # [D], trained against synthetic captions
    patches: torch.Tensor | Any  # [h, w, D], last layer; [N, h, w, D] of windows apart. None: was not asked for
    values: torch.Tensor | Any  # the same, last block with attention replaced by its values
    size: tuple[int, int]  # (H, W) in pixels of the image that came in
    windows: Windows | None = None  # of windows apart


def window_sizes(encoder: Encoder) -> tuple[int, int]:
    """(side, stride) of this encoder's windows in pixels the network sees, both in whole patches: the notebook's 448
    and 336 for an encoder trained at 448.
    """
    patch = encoder.patch_size
    side = max(1, encoder.info.resolution // patch)
    return side * patch, max(1, side * 3 // 4) * patch


def windowed(encoder: Encoder, resolution: int | None = None, resample: str = "bilinear") -> View:
    """A view through windows of the encoder's training resolution, of a picture whose short side is `resolution`."""
    return View(resolution, *window_sizes(encoder), resample)


def count_windows(encoder: Encoder, grid: tuple[int, int]) -> int:
    """How many joined windows a picture of so many patches (rows, columns) is looked at through."""
    rows, columns = grid
    return len(window_corners((rows * encoder.patch_size, columns * encoder.patch_size), *window_sizes(encoder)))


def crops_of(image: Image.Image, view: View, resolution: int, patch_size: int) -> tuple[torch.Tensor, Windows]:
    """What the network sees of an RGB picture: pixels [N, 3, H, W] in whole patches, and where they lie.
    resolution: that of the view, or the one the encoder was trained at.
    """
    if view.resample == "bilinear":
        pixels = to_tensor(image, fit_size(image.width, image.height, resolution, patch_size))
    else:
        pixels = shortened(image, resolution)
    size = (pixels.shape[1], pixels.shape[2])
    if view.window is None:
        corners, crops = [(0, 0)], pixels[None]
    else:
        stride = view.stride or view.window
        if view.resample == "bilinear" and (view.window % patch_size or stride % patch_size):
            raise ValueError(
                f"Windows of {view.window} pixels, {stride} apart, are not in patches of {patch_size} pixels."
            )
        corners = window_corners(size, view.window, stride)
        crops = crop_windows(pixels, corners, view.window)
    windows = Windows(tuple(corners), (crops.shape[2], crops.shape[3]), size)
    whole = [-(-side // patch_size) * patch_size for side in crops.shape[2:]]
    if whole != list(crops.shape[2:]):
        crops = F.interpolate(crops, size=whole, mode="bicubic", align_corners=False)
    return crops, windows


def look(
    encoder: Encoder,
    images: Sequence,
    view: View | None = None,
    layer: int | None = None,
    only: Collection[str] = OUTPUTS,
    batch_size: int = BATCH_SIZE,
    device: str | None = "cpu",
) -> list[ImageFeatures]:
    """The features of images; pictures and windows of one size go through the network together, `batch_size` at a time.

    images: each anything `tipsv2.images.open_image` takes.   layer: as if the network ended after this block, 1 to
    `encoder.num_layers`.   only: which of the outputs are wanted; "values" alone cost less than all.
    device: where the features are put; None leaves them where they were made.
    Raises ImageError, and ValueError on layers and resolutions that do not exist.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}.")
    view = view or View()
    resolution = encoder.info.resolution if view.resolution is None else view.resolution
    seen: list[tuple[tuple[int, int], Windows]] = []  # of each image its size, and where its windows lie
    grids: list[dict[str, list[torch.Tensor]]] = [{name: [] for name in only} for _ in images]

    def crops() -> Iterator[tuple[int, torch.Tensor]]:
        for number, source in enumerate(images):
            image = open_image(source)
            pixels, windows = crops_of(image, view, resolution, encoder.patch_size)
            seen.append(((image.height, image.width), windows))
            yield from ((number, crop) for crop in pixels)

    for batch, pixels in by_size(crops(), batch_size):
        out = encoder.encode_pixels(pixels, only=only, layer=layer)
        for name in only:
            rows = out[name] if device is None else out[name].to(device)
            for number, row in zip(batch, rows, strict=True):
                grids[number][name].append(row.clone())  # so that keeping one does not keep its whole batch
    apart = view.window is not None and view.resample == "bicubic"
    return [
        _features(outputs, size, windows, apart, encoder.patch_size)
        for outputs, (size, windows) in zip(grids, seen, strict=True)
    ]


def _features(
    outputs: dict[str, list[torch.Tensor]], size: tuple[int, int], windows: Windows, apart: bool, patch_size: int
) -> ImageFeatures:
    """One image's windows, put together or kept apart."""
    features = dict.fromkeys(OUTPUTS)
    for name, rows in outputs.items():
        if len(rows) == 1 and (not apart or rows[0].ndim == 1):
            (features[name],) = rows
        elif rows[0].ndim == 1:
            features[name] = torch.stack(rows).mean(dim=0)
        elif apart:
            features[name] = torch.stack(rows)
        else:
            cells = [(top // patch_size, left // patch_size) for top, left in windows.corners]
            grid = (windows.size[0] // patch_size, windows.size[1] // patch_size)
            directions = F.normalize(torch.stack(rows), dim=-1).permute(0, 3, 1, 2)
            features[name] = stitch(directions, cells, grid).permute(1, 2, 0).contiguous()
    return ImageFeatures(**features, size=size, windows=windows if apart else None)
