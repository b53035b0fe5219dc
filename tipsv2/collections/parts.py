"""A collection cut into parts that do not depend on who works on them, read in order for one of several workers.

    collection = open_collection("photos", part_size=1000)
    for row in collection.rows(worker=0, workers=2, done=set()):
        ...                                         # Row, Row, ..., End of a part, Row, ...

What has row numbers is one shard whose parts are ranges of rows. A stream keeps its own shards, each cut into parts
while it is read. A part is known by (shard, part), and holds the same rows whatever the number of workers; so those
that are done can be left out by a later run with any other number.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from tipsv2 import scenes
from tipsv2.collections.pairs import Pair, Pairs, open_pairs
from tipsv2.labelled.place import absolute, is_labelled
from tipsv2.records import fingerprint
from tipsv2.scenes.splits import split_of

COLUMNS = ("image", "web", "short", "detailed", "split", "subset")  # what --data-columns can name
DRAWN = 10_000  # scenes, where nobody says how many


@dataclass(frozen=True)
class Row:
    """Row `number`, from 0, of a shard. `load` gives its pair; its argument is the side in pixels of a drawn scene."""

    shard: int
    number: int
    load: Callable[[int], Pair]
    stream: bool = False

    @property
    def place(self) -> str:
        """The number from 1; of a stream the shard's before it."""
        return f"{self.shard + 1}.{self.number + 1}" if self.stream else str(self.number + 1)


@dataclass(frozen=True)
class End:
    """The rows before this one, since the last End, are a part; `last` of its shard."""

    shard: int
    part: int
    last: bool


class DrawnScenes:
    """The bundled scenes as pairs by number, drawn when asked for: `draw` takes a row and a side in pixels."""

    indexed, shards, local, notes = True, 1, True, ()
    draw: Callable[[int, int], scenes.Scene]

    def __init__(self, name: str, limit: int | None):
        self.name = name
        if name == "scenes":
            self.draw, self.first, self._count = lambda row, side: scenes.draw(row, side), 0, limit or DRAWN
        else:
            split = split_of(name, 14)
            self.draw, self.first = lambda row, side: split_of(name, side)[row], split.first
            self._count = len(split)

    def __len__(self) -> int:
        return self._count

    def pair(self, row: int, side: int) -> Pair:
        """Raises ValueError for a side that no scene has."""
        scene = self.draw(row, side)
        return Pair(f"scene {self.first + row}", {role: (text,) for role, text in scene.captions.items()}, scene.image)


class Collection:
    """Pairs with their parts. `count` rows, None where that is known only once all is read; `shards` of a stream."""

    def __init__(self, pairs: Pairs | DrawnScenes, part_size: int, limit: int | None):
        """Raises ValueError for a part or a limit under one row, and for a limit of a stream."""
        if part_size < 1:
            raise ValueError(f"shard_size={part_size}: a shard needs at least one row.")
        if not pairs.indexed and limit is not None:
            raise ValueError(f"{pairs.name} is a stream without row numbers: leave --limit out, or name fewer shards.")
        self.pairs, self.part_size, self.name, self.shards = pairs, part_size, pairs.name, pairs.shards
        self.count = limited(len(pairs), limit) if pairs.indexed else None

    def fingerprint(self) -> str:
        """16 hex digits that change where rows were added, taken away or moved: from the first name of every part, or
        of every shard of a stream on this machine.
        """
        if isinstance(self.pairs, DrawnScenes):
            names = [self.name]
        elif self.count is not None:
            names = [self.pairs[row].name for row in (*range(0, self.count, self.part_size), self.count - 1)]
        elif self.pairs.local:
            first = (next(self.pairs.read(shard), None) for shard in range(self.shards))
            names = [pair.name if pair else "" for pair in first]
        else:
            names = [self.name]
        return fingerprint([f"{self.count} rows, {self.shards} shards", *names])

    def state(self) -> dict[str, str]:
        """Digests that change where captions or pictures are replaced; none of what is drawn."""
        return {} if isinstance(self.pairs, DrawnScenes) else self.pairs.state(self.count)

    def pair(self, shard: int, row: int, side: int = 224) -> Pair:
        """One pair again; of a stream, all before it in its shard are read. Raises ValueError where it is gone."""
        if self.count is not None and row < self.count:
            return self._load(row, side)
        pair = None
        if self.count is None and shard < self.shards:
            pair = next(islice(self._stream(shard), row, None), None)
        if pair is None:
            raise ValueError(f"{self.name} has no row {row + 1} in shard {shard + 1} any more.")
        return pair

    def missing(self, worker: int, workers: int, done: Container[tuple[int, int]]) -> int | None:
        """How many rows a worker will read; None where that is not known before."""
        if self.count is None:
            return None
        parts = enumerate(range(0, self.count, self.part_size))
        mine = [start for part, start in parts if part % workers == worker and (0, part) not in done]
        return sum(min(start + self.part_size, self.count) - start for start in mine)

    def rows(
        self, worker: int, workers: int, done: Container[tuple[int, int]], finished: Container[int] = ()
    ) -> Iterator[Row | End]:
        """The rows of the parts of worker `worker` of `workers` that are not `done`, each part closed by its End.

        finished: shards that need not be opened, since all their parts are done. Whole shards go to a worker, unless
        there are fewer shards than workers: then all read, and each takes parts. Raises ValueError where a stream
        breaks off.
        """
        by_part = self.shards < workers or self.count is not None
        for shard in range(self.shards):
            if shard in finished or not (by_part or shard % workers == worker):
                continue

            def wanted(part: int, shard: int = shard) -> bool:
                return (not by_part or (shard + part) % workers == worker) and (shard, part) not in done

            yield from self._streamed(shard, wanted) if self.count is None else self._numbered(self.count, wanted)

    def _numbered(self, count: int, wanted: Callable[[int], bool]) -> Iterator[Row | End]:
        for part, start in enumerate(range(0, count, self.part_size)):
            if wanted(part):
                stop = min(start + self.part_size, count)
                yield from (Row(0, row, partial(self._load, row)) for row in range(start, stop))
                yield End(0, part, stop == count)

    def _streamed(self, shard: int, wanted: Callable[[int], bool]) -> Iterator[Row | End]:
        rows = self._stream(shard)
        pair, number = next(rows, None), 0
        while True:  # an empty shard is one empty part
            part = number // self.part_size
            while pair is not None and number < (part + 1) * self.part_size:
                if wanted(part):
                    yield Row(shard, number, partial(_kept, pair), stream=True)
                pair, number = next(rows, None), number + 1
            if wanted(part):
                yield End(shard, part, pair is None)
            if pair is None:
                return

    def _stream(self, shard: int) -> Iterator[Pair]:
        return iter(()) if isinstance(self.pairs, DrawnScenes) else self.pairs.read(shard)

    def _load(self, row: int, side: int) -> Pair:
        return self.pairs.pair(row, side) if isinstance(self.pairs, DrawnScenes) else self.pairs[row]


