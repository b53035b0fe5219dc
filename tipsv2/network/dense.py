"""Patch grids out of a transformers Tipsv2VisionModel: final layer (or any) and value features; sliding windows.

Value features are what TIPSv2's zero-shot segmentation reads (google-deepmind/tips,
pytorch/TIPS_zeroshot_segmentation.ipynb; the idea is MaskCLIP's, arXiv 2112.01071): in the last block each token keeps
its own value instead of mixing with the others, residual, MLP and final LayerNorm stay. The network's own modules are
called, so gradients, autocast, gradient checkpointing and any attention implementation work as they do in the model.
Sizes: B images, h x w patches, D width, N windows, C maps.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, overload

import torch

if TYPE_CHECKING:
    from transformers import Tipsv2VisionModel
    from transformers.models.tipsv2.modeling_tipsv2 import Tipsv2VisionLayer, Tipsv2VisionPatchEmbeddings

OUTPUTS = ("cls", "caption_cls", "patches", "values")  # of `vision_features`, in this order


@overload
def vision_features(
    vision_model: Tipsv2VisionModel, pixels: torch.Tensor, masked: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]: ...
@overload
def vision_features(
    vision_model: Tipsv2VisionModel, pixels: torch.Tensor, masked: torch.Tensor | None = None, *, only: Collection[str]
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]: ...
def vision_features(
    vision_model: Tipsv2VisionModel,
    pixels: torch.Tensor,
    masked: torch.Tensor | None = None,
    only: Collection[str] = OUTPUTS,
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """One pass through the blocks, two ways through the last one.

    pixels: [B, 3, H, W] in [0, 1], H and W multiples of the patch size.
    masked: [B, h*w] bool, row by row; True patches are replaced by the mask token.
    only: what is wanted; for values alone the last block's attention is spared, without them their way through it.
    Returns cls [B, D], caption_cls [B, D], patches [B, h, w, D], values [B, h, w, D], all after the final LayerNorm,
    none normalised to unit length, None where not wanted. Differentiable.
    """
    grid = _grid(vision_model, pixels)
    hidden = before_last(vision_model, pixels, masked)
    last = vision_model.encoder.layer[-1]
    after = last(hidden) if set(only) - {"values"} else None
    tokens = (None, None, None) if after is None else _tokens(vision_model, after, grid)
    values = _values(vision_model, last, hidden, grid) if "values" in only else None
    cls, caption_cls, patches = (one if name in only else None for name, one in zip(OUTPUTS, tokens, strict=False))
    return cls, caption_cls, patches, values


def layer_features(
    vision_model: Tipsv2VisionModel, pixels: torch.Tensor, layers: Collection[int]
) -> Iterator[tuple[int, tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]]]:
    """What `vision_features` gives, as if the network ended after block k, for each k of `layers`, lowest first.

    pixels: as in `vision_features`.   layers: numbers 1..L of L blocks, so that L is `vision_features` itself.
    Yields (k, (cls, caption_cls, patches, values)): the tokens after block k, and those that enter it sent through it
    with its attention replaced by its values; the final LayerNorm, which was trained for block L only, on both.
    One pass, not further than the highest layer asked for. Raises ValueError on layers that do not exist.
    """
    blocks = vision_model.encoder.layer
    if wrong := sorted(set(layers) - set(range(1, len(blocks) + 1))):
        raise ValueError(f"There is no layer {wrong[0]}: the layers of this encoder are 1 to {len(blocks)}.")
    grid = _grid(vision_model, pixels)
    hidden = vision_model.embeddings(pixels)
    for number in range(1, max(layers, default=0) + 1):
        before, hidden = hidden, blocks[number - 1](hidden)
        if number in layers:
            values = _values(vision_model, blocks[number - 1], before, grid)
            yield number, (*_tokens(vision_model, hidden, grid), values)


def before_last(
    vision_model: Tipsv2VisionModel, pixels: torch.Tensor, masked: torch.Tensor | None = None
) -> torch.Tensor:
    """The tokens [B, 1 + registers + h*w, D] that enter the last block; arguments as in `vision_features`."""
    # The model's own forward also builds an attention mask; without padding there is nothing to mask.
    hidden = vision_model.embeddings(pixels, bool_masked_pos=masked)
    for layer in vision_model.encoder.layer[:-1]:
        hidden = layer(hidden)
    return hidden


def features_after(
    vision_model: Tipsv2VisionModel,
    hidden: torch.Tensor,
    blocks: int,
    grid: tuple[int, int],
    with_values: bool = True,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """What `vision_features` gives, from the tokens [B, 1 + registers + h*w, D] after the first `blocks` blocks (fewer
    than all) and the grid (h, w). Differentiable.
    """
    for layer in vision_model.encoder.layer[blocks:-1]:
        hidden = layer(hidden)
    last = vision_model.encoder.layer[-1]
    tokens = _tokens(vision_model, last(hidden), grid)
    return *tokens, _values(vision_model, last, hidden, grid) if with_values else None


def caption_place(vision_model: Tipsv2VisionModel) -> int:
    """Which token is the caption CLS: the first register, or the CLS token itself in a tower without registers, where
    both are one (train/network/from_dinov2.py).
    """
    return min(1, vision_model.config.num_register_tokens)


def value_block(layer: Tipsv2VisionLayer, hidden: torch.Tensor) -> torch.Tensor:
    """A block whose attention is replaced by its values: hidden [B, T, D] -> [B, T, D], token by token."""
    attention = layer.attention
    mixed = attention.o_proj(attention.v_proj(layer.norm1(hidden)))
    hidden = hidden + layer.drop_path(layer.layer_scale1(mixed))
    return hidden + layer.drop_path(layer.layer_scale2(layer.mlp(layer.norm2(hidden))))


class ExactPixels(torch.nn.Module):
    """A network's patch embedding in float32, its result in the network's own type.

    bfloat16 has as many steps between 0.5 and 1 as a photograph: rounding the pixels can cost a patch more than all
    the bfloat16 after them (tests/test_dense.py), and the embedding is less than a hundredth of the work.
    """

    def __init__(self, embedding: Tipsv2VisionPatchEmbeddings):
        """embedding: it becomes float32."""
        super().__init__()
        self.dtype = embedding.projection.weight.dtype
        self.projection = embedding.projection.float()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """[B, 3, H, W] -> [B, h*w, D]."""
        return self.projection(pixels.float()).flatten(2).transpose(1, 2).to(self.dtype)


def window_corners(size: tuple[int, int], window: int, stride: int) -> list[tuple[int, int]]:
    """(top, left) of the windows that cover a picture of size (H, W), row by row, the last of each row and column
    shifted back inside. A side shorter than the window has one window, as long as that side.
    """
    if not 1 <= stride <= window:
        raise ValueError(
            f"The stride ({stride}) must lie between 1 and the window ({window}), else pixels are left out."
        )

    def starts(side: int) -> list[int]:
        last = max(0, side - window)
        return [*range(0, last, stride), last]

    return [(top, left) for top in starts(size[0]) for left in starts(size[1])]


def crop_windows(pixels: torch.Tensor, corners: list[tuple[int, int]], window: int) -> torch.Tensor:
    """Cut pixels [3, H, W] at `corners` -> [N, 3, window, window] (shorter sides where the picture is)."""
    return torch.stack([pixels[:, top : top + window, left : left + window] for top, left in corners])


def stitch(maps: torch.Tensor, corners: list[tuple[int, int]], size: tuple[int, int]) -> torch.Tensor:
    """Put maps [N, C, window, window] back at `corners` -> [C, H, W] for size (H, W), the mean where windows
    overlap.
    """
    total = maps.new_zeros(maps.shape[1], *size)
    count = maps.new_zeros(size)
    height, width = maps.shape[2:]
    for piece, (top, left) in zip(maps, corners, strict=True):
        total[:, top : top + height, left : left + width] += piece
        count[top : top + height, left : left + width] += 1
    return total / count


def _tokens(
    vision_model: Tipsv2VisionModel, after: torch.Tensor, grid: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The tokens after a block [B, T, D] -> cls, caption_cls and patches of `vision_features`."""
    final = vision_model.layernorm(after)
    patches = final[:, 1 + vision_model.config.num_register_tokens :].unflatten(1, grid)
    return final[:, 0], final[:, caption_place(vision_model)], patches


def _values(
    vision_model: Tipsv2VisionModel, layer: Tipsv2VisionLayer, before: torch.Tensor, grid: tuple[int, int]
) -> torch.Tensor:
    """The tokens before a block [B, T, D] -> values of `vision_features`."""
    first_patch = 1 + vision_model.config.num_register_tokens
    return vision_model.layernorm(value_block(layer, before[:, first_patch:])).unflatten(1, grid)


def _grid(vision_model: Tipsv2VisionModel, pixels: torch.Tensor) -> tuple[int, int]:
    patch_size = vision_model.config.patch_size
    height, width = pixels.shape[-2:]
    if pixels.ndim != 4 or height % patch_size or width % patch_size or not height or not width:
        raise ValueError(
            f"Pixels must be [B, 3, H, W] with H and W multiples of the patch size {patch_size}, "
            f"not {list(pixels.shape)}: see tipsv2.images.fit_size."
        )
    return height // patch_size, width // patch_size
