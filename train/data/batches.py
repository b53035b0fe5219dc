"""Batches as a function of the step alone: resuming at step k needs nothing but k, whatever the number of workers."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from tipsv2 import scenes
from train.data.hidden import Hidden
from train.data.views import local_crops
from train.masking import random_mask
from train.settings import Recipe

SEED_STRIDE = 10**9  # scenes per recipe seed; runs with different seeds see different scenes


class Batches(Dataset):
    """Item `step` is that step's batch, with its views, masks and token ids.

    Keys: image [B, 3, S, S] in [0, 1]; local [M, B, 3, s, s] and masked [B, N] where the stage asks for them;
    for each caption role "web" and "synthetic": <role>_ids [B, L] and <role>_mask [B, L]; for masked distillation what
    `train.data.hidden.Hidden` gives.
    With several processes, process `rank` of `world` gets its equal share of the images: together they see the same
    images, with masks, crops and choices of caption drawn per process.
    Raises ValueError if a stage's batch cannot be shared out equally.
    """

    def __init__(self, recipe: Recipe, tokenizer, rank: int = 0, world: int = 1):
        for stage in recipe.stages:
            if stage.batch_size % world:
                raise ValueError(
                    f"batch_size={stage.batch_size} cannot be shared by {world} processes; use a multiple."
                )
        self.recipe, self.tokenizer, self.rank, self.world = recipe, tokenizer, rank, world
        masked_distillation = recipe.sfclip.vision_weight or recipe.sfclip.text_weight
        self.hidden = Hidden(recipe, tokenizer) if masked_distillation else None

    def __len__(self) -> int:
        return self.recipe.steps

    def images_before(self, step: int) -> int:
        """How many images the steps before `step` consumed."""
        count = 0
        for stage in self.recipe.stages:
            taken = min(step, stage.steps)
            count += taken * stage.batch_size
            step -= taken
        return count

    def __getitem__(self, step: int) -> dict[str, torch.Tensor]:
        stage = self.recipe.stage_at(step)
        share = stage.batch_size // self.world
        start = self.recipe.seed * SEED_STRIDE + self.images_before(step) + self.rank * share
        drawn = [scenes.draw(start + i, stage.size) for i in range(share)]
        rng = random.Random(start)
        generator = torch.Generator().manual_seed(start)
        images = torch.from_numpy(np.stack([s.image for s in drawn])).permute(0, 3, 1, 2).float() / 255
        batch = {"image": images.contiguous()}
        captions = {
            "web": [s.captions["web"] for s in drawn],
            "synthetic": [s.captions["short" if rng.random() < self.recipe.short_share else "detailed"] for s in drawn],
        }
        for role, texts in captions.items():
            tokens = self.tokenizer(texts, padding=True, truncation=True, max_length=64, return_tensors="pt")
            batch[f"{role}_ids"], batch[f"{role}_mask"] = tokens["input_ids"], tokens["attention_mask"]
        if stage.local_crops:
            batch["local"] = local_crops(images, stage.local_crops, stage.local_size, generator)
        if stage.mask_ratio and (stage.patch_weight or self.recipe.distillation.weight):
            batch["masked"] = random_mask(len(images), (stage.size // 14) ** 2, stage.mask_ratio, generator)
        if self.hidden is not None:
            batch |= self.hidden(batch, captions, generator)
        return batch


def stream(batches: Batches, start: int, workers: int) -> Iterator[dict[str, torch.Tensor]]:
    """Batches from step `start` to the end, prepared ahead by `workers` processes (0: in this one)."""
    return iter(
        DataLoader(
            batches,
            batch_size=None,
            sampler=range(start, len(batches)),
            num_workers=workers,
            prefetch_factor=4 if workers else None,
            worker_init_fn=_one_thread,
            generator=torch.Generator(),  # its own: opening a stream must not move the run's random state
        )
    )


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)  # the training process needs the cores