def _kept(pair: Pair, side: int) -> Pair:
    """A stream's pair, whatever the side: only what is drawn has one."""
    return pair


def open_collection(
    data: str | Path,
    part_size: int,
    columns: Mapping[str, str] | None = None,
    limit: int | None = None,
    captions: bool = False,
) -> Collection:
    """Open what `tipsv2.collections.pairs.open_pairs` opens, "scenes" (drawn from seed 0 on, `limit` or 10,000) or
    "scenes:val".

    columns: as of `open_pairs`, and split and subset of a data set of the Hub.   captions: whether it must have some.
    Raises ValueError, one sentence, where there is nothing to read.
    """
    columns = dict(columns or {})
    if str(data).partition(":")[0] == "scenes" and not os.path.exists(data):
        if columns:
            raise ValueError(f"{data} is drawn and has no columns to name: leave {', '.join(columns)} out.")
        return Collection(DrawnScenes(str(data), limit), part_size, limit)
    return Collection(open_named(data, columns, captions), part_size, limit)


def open_named(data: str | Path, columns: Mapping[str, str], captions: bool = True) -> Pairs:
    """`tipsv2.collections.pairs.open_pairs` with split and subset among the columns, as `named_columns` reads them."""
    where: dict[str, Any] = {key: columns[key] for key in ("split", "subset") if key in columns}
    return open_pairs(data, {k: v for k, v in columns.items() if k not in where}, captions=captions, **where)


def named_columns(given: Sequence[str]) -> dict[str, str]:
    """["data.web=alt"] -> {"web": "alt"}. Raises ValueError for a key that is none of COLUMNS."""
    columns = {}
    for text in given:
        key, _, column = text.partition("=")
        key = key.removeprefix("data.")
        if key not in COLUMNS or not column:
            raise ValueError(f"--data-columns {text}: write data.KEY=COLUMN, KEY being one of {', '.join(COLUMNS)}.")
        columns[key] = column
    return columns


def address(data: str | Path) -> str:
    """`data` so that it is found from other folders, too."""
    if is_labelled(data):
        return absolute(str(data))
    path = os.path.expanduser(data)
    return os.path.abspath(path) if os.path.exists(path) or any(c in path for c in "*?[") else str(data)


def limited(total: int, limit: int | None) -> int:
    """How many of `total` images to take; ValueError for a limit under 1."""
    if limit is not None and limit < 1:
        raise ValueError(f"limit={limit}: at least one image is needed; leave it out to take all {total}.")
    return min(limit or total, total)
