"""Pairs that are numbers and have no pictures, for `python -m train simulate`: what reads and shuffles them is the real
code.

    pairs = Numbers(116_000_000, shards=11_600)     # a stream; shards=0: a table
    source = CaptionedImages(recipe, rank, world, pairs)
    [source.rows(step)(k) for k in range(share)]    # the numbers that this process sees at a step
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from tipsv2.collections.pairs import Pairs
from tipsv2.collections.sources import open_source


class Numbers:
    """`count` pairs: a table by number, or a stream of `shards` that are as equal as can be. Stands in for Pairs."""

    notes, mapping, label_names, local = (), {"image": "jpg"}, (), True

    def __init__(self, count: int, shards: int = 0):
        self.count, self.indexed, self.shards = count, not shards, shards or 1
        self.name = f"{count:,} numbers"

    def __len__(self) -> int:
        if not self.indexed:
            raise TypeError(f"{self.name} are a stream")
        return self.count

    def __getitem__(self, row: np.ndarray) -> np.ndarray:
        """A table's: the numbers of some rows, which are the rows."""
        return row

    def first(self, shard: int) -> int:
        """The first number of a shard, in which the numbers follow each other."""
        return self.count * shard // self.shards

    def size(self, shard: int) -> int:
        return self.first(shard + 1) - self.first(shard)

    def read(self, shard: int) -> Iterator[int]:
        """A stream's: the numbers of a shard."""
        return iter(range(self.first(shard), self.first(shard + 1)))

    def state(self) -> dict[str, str]:
        """Nothing: numbers do not change."""
        return {}


class NumbersOfTars(Numbers):
    """The numbers of a stream whose tars are there and are opened as any others, so that this costs what it costs.

    `was_read` counts the pairs that were read.
    """

    def __init__(self, count: int, tars: Path):
        self.opened = Pairs(open_source(tars), {}, captions=True)
        super().__init__(count, self.opened.shards)
        self.was_read = 0

    def read(self, shard: int) -> Iterator[int]:
        """As Numbers.read, counted."""
        for number in super().read(shard):
            self.was_read += 1
            yield number

    def state(self) -> dict[str, str]:
        """Of the tars, as a run compares it."""
        return self.opened.state()


def write_tars(folder: Path, shards: int) -> Path:
    """A folder of so many tars: one with one small picture, and links to it."""
    folder.mkdir(parents=True)
    first = folder / "00000.tar"
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "JPEG")
    with tarfile.open(first, "w") as tar:
        for ending, content in (("jpg", picture.getvalue()), ("txt", b"a picture")):
            member = tarfile.TarInfo(f"0.{ending}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    for shard in range(1, shards):
        os.symlink(first.name, folder / f"{shard:05d}.tar")
    return folder
