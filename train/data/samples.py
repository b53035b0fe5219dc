"""The images and captions of a step: scenes drawn for it, or pairs of anybody's collection read for it."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tipsv2 import scenes
from tipsv2.collections.data_state import replaced, rewritten
from tipsv2.collections.pairs import Pairs, open_pairs
from tipsv2.files import whole_file
from train.data.held_out import Part, held_rows, others
from train.data.labels import patch_classes, patch_labels
from train.data.order import Rows, StreamOrder, TableOrder, too_large
from train.data.views import global_crop, random_window
from train.recipe.settings import SEED_STRIDE, Data, Recipe

NAMED = 5  # unusable images a batch names


@dataclass(frozen=True)
class Samples:
    """images [B, 3, S, S] in [0, 1]; captions: role "web" and "synthetic" -> B texts; what else is random draws on."""

    images: Tensor
    captions: dict[str, list[str]]
    generator: torch.Generator
    unreadable: int = 0  # images tried that could not be used
    problems: tuple[str, ...] = ()  # why, for the first few
    labels: Tensor | None = None  # [B, h, w] what each patch shows, where the recipe asks for it


class DrawnScenes:
    """The bundled data set: every step sees new scenes, in the size it asks for."""

    size = math.inf

    def __init__(self, recipe: Recipe, rank: int, world: int):
        self.recipe, self.rank, self.world = recipe, rank, world
        self.names = scenes.names()
        among, styles = scenes.some_nouns(recipe.data.nouns), recipe.data.styles.split(",")
        self.draw = partial(scenes.draw, styles=scenes.chosen_styles(styles, "data.styles"), among=among)

    def take(self, step: int) -> Samples:
        """This process's share of step's images."""
        stage = self.recipe.stage_at(step)
        share = stage.batch_size // self.world
        start = self.recipe.seed * SEED_STRIDE + images_before(self.recipe, step) + self.rank * share
        drawn = [self.draw(start + i, stage.size, restyle=stage.restyle) for i in range(share)]
        rng = random.Random(start)
        short = self.recipe.data.short_share
        captions = {
            "web": [s.captions["web"] for s in drawn],
            "synthetic": [s.captions["short" if rng.random() < short else "detailed"] for s in drawn],
        }
        images = torch.from_numpy(np.stack([s.image for s in drawn])).permute(0, 3, 1, 2).float() / 255
        labels = None
        if self.recipe.patch_labels.weight:
            labels = patch_classes(torch.from_numpy(np.stack([s.labels for s in drawn])))
        return Samples(images.contiguous(), captions, torch.Generator().manual_seed(start), labels=labels)

    def remember(self, record: Path, main: bool) -> None:
        """Nothing to remember: a scene is its number."""


class CaptionedImages:
    """Images with captions (tipsv2.collections.pairs), cropped at random; one that cannot be used gives its place to
    the next.

    `size` is the number of pairs, infinite where only reading to the end would tell.
    What takes such a place is a later pair of the epoch, which has its own place too.
    Raises ValueError if there are no usable columns, fewer pairs than a batch needs, or a field is out of range.
    """

    def __init__(self, recipe: Recipe, rank: int, world: int, pairs: Pairs | None = None):
        """pairs: where they are open already; by default those that recipe.data names."""
        _check(recipe.data)
        self.recipe, self.rank, self.world = recipe, rank, world
        self.pairs = open_data(recipe.data) if pairs is None else pairs
        self.names = self.pairs.label_names
        if recipe.patch_labels.weight and "mask" not in self.pairs.mapping:
            raise ValueError(
                f"{self.pairs.name} has no masks, and patch_labels.weight={recipe.patch_labels.weight} learns from "
                "them: put NAME.mask.png beside NAME.jpg, name the column (data.mask=COLUMN), or set the weight to 0."
            )
        if self.pairs.indexed:
            held = held_rows(len(self.pairs), recipe.data, recipe.seed)
            self.held = Part(self.pairs, held)
            self.learned = Part(self.pairs, others(len(self.pairs), held)) if len(held) else self.pairs
            if len(held):
                self.pairs.notes.append(f"{self.pairs.name}: {len(held):,} pairs are kept apart, to measure the run by")
            self.size = len(self.learned)
            large = {k: stage.batch_size for k, stage in enumerate(recipe.stages) if stage.batch_size > self.size}
            if large:
                every = len(large) == len(recipe.stages)
                raise ValueError(too_large(large, self.pairs.name, self.size, every=every))
            self.order: TableOrder | StreamOrder = TableOrder(self.learned, recipe.seed, rank, world)
        else:
            self.size = math.inf
            if recipe.data.held_out:
                self.pairs.notes.append(f"{self.pairs.name} is read as a stream: nothing of it is kept apart")
            self.order = StreamOrder(self.pairs, recipe.seed, rank, world, recipe.data.buffer)

    def rows(self, step: int) -> Rows:
        """This process's pairs of a step, by number, and those that come after them where one cannot be used."""
        number, within = _place(self.recipe, step)
        return self.order.at(number, within, self.recipe.stages[number].batch_size)

    def take(self, step: int) -> Samples:
        """This process's share of step's images; crops and choices of caption depend on the step and process alone.

        Raises ValueError, naming some, if almost none can be used.
        """
        number, within = _place(self.recipe, step)
        stage, data = self.recipe.stages[number], self.recipe.data
        share = stage.batch_size // self.world
        pair_at = self.rows(step)
        seed = np.random.SeedSequence([self.recipe.seed, number, within, self.rank]).generate_state(2)
        rng, generator = random.Random(int(seed[0])), torch.Generator().manual_seed(int(seed[1]))
        images, captions, labels, problems = [], {"web": [], "synthetic": []}, [], []
        labelled = self.recipe.patch_labels.weight
        for k in range(4 * share + 100):
            pair = pair_at(k)
            try:
                web = pair.caption("web", rng)
                synthetic = pair.caption("short" if rng.random() < data.short_share else "detailed", rng)
                picture = pair.open()
                window = random_window(picture.size, generator, (data.crop_min, data.crop_max), data.flip)
                if labelled:
                    labels.append(patch_labels(pair, len(self.names), picture.size, stage.size, window))
            except ValueError as error:
                problems.append(str(error))
                continue
            images.append(global_crop(picture, stage.size, window))
            captions["web"].append(web)
            captions["synthetic"].append(synthetic)
            if len(images) == share:
                patch_names = torch.stack(labels) if labelled else None
                return Samples(
                    torch.stack(images), captions, generator, len(problems), tuple(problems[:NAMED]), patch_names
                )
        raise ValueError(
            f"{self.pairs.name}: {len(problems)} of {k + 1} images in a row cannot be used. {' '.join(problems[:3])}"
        )

    def remember(self, record: Path, main: bool) -> None:
        """See that the data is what the run began with, and keep what is learned about it in a JSONL file."""
        extent = {"pairs": self.size} if self.pairs.indexed else {"shards": self.pairs.shards}
        if main:
            extent |= self.pairs.state()
            if record.exists():
                self._compare(_first_line(record), extent)
            else:
                with whole_file(record) as part:
                    part.write_text(json.dumps(extent) + "\n")
        if isinstance(self.order, StreamOrder) and record.exists():
            self.order.remember(record)

    def _compare(self, before: dict, now: dict) -> None:
        """Note what is no longer as the run began with it. Raises ValueError where there are more or fewer."""
        kind = "pairs" if self.pairs.indexed else "shards"
        if before.get(kind) != now[kind]:
            raise ValueError(
                f"{self.pairs.name} has changed since the run began ({before.get(kind)} {kind} then, {now[kind]} now), "
                "so it cannot go on exactly: restore the data, or start a new run."
            )
        if others := replaced(before, now):  # mended ones are welcome
            self.pairs.notes.append(
                f"{self.pairs.name}: the {' and '.join(others)} are not all those that the run began with: from here "
                "on it is not the run that it would have been. Restore them first if that was not meant."
            )
        elif rewritten(before, now):
            self.pairs.notes.append(
                f"{self.pairs.name}: its files were written anew since the run began, with the same names, sizes and "
                "beginnings: only if they are the same is the run what it would have been."
            )


