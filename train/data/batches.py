"""Batches as a function of the step alone: resuming at step k needs nothing but k, whatever the number of workers."""

from __future__ import annotations

import math
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset

from train.data.hidden import Hidden
from train.data.labels import name_tokens
from train.data.samples import CaptionedImages, DrawnScenes, images_before
from train.data.views import local_crops
from train.masking import random_mask
from train.settings import PATCH, Recipe

ENOUGH = 200  # images to have seen before judging how many cannot be used


class Batches(Dataset):
    """Item `step` is that step's batch, with its views, masks and token ids.

    Keys: image [B, 3, S, S] in [0, 1]; local [M, B, 3, s, s] and masked [B, N] where the stage asks for them;
    for each caption role "web" and "synthetic": <role>_ids [B, L] and <role>_mask [B, L]; for masked distillation what
    `train.data.hidden.Hidden` gives; for patch labels labels [B, h, w], names_ids and names_mask [C, L].
    Of anybody's images also unreadable, how many were tried in vain [], and problems, a tuple of sentences about the
    first of them.
    With several processes, process `rank` of `world` gets its equal share of the images; masks, crops and choices of
    caption are drawn per process.
    Raises ValueError if a stage's batch cannot be shared out equally, or the data cannot be trained on.
    """

    def __init__(self, recipe: Recipe, tokenizer, rank: int = 0, world: int = 1):
        for number, stage in enumerate(recipe.stages):
            if stage.batch_size % world:
                raise ValueError(
                    f"batch_size={stage.batch_size} cannot be shared by {world} processes; use a multiple."
                )
            if (stage.batch_size // world) % recipe.accumulate:
                raise ValueError(
                    f"accumulate={recipe.accumulate} does not divide stages.{number}.batch_size={stage.batch_size}"
                    + (f", of which each of {world} processes has {stage.batch_size // world}" if world > 1 else "")
                    + ": set one of them so that it does."
                )
        self.recipe, self.tokenizer, self.rank, self.world = recipe, tokenizer, rank, world
        masked_distillation = recipe.sfclip.vision_weight or recipe.sfclip.text_weight
        self.hidden = Hidden(recipe, tokenizer) if masked_distillation else None
        self.drawn = recipe.data.source == "scenes"
        self.source = (DrawnScenes if self.drawn else CaptionedImages)(recipe, rank, world)
        if recipe.patch_labels.weight:
            self.names = name_tokens(self.source.names, tokenizer)

    def __len__(self) -> int:
        return self.recipe.steps

    def images_before(self, step: int) -> int:
        """How many images the steps before `step` consumed."""
        return images_before(self.recipe, step)

    def extent(self) -> str:
        """What the data are and how often they are gone through, where their size is known."""
        if self.drawn:
            return "data: scenes, every one drawn anew, so there are no epochs"
        name, size = self.source.pairs.name, self.source.size
        if size == math.inf:
            return f"data: {name}, read as a stream: how many epochs that is only reading it would tell"
        extent = f"data: {name}, {size:,} pairs, {self.recipe.images / size:.1f} epochs"
        return "\n".join((extent, *self.source.pairs.notes))

    def too_many(self, unreadable: int, tried: int) -> bool:
        """Whether more of the `tried` images than data.unreadable allows could not be used, once they are enough."""
        return tried >= min(ENOUGH, self.source.size) and unreadable > self.recipe.data.unreadable * tried

    def remember(self, record: Path) -> None:
        """Keep what is known of the data in a file of the run. Raises ValueError if the data is not as it was."""
        self.source.remember(record, main=self.rank == 0)

    def __getitem__(self, step: int) -> dict[str, torch.Tensor]:
        stage = self.recipe.stage_at(step)
        samples = self.source.take(step)
        images, generator = samples.images, samples.generator
        batch = {"image": images}
        for role, texts in samples.captions.items():
            tokens = self.tokenizer(texts, padding=True, truncation=True, max_length=64, return_tensors="pt")
            batch[f"{role}_ids"], batch[f"{role}_mask"] = tokens["input_ids"], tokens["attention_mask"]
        if stage.local_crops:
            batch["local"] = local_crops(images, stage.local_crops, stage.local_size, generator)
        if stage.mask_ratio and (stage.patch_weight or self.recipe.distillation.weight):
            batch["masked"] = random_mask(len(images), (stage.size // PATCH) ** 2, stage.mask_ratio, generator)
        if self.hidden is not None:
            batch |= self.hidden(batch, samples.captions, generator)
        if samples.labels is not None:
            batch |= {"labels": samples.labels, **self.names}
        if not self.drawn:
            batch |= {"unreadable": torch.tensor(samples.unreadable), "problems": samples.problems}
        return batch


def stream(batches: Batches, start: int, workers: int) -> Iterator[dict[str, torch.Tensor]]:
    """Batches from step `start` to the end, prepared ahead by `workers` processes (0: in this one).

    Of a stream (tars, the Hub) every worker reads all its process's shards, and decodes the images of its own batches.
    """
    loader = DataLoader(
        _Told(batches),
        batch_size=None,
        sampler=range(start, len(batches)),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_be_a_worker,
        generator=torch.Generator(),  # its own: opening a stream must not move the run's random state
    )
    for batch in loader:
        if isinstance(batch, str):
            raise ValueError(batch)
        yield batch


class _Told(Dataset):
    """A mistake of the user as its sentence: an error that crosses processes would arrive with the traceback in it."""

    def __init__(self, batches: Batches):
        self.batches = batches

    def __getitem__(self, step: int) -> dict[str, torch.Tensor] | str:
        try:
            return self.batches[step]
        except (ValueError, OSError) as error:
            return str(error)


def _be_a_worker(_: int) -> None:
    """What a terminal or a scheduler sends to every process of a run is the training process's to answer: it saves."""
    torch.set_num_threads(1)  # the training process needs the cores
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_when_the_run_says, daemon=True).start()


def _end_when_the_run_says() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
