"""The two towers of an encoder as modules that torch.export and ONNX can take, for any batch, size and length.

The one obstacle is the position table: transformers resizes it with antialiased bilinear interpolation, which ONNX
traces for one size only. That resize is linear and separable, so here it is two matrix products whose matrices are
computed from the size within the graph; the numbers are the same to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn
from transformers import Tipsv2TextModel, Tipsv2VisionModel

from tipsv2.network.dense import vision_features


def resize_matrix(source: int, target: int, like: torch.Tensor) -> torch.Tensor:
    """[target, source] float32 whose product with a column is that column resized as by F.interpolate(mode="bilinear",
    align_corners=False, antialias=True): a triangle around each target's centre, as wide as the step between targets
    but never narrower than that between sources, its weights summing to one.

    target: may be symbolic.   like: gives the device.
    """
    centres = torch.arange(target, dtype=torch.float32, device=like.device) + 0.5
    step = source / torch.ones_like(centres).sum()  # sources per target; a division of symbols cannot be traced
    places = torch.arange(source, dtype=torch.float32, device=like.device) + 0.5
    weights = (1 - (places - centres[:, None] * step).abs() / step.clamp(min=1)).clamp(min=0)
    return weights / weights.sum(dim=1, keepdim=True)


def resized_positions(table: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Position embeddings [1, 1 + side**2, D] (first that of the CLS token) -> [1, 1 + height * width, D]."""
    side = round((table.shape[1] - 1) ** 0.5)
    rows, columns = (resize_matrix(side, target, table) for target in (height, width))
    grid = table[0, 1:].float().reshape(side, side, -1)
    grid = torch.einsum("ha,wb,abd->hwd", rows, columns, grid).to(table.dtype)
    return torch.cat((table[:, :1], grid.reshape(1, height * width, -1)), dim=1)


class VisionTower(nn.Module):
    """pixels [B, 3, H, W] in [0, 1] -> cls, caption_cls, patches, values of `tipsv2.network.dense.vision_features`.

    To be traced within `positions_by_products`.
    """

    outputs = ("cls", "caption_cls", "patches", "values")

    def __init__(self, model: Tipsv2VisionModel):
        super().__init__()
        self.model = model

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        return vision_features(self.model, pixels)


class TextTower(nn.Module):
    """ids [B, L] int64 and mask [B, L] int64, 1 where a token is and 0 for padding -> unit vectors [B, D]."""

    outputs = ("vector",)  # the graph has nodes called embedding

    def __init__(self, model: Tipsv2TextModel):
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return F.normalize(self.model(input_ids=ids, attention_mask=mask).pooler_output, dim=-1)


@contextmanager
def positions_by_products(model: Tipsv2VisionModel) -> Iterator[None]:
    """Within it the model resizes its position table by `resized_positions`."""
    embeddings = model.embeddings
    patch = model.config.patch_size

    def resized(tokens: torch.Tensor, height: int, width: int) -> torch.Tensor:
        return resized_positions(embeddings.position_embeddings, height // patch, width // patch)

    embeddings.interpolate_pos_encoding = resized  # on the instance, over the class's method
    try:
        yield
    finally:
        del embeddings.interpolate_pos_encoding
