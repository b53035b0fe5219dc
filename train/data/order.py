"""Which pairs a step sees, as a function of the step: no pair twice in an epoch, each with one process, exact resume.

A table is shuffled whole, once an epoch. A stream is shuffled by its shards, then in blocks while it is read from front
to back. Epochs start anew with every stage and leave out what does not fill a batch, so no batch spans two of them.
A process's epoch over a stream is that over its own shards: where these are unequal, it begins the next one earlier or
later than others. With another number of processes a resumed run on a table goes on exactly. One on a stream goes on in
about the same place of the epoch: what was open then is partly seen twice or left out, and from the next epoch on all
is as ever. `python -m train simulate` counts it.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from tipsv2.collections.pairs import Pair, Pairs

# Number k in 0, 1, ... -> a step's k-th pair; past the step's own, those that follow
Rows = Callable[[int], Pair]


class TableOrder:
    """Pairs by number: a permutation an epoch, of which process r of w takes every w-th row.

    Holds this process's share of it, four bytes a pair; while an epoch is shuffled, all of it.
    """

    def __init__(self, pairs: Pairs, seed: int, rank: int, world: int):
        self.pairs, self.seed, self.rank, self.world = pairs, seed, rank, world
        self._epoch, self._order = None, np.empty(0)  # the last epoch asked for

    def at(self, stage: int, step: int, batch_size: int) -> Rows:
        """The rows of a stage's step (both 0-based), from this process's share of `batch_size` on, in a circle."""
        epoch, number = divmod(step, self.steps(stage, 0, batch_size))
        if self._epoch != (stage, epoch):
            self._order = np.empty(0)  # before the next is made: two would be held
            self.hold(stage, epoch, shuffled(len(self.pairs), self.seed, stage, epoch))
        order, start = self._order, number * (batch_size // self.world)
        return lambda k: self.pairs[order[(start + k) % len(order)]]

    def steps(self, stage: int, epoch: int, batch_size: int) -> int:
        """How many steps an epoch has."""
        return len(self.pairs) // batch_size

    def hold(self, stage: int, epoch: int, order: np.ndarray) -> None:
        """Take this process's share of an epoch's order, `shuffled` of the seed, stage and epoch."""
        own = order[self.rank :: self.world]
        self._epoch, self._order = (stage, epoch), own.copy() if self.world > 1 else own


class StreamOrder:
    """Pairs of shards: each process takes every w-th shard of an epoch's permutation; with fewer shards than
    processes, every w-th pair of all shards. `buffer` pairs in a row are then shuffled as a block.

    How long a shard is, is known once it was read; `remember` keeps it, so that a resumed run skips to its shard.
    """

    def __init__(self, pairs: Pairs, seed: int, rank: int, world: int, buffer: int):
        self.pairs, self.seed, self.rank, self.world, self.buffer = pairs, seed, rank, world, buffer
        self.sizes: dict[int, int] = {}  # shard -> pairs in it
        self._record: Path | None = None
        self._dealt_key, self._dealt = None, np.empty(0)  # the shards of the last epoch asked for
        self._lengths: dict[tuple[int, int], int] = {}  # (stage, epoch) -> pairs, once all its shards are known
        self._block_key, self._block = None, np.empty(0, object)
        self._open_key, self._open = None, iter(())

    def remember(self, record: Path) -> None:
        """Take the sizes in a JSONL file, and add those that are learned from now on."""
        self._record = record
        for line in record.read_text().splitlines():
            try:
                known = json.loads(line)
            except ValueError:  # half a line of a killed run, and what was then written on it: learned again
                continue
            if "shard" in known:
                self.sizes[known["shard"]] = known["pairs"]

    def at(self, stage: int, step: int, batch_size: int) -> Rows:
        """As TableOrder.at; past the step's own pairs come the others of its block.

        Raises ValueError if this process's part of an epoch does not fill its share of a batch.
        """
        share = batch_size // self.world
        steps_per_block = max(1, self.buffer // share)
        epoch = 0
        while True:
            steps = self.steps(stage, epoch, batch_size)
            if steps == 0:
                length = self._length(stage, epoch)
                raise ValueError(too_large({stage: batch_size}, self.pairs.name, length, self.world))
            if steps is not None and step >= steps:
                step -= steps
                epoch += 1
                continue
            block = self._read_block(stage, epoch, step // steps_per_block, steps_per_block * share)
            start = step % steps_per_block * share
            if start + share <= len(block):
                return lambda k: block[(start + k) % len(block)]
            if steps is not None:
                raise ValueError(f"{self.pairs.name} has changed while it was read: start a new run.")
            # the epoch ended before this step: all its shards are read now, and its length is known

    def steps(self, stage: int, epoch: int, batch_size: int) -> int | None:
        """How many steps an epoch has in this process; None where a shard of it was never read to its end."""
        length = self._length(stage, epoch)
        return None if length is None else length // (batch_size // self.world)

    def learn(self, shard: int, size: int) -> None:
        """Keep that a shard has `size` pairs, in the file of `remember`, too."""
        if shard not in self.sizes:
            self.sizes[shard] = size
            if self._record:
                with self._record.open("a") as file:  # a short line is written whole, whoever else writes
                    file.write(json.dumps({"shard": shard, "pairs": size}) + "\n")

    def _shards(self, stage: int, epoch: int) -> np.ndarray:
        if self._dealt_key != (stage, epoch):
            order = shuffled(self.pairs.shards, self.seed, stage, epoch)
            self._dealt = order if self._by_pair else order[self.rank :: self.world]
            self._dealt_key = stage, epoch
        return self._dealt

    @property
    def _by_pair(self) -> bool:
        return self.pairs.shards < self.world

    def _taken(self, size: int) -> int:
        """How many of a shard's pairs are this process's."""
        return len(range(self.rank, size, self.world)) if self._by_pair else size

    def _length(self, stage: int, epoch: int) -> int | None:
        if (stage, epoch) not in self._lengths:
            shards = self._shards(stage, epoch).tolist()
            if any(shard not in self.sizes for shard in shards):
                return None
            self._lengths[stage, epoch] = sum(self._taken(self.sizes[shard]) for shard in shards)
        return self._lengths[stage, epoch]

    def _read_block(self, stage: int, epoch: int, number: int, size: int) -> np.ndarray:
        key = stage, epoch, number
        if self._block_key != key:
            if self._open_key is None or self._open_key[:2] != key[:2] or self._open_key[2] > number:
                self._open_key, self._open = key, self._read(stage, epoch, number * size)
            for _ in islice(self._open, (number - self._open_key[2]) * size):
                pass
            block = np.fromiter(islice(self._open, size), object)
            self._block_key, self._block = key, block[shuffled(len(block), self.seed, stage, epoch, number)]
            self._open_key = stage, epoch, number + 1
        return self._block

    def _read(self, stage: int, epoch: int, start: int) -> Iterator[Pair]:
        """This process's pairs of an epoch from its start-th on; shards of known size before that are not opened."""
        first, every = (self.rank, self.world) if self._by_pair else (0, 1)
        for shard in self._shards(stage, epoch).tolist():
            if shard in self.sizes:
                taken = self._taken(self.sizes[shard])
                if start < taken:
                    yield from islice(self.pairs.read(shard), first + start * every, None, every)
                start = max(0, start - taken)
                continue
            size = 0
            for size, pair in enumerate(self.pairs.read(shard), 1):
                if (size - 1) % every != first:
                    continue
                if start:
                    start -= 1
                else:
                    yield pair
            self.learn(shard, size)


def shuffled(count: int, *seed: int) -> np.ndarray:
    """0 to count - 1 as `numpy.random.Generator.permutation` orders them, in four bytes a number and not eight."""
    order = np.arange(count, dtype=np.uint32 if count <= 2**32 else np.int64)
    np.random.default_rng(seed).shuffle(order)
    return order


def too_large(stages: dict[int, int], name: str, length: int, world: int = 1, every: bool = False) -> str:
    """What is wrong with batches of more pairs than there are. stages: number -> batch size of each that is.

    every: whether these are all stages of the recipe, so that one assignment mends them.
    """
    if length == 1 and world == 1:
        return f"{name} holds one pair only, and a pair is learned by contrast with others: give at least two."
    whose = "" if world == 1 else f" for each of {world} processes"
    listed = ", ".join(f"stages.{stage}.batch_size={size}" for stage, size in stages.items())
    keys = ["stages.*"] if every and len(stages) > 1 else [f"stages.{stage}" for stage in stages]
    mended = " ".join(shlex.quote(f"{key}.batch_size={length * world}") for key in keys)
    return (
        f"{listed} {'is' if len(stages) == 1 else 'are'} more than {name} holds: {length} pairs{whose}. "
        f"Set {mended} or less."
    )
