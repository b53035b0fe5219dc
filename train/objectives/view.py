"""What every term of a loss looks at: one shared pass of the images and captions through the two towers.

The clean pass serves the contrastive terms and, detached, the teacher of self-distillation: with head-only EMA there is
no second backbone and no second pass (TIPSv2 Sec. 3.4). Sizes: B images, N patches, L tokens, D width.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import Tipsv2Model

from tipsv2.network.dense import before_last, caption_place, value_block

ROLES = ("web", "synthetic")  # CLS 1 learns with the first, CLS 2 with the second


@dataclass(frozen=True)
class Text:
    """One caption per image: pooled [B, D], tokens [B, L, D] after the final LayerNorm, mask [B, L] (1 = token), and
    key [B], integers that are equal where the captions are, in other processes' batches too.
    """

    pooled: Tensor
    tokens: Tensor
    mask: Tensor
    key: Tensor


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
    local: Tensor | None  # [M, B, D], CLS of the local crops
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
    crops = batch.get("local")  # [M, B, 3, s, s]
    return View(
        model=model,
        images=images,
        cls=tokens[:count, 0],
        caption_cls=tokens[:count, caption_place(vision)],
        patches=tokens[:count, first:],
        values=vision.layernorm(value_block(last, hidden[:count, first:])) if values else None,
        masked=None if hide is None else tokens[count:, first:],
        local=None if crops is None else vision(crops.flatten(0, 1)).pooler_output.unflatten(0, crops.shape[:2]),
        texts={role: read(model, batch[f"{role}_ids"], batch[f"{role}_mask"]) for role in ROLES},
    )


def read(model: Tipsv2Model, ids: Tensor, mask: Tensor) -> Text:
    """Captions [B, L] through the text tower."""
    out = model.text_model(input_ids=ids, attention_mask=mask)
    return Text(pooled=out.pooler_output, tokens=out.last_hidden_state, mask=mask, key=caption_keys(ids, mask))


def caption_keys(ids: Tensor, mask: Tensor) -> Tensor:
    """A number [B] for each row of token ids [B, L]: a polynomial modulo 2^64, whatever the padding on the right."""
    places = torch.arange(1, ids.shape[1] + 1, device=ids.device)
    factors = (2 * places + 1) * 0x5851F42D4C957F2D  # an odd multiplier, Knuth's MMIX; integers wrap around
    mixed = (ids + 1) * factors
    mixed = (mixed ^ (mixed >> 29)) * 0x2545F4914F6CDD1D  # so that a word here and one there do not even out
    return (mixed * mask.long()).sum(-1)


def look_in_parts(model: Tipsv2Model, batch: dict[str, Tensor], parts: int, values: bool = False) -> View:
    """`look`, a part of the batch at a time: the loss still sees the whole batch, memory holds one part's activations.

    Each part runs again in the backward pass (GradCache, arXiv 2101.06983, here by autograd's own checkpointing), so
    that gradient accumulation stays correct for losses whose negatives are the other images of the batch.
    """
    own = {name: tensor for name, tensor in batch.items() if not name.startswith("names_")}  # an image's, not a set's
    shares = {name: tensor.chunk(parts, dim=1 if name == "local" else 0) for name, tensor in own.items()}
    views = []
    for k in range(parts):
        part = {name: pieces[k] for name, pieces in shares.items()}
        views.append(checkpoint(look, model, part, values, use_reentrant=False))
    joined = {"model": model}
    for name in (f.name for f in fields(View) if f.name not in joined):
        pieces = [getattr(view, name) for view in views]
        if name == "texts":
            joined[name] = {
                role: Text(*(torch.cat([getattr(p[role], f.name) for p in pieces]) for f in fields(Text)))
                for role in ROLES
            }
        else:
            joined[name] = None if pieces[0] is None else torch.cat(pieces, dim=1 if name == "local" else 0)
    return View(**joined)