def _first_line(record: Path) -> dict[str, int | str]:
    """What the data was when the run began."""
    try:
        return json.loads(record.read_text().split("\n")[0])
    except ValueError as error:
        raise ValueError(
            f"{record} is damaged, so what the data was when the run began is not known: delete that file if the data "
            "is unchanged, or start a new run."
        ) from error


def images_before(recipe: Recipe, step: int) -> int:
    """How many images the steps before `step` consumed, all processes together."""
    number, within = _place(recipe, step)
    stages = recipe.stages[: number + 1]
    return sum(s.steps * s.batch_size for s in stages[:-1]) + within * stages[-1].batch_size


def _place(recipe: Recipe, step: int) -> tuple[int, int]:
    """The stage that a step belongs to, and its number within; the end of the last stage is in it."""
    for number, stage in enumerate(recipe.stages):
        if step < stage.steps or number + 1 == len(recipe.stages):
            return number, step
        step -= stage.steps
    raise ValueError("a recipe needs at least one stage.")


def open_data(data: Data, captions: bool = True) -> Pairs:
    """The pairs that a recipe's `data` names; images alone where captions is False."""
    columns: Mapping[str, str] = {name: getattr(data, name) for name in ("image", "web", "short", "detailed", "mask")}
    return open_pairs(data.source, columns, data.split, data.subset, captions, data.confined)


def _check(data: Data) -> None:
    if not 0 < data.crop_min <= data.crop_max <= 1:
        raise ValueError(
            f"data.crop_min={data.crop_min} and data.crop_max={data.crop_max} must lie above 0 and up to 1, in order."
        )
    for name in ("flip", "short_share", "unreadable", "held_out"):
        if not 0 <= getattr(data, name) <= 1:
            raise ValueError(f"data.{name}={getattr(data, name)} is a share: it must lie between 0 and 1.")
    if data.buffer < 1:
        raise ValueError(f"data.buffer={data.buffer} must be at least 1.")
