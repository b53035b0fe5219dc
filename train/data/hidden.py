"""What a masked student does not see: which images and captions of a batch are masked, and which of their parts.

For masked distillation (train/objectives/sfclip.py) on a part of the batch. Drawn from the batch's own generator, after
everything else, so that a step's masks depend on the step alone and other recipes' batches stay as they are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from train.data.masking import random_mask, random_words
from train.network.teachers import MAX_LENGTH, open_tokenizer
from train.recipe.settings import PATCH, Recipe


class Hidden:
    """Call with a batch, its captions and its generator; gives the batch's further keys.

    sfclip_part [B] bool: the images and captions that are distilled, spread evenly over the batch.
    sfclip_masked [B, N] bool: their hidden patches. sfclip_words [B, L] bool: the hidden tokens of the chosen caption,
    never padding or a special token. Where the student reads with its own tokenizer also sfclip_ids and
    sfclip_mask [B, L']: the caption as the text teacher reads it.
    Raises ValueError for a teacher without tokenizer.
    """

    def __init__(self, recipe: Recipe, tokenizer):
        self.settings = settings = recipe.sfclip
        self.special = torch.tensor(tokenizer.all_special_ids)
        shared = not settings.text_weight or settings.words == "teacher"
        self.teacher = None if shared else open_tokenizer(settings.text_teacher)

    def __call__(
        self, batch: dict[str, Tensor], captions: dict[str, list[str]], generator: torch.Generator
    ) -> dict[str, Tensor]:
        settings, role, found = self.settings, self.settings.caption, {}
        count, side = len(batch["image"]), batch["image"].shape[-1] // PATCH
        chosen = max(1, round(settings.share * count))
        found["sfclip_part"] = torch.arange(count) * chosen % count < chosen  # evenly spread, exactly `chosen`
        if settings.vision_weight:
            found["sfclip_masked"] = random_mask(count, side * side, settings.patch_ratio, generator)
        if settings.text_weight:
            ids = batch[f"{role}_ids"]
            words = batch[f"{role}_mask"].bool() & ~torch.isin(ids, self.special)
            found["sfclip_words"] = random_words(words, settings.word_ratio, generator)
        if self.teacher is not None:
            limits = {"padding": True, "truncation": True, "max_length": MAX_LENGTH}
            tokens = self.teacher(captions[role], **limits, return_tensors="pt")
            found["sfclip_ids"], found["sfclip_mask"] = tokens["input_ids"], tokens["attention_mask"]
        return found
