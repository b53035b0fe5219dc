"""What every term of a loss looks at: one shared pass of the images and captions through the two towers.

The clean pass serves the contrastive terms and, detached, the teacher of self-distillation: with head-only EMA there is
no second backbone and no second pass (TIPSv2 Sec. 3.4). Sizes: B images, N patches, L tokens, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import Tipsv2Model

from tipsv2.dense import before_last, value_block

ROLES = ("web", "synthetic")  # CLS 1 learns with the first, CLS 2 with the second


@dataclass(frozen=True)
class Text:
    """One caption per image: pooled [B, D], tokens [B, L, D] after the final LayerNorm, mask [B, L] (1 = token)."""

    pooled: Tensor
    tokens: Tensor
    mask: Tensor
    ids: Tensor


@dataclass(frozen=True)
class View:
    """Features of a batch, none of unit length; `masked` [B, N, D] are the patches of the masked images."""

    model: Tipsv2Model
    images: Tensor  # [B, 3, S, S] in [0, 1]
    cls: Tensor  # [B, D]
    caption_cls: Tensor  # [B, D]
    patches: Tensor  # [B, N, D], final layer
    values: Tensor | None  # [B, N, D], where a term asks for them
    masked: Tensor | None
    texts: dict[str, Text]


def look(model: Tipsv2Model, batch: dict[str, Tensor], values: bool = False) -> View:
    """Run both towers once on a batch of `train.data.batches`; the masked images travel with the clean ones."""
    vision, images, hide = model.vision_model, batch["image"], batch.get("masked")
    count, first = len(images), 1 + vision.config.num_register_tokens
    if hide is None:
        hidden = before_last(vision, images)
    else:  # clean and masked view in one pass
        hidden = before_last(vision, torch.cat([images, images]), torch.cat([torch.zeros_like(hide), hide]))
    last = vision.encoder.layer[-1]
    tokens = vision.layernorm(last(hidden))
    return View(
        model=model,
        images=images,
        cls=tokens[:count, 0],
        caption_cls=tokens[:count, 1],
        patches=tokens[:count, first:],
        values=vision.layernorm(value_block(last, hidden[:count, first:])) if values else None,
        masked=None if hide is None else tokens[count:, first:],
        texts={role: read(model, batch[f"{role}_ids"], batch[f"{role}_mask"]) for role in ROLES},
    )


def read(model: Tipsv2Model, ids: Tensor, mask: Tensor) -> Text:
    """Captions [B, L] through the text tower."""
    out = model.text_model(input_ids=ids, attention_mask=mask)
    return Text(pooled=out.pooler_output, tokens=out.last_hidden_state, mask=mask, ids=ids)
