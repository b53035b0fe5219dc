"""TIPSv2 inference as one writes it first, with plain transformers: what `python -m tipsv2 benchmark` compares with.

float32, eager attention, one window at a time, every prompt padded to 64 tokens, nothing kept from call to call.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedTokenizerBase, Tipsv2Model

from tipsv2.images import to_tensor
from tipsv2.network.dense import vision_features, window_corners

TOKENS = 64


class Straightforward:
    """`model`: float32 on the device that is measured, in evaluation mode. Sizes as in `tipsv2.network.encoder`."""

    def __init__(self, model: Tipsv2Model, tokenizer: PreTrainedTokenizerBase, window: int, stride: int):
        """window, stride: of `segment`, in pixels."""
        model.set_attn_implementation("eager")
        self.model, self.tokenizer, self.window, self.stride = model, tokenizer, window, stride

    @torch.no_grad()
    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """[B, 3, H, W] -> the last layer's tokens [B, T, D]."""
        return self.model.vision_model(pixel_values=pixels.to(self.model.device)).last_hidden_state

    @torch.no_grad()
    def values(self, pixels: torch.Tensor) -> torch.Tensor:
        """[B, 3, H, W] -> value features [B, h, w, D], beside the usual pass, as the paper's notebook makes them."""
        return vision_features(self.model.vision_model, pixels.to(self.model.device))[3]

    @torch.no_grad()
    def text(self, prompts: list[str]) -> torch.Tensor:
        """N prompts -> unit rows [N, D]."""
        tokens = self.tokenizer(
            prompts, padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt"
        ).to(self.model.device)
        pooled = self.model.text_model(
            input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
        ).pooler_output
        return F.normalize(pooled, dim=-1)

    @torch.no_grad()
    def segment(self, image: Image.Image, text: torch.Tensor) -> torch.Tensor:
        """An RGB picture and C rows of text -> label map [H, W], by sliding windows as in TIPSv2's notebook: cosine,
        bilinear to the window, softmax without temperature, mean of windows, bilinear to the picture, arg-max.
        """
        short = min(image.size)
        width, height = (int(self.window * side / short) for side in image.size)
        pixels = to_tensor(image.resize((width, height), Image.Resampling.BICUBIC), (height, width))
        total, count = torch.zeros(len(text), height, width), torch.zeros(height, width)
        for top, left in window_corners((height, width), self.window, self.stride):
            place = (slice(top, top + self.window), slice(left, left + self.window))
            patches = F.normalize(self.values(pixels[(slice(None), *place)][None])[0], dim=-1)
            maps = torch.einsum("hwd,cd->chw", patches, text.to(patches.device))
            maps = F.interpolate(maps[None], (self.window, self.window), mode="bilinear", align_corners=False)[0]
            total[(slice(None), *place)] += maps.softmax(dim=0).cpu()
            count[place] += 1
        maps = F.interpolate((total / count)[None], image.size[::-1], mode="bilinear", align_corners=False)[0]
        return maps.argmax(dim=0)

    def operations(self, pixels: torch.Tensor) -> int:
        """Floating-point operations of `encode` on these pixels as torch counts them: two a multiply-add, products
        only.
        """
        with FlopCounterMode(display=False) as counter:
            self.encode(pixels)
        return counter.get_total_flops()
