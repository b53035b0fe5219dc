"""What every term of a loss looks at: one shared pass of the images and captions through the two towers, or of kept
crops through the last blocks.

The clean pass serves the contrastive terms and, detached, the teacher of self-distillation: with head-only EMA there is
no second backbone and no second pass (TIPSv2 Sec. 3.4). Sizes: B images or crops, N patches, L tokens, D width; of a
set of kept crops C names, of its classifier K classes and G groups of these.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import Tipsv2Model

from tipsv2.network.dense import before_last, caption_place, value_block

if TYPE_CHECKING:
    from train.recipe.kept_settings import KeptCrops

MIN_TEMPERATURE = 0.003  # the released encoders ended at 0.0036 to 0.0051
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

    @property
    def temperature(self) -> Tensor:
        """The learned one, positive, float32."""
        return self.model.temperature.float().clamp(min=MIN_TEMPERATURE)

    def of(self, kind: str) -> Tensor | None:
        """Clean patches [B, N, D]: "final", or "values" where a term asked for them."""
        return {"final": self.patches, "values": self.values}[kind]


@torch.no_grad()
def clamp_temperature(model: Tipsv2Model) -> None:
    """Keep the learned temperature from MIN_TEMPERATURE on, after an optimiser step."""
    if model.temperature.requires_grad:
        model.temperature.clamp_(min=MIN_TEMPERATURE)


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


class Scales(nn.Module):
    """Scales of cosines, and biases, that may learn: what turns the likeness of a patch and a name into a probability.

    softmax: of a choice among names. binary, presence: of a name for itself, in a patch and in a picture.
    """

    def __init__(self, settings: KeptCrops):
        super().__init__()
        self.softmax_log = nn.Parameter(torch.tensor(math.log(settings.softmax)))
        self.binary_log = nn.Parameter(torch.tensor(math.log(settings.binary)))
        self.binary_bias = nn.Parameter(torch.tensor(float(settings.bias)))
        self.presence_log = nn.Parameter(torch.tensor(math.log(settings.binary)))
        self.presence_bias = nn.Parameter(torch.tensor(float(settings.bias)))
        self.requires_grad_(settings.scale_rate > 0)

    def softmax(self, cosines: Tensor) -> Tensor:
        """Logits of a softmax over the last dimension."""
        return cosines * self.softmax_log.exp()

    def binary(self, cosines: Tensor) -> Tensor:
        """Logits of patches."""
        return cosines * self.binary_log.exp() + self.binary_bias

    def presence(self, cosines: Tensor) -> Tensor:
        """Logits of pictures."""
        return cosines * self.presence_log.exp() + self.presence_bias


@dataclass(frozen=True)
class KeptView:
    """Features and names are of unit length. `part` holds the set's other tensors, see `train.data.kept.batches`."""

    cls: tuple[Tensor, Tensor]  # the two CLS tokens, each [B, D]
    features: dict[str, Tensor]  # "final" and, where they count, "values": [B, N, D]
    counts: dict[str, float]  # of either: what its losses count
    part: dict[str, Tensor]
    names: Tensor | None  # [C, D] of the labels
    classes: Tensor | None  # [K, D]
    groups: Tensor | None  # [G, D]
    members: Tensor  # [K, G]
    captions: Tensor | None  # [B, 2, D] for the two CLS
    scales: Scales
    targets: dict[str, Tensor] | None  # features of a teacher, as `features`

    def kinds(self) -> Iterator[tuple[str, float, Tensor]]:
        """("final", what it counts, its patches), and the same of values."""
        for kind, patches in self.features.items():
            yield kind, self.counts[kind], patches


def unit(features: Tensor) -> Tensor:
    """To length one along the last dimension, float32."""
    return F.normalize(features.float(), dim=-1)


def cosines(features: Tensor, names: Tensor) -> Tensor:
    """[..., D] and [C, D], both of unit length -> [..., C] float32, also under autocast."""
    with torch.autocast(features.device.type, enabled=False):
        return features @ names.T
