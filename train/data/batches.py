"""Batches as a function of the step alone: resuming at step k needs nothing but k, whatever the number of workers."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset

from train.data.hidden import Hidden
from train.data.labels import name_tokens
from train.data.masking import random_mask
from train.data.samples import CaptionedImages, DrawnScenes, images_before
from train.data.views import local_crops
from train.parallel.signals import leave_signals_to_the_run, name_of, unwatch_children, watch_children
from train.recipe.kept_settings import is_kept
from train.recipe.settings import PATCH, Recipe

ENOUGH = 200  # images to have seen before judging how many cannot be used
EXIT_SECONDS = 5.0  # that a killed worker has to be seen as such after the queue to it broke


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
        self.hidden = Hidden(recipe, tokenizer) if recipe.sfclip.works(recipe.stages) else None
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
        if self.recipe.needs(stage).masked:
            batch["masked"] = random_mask(len(images), (stage.size // PATCH) ** 2, stage.mask_ratio, generator)
        if self.hidden is not None:
            batch |= self.hidden(batch, samples.captions, generator)
        if samples.labels is not None:
            batch |= {"labels": samples.labels, **self.names}
        if not self.drawn:
            batch |= {"unreadable": torch.tensor(samples.unreadable), "problems": samples.problems}
        return batch


def open_batches(recipe: Recipe, tokenizer, rank: int = 0, world: int = 1) -> Dataset:
    """The Batches of a recipe, or what stands in their place where it learns from kept crops (train/data/kept)."""
    if is_kept(recipe.data.source):
        from train.data.kept.batches import KeptBatches

        return KeptBatches(recipe, rank, world)
    return Batches(recipe, tokenizer, rank, world)


class BatchStream:
    """Iterates over the batches from step `start` to the end, prepared ahead by `workers` processes (0: in this one).

    Of a stream (tars, the Hub) every worker reads all its process's shards, and decodes the images of its own batches.
    Raises ValueError for data that cannot be trained on, and ChildProcessError, saying what to do, once a worker was
    killed: both only where a batch is asked for, so that a step and a checkpoint are always finished.
    """

    def __init__(self, batches: Batches, start: int, workers: int):
        self._loader = DataLoader(
            ErrorsAsBatches(batches),
            batch_size=None,
            sampler=range(start, len(batches)),
            num_workers=workers,
            prefetch_factor=4 if workers else None,
            worker_init_fn=_init_worker,
            generator=torch.Generator(),  # its own: opening a stream must not move the run's random state
        )
        self._arriving: Iterator | None = None
        self._workers: list[BaseProcess] = []
        self._waiting = False
        self._torch_handler = None

    def __iter__(self) -> BatchStream:
        return self

    def __next__(self) -> dict[str, torch.Tensor]:
        if self._arriving is None:
            self._open()
        try:
            self._waiting = True  # before the look at the workers: one that dies after it interrupts the waiting
            self._raise_if_killed()
            batch = next(self._arriving)
        except (StopIteration, ChildProcessError):
            raise
        except Exception as error:
            self._waiting = False
            # What torch raises depends on where the worker was: RuntimeError, ConnectionResetError, EOFError,
            # FileNotFoundError of shared memory ... Its exit code is the same, but may come a moment later.
            deadline = time.monotonic() + EXIT_SECONDS
            while self._workers and not self._killed() and time.monotonic() < deadline:
                time.sleep(0.01)
            self._raise_if_killed(error)
            raise
        finally:
            self._waiting = False
        if isinstance(batch, str):
            raise ValueError(batch)
        return batch

    def __enter__(self) -> BatchStream:
        return self

    def __exit__(self, *_) -> None:
        """End the workers."""
        unwatch_children(self._torch_handler)
        self._arriving, self._workers, self._torch_handler = None, [], None

    def _open(self) -> None:
        self._arriving = iter(self._loader)
        self._workers = list(getattr(self._arriving, "_workers", ()))  # torch has no public way to them
        if not self._workers or threading.current_thread() is not threading.main_thread():
            return
        self._torch_handler = watch_children(self._lost_while_waiting)

    def _lost_while_waiting(self) -> bool:
        return self._waiting and bool(self._killed())

    def _killed(self) -> list[BaseProcess]:
        """The workers that ended by a signal or a fault."""
        return [worker for worker in self._workers if worker.exitcode]

    def _raise_if_killed(self, error: Exception | None = None) -> None:
        for worker in self._killed():
            code = worker.exitcode
            how = f"was killed by {name_of(code)}" if code < 0 else f"ended with exit code {code}"
            raise ChildProcessError(
                f"a process that reads or draws the data was lost (data worker {worker.pid} {how}), as happens where "
                "memory runs out: fewer workers need less. Go on from the last checkpoint with --resume."
            ) from error


class ErrorsAsBatches(Dataset):
    """A mistake of the user as its sentence: an error that crosses processes would arrive with the traceback in it."""

    def __init__(self, batches: Batches):
        self.batches = batches

    def __getitem__(self, step: int) -> dict[str, torch.Tensor] | str:
        try:
            return self.batches[step]
        except (ValueError, OSError) as error:
            return str(error)


def _init_worker(_: int) -> None:
    """In a data worker: one thread, no tracebacks of lost connections; signals are the training process's to answer."""
    torch.set_num_threads(1)  # the training process needs the cores
    sys.excepthook = _quiet_about_connections
    leave_signals_to_the_run()


def _quiet_about_connections(kind: type[BaseException], *rest) -> None:
    """The thread that hands over tensors prints a traceback when the training process, which says why, no longer
    takes them.
    """
    if not issubclass(kind, (OSError, EOFError)):
        sys.__excepthook__(kind, *rest)
