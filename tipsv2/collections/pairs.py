"""Any collection of images with captions as one thing: pairs by number, or shard by shard where it is a stream.

    pairs = open_pairs("photos")                      # NAME.jpg with NAME.txt (a caption a line) or NAME.json beside it
    pairs = open_pairs("photos/captions.csv")         # .tsv, .jsonl, .parquet; paths start from the table's folder
    pairs = open_pairs("shards/*.tar")                # webdataset, as img2dataset and `python -m train scenes` write it
    pairs = open_pairs("hf:owner/name", {"web": "alt"})
    pairs = open_pairs("folder:street")               # labelled pictures (`tipsv2.labelled`), captions from the labels

A folder with a metadata.csv or metadata.jsonl (column file_name), with tars or with parquet files is read as those.
Captions have a role: "web" (as found beside the image), "short" and "detailed" (written for it); a role may hold
several captions; `tipsv2.collections.columns` finds its column. A role that is missing falls back (FALLBACK), so one
caption an image is enough.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tipsv2.collections.columns import ROLES, find_columns, is_web
from tipsv2.collections.data_state import state_of_files, state_of_rows
from tipsv2.collections.repeated_rows import RepeatedRows
from tipsv2.collections.sources import IMAGE_SUFFIXES, PROBLEM, WRITTEN, Source, open_source
from tipsv2.collections.text_files import listed
from tipsv2.images import ImageError, open_image

FALLBACK = {
    "web": ("web", "short", "detailed"),
    "short": ("short", "detailed", "web"),
    "detailed": ("detailed", "short", "web"),
}
PROBED = 20  # rows looked at to learn the columns


@dataclass(frozen=True)
class Pair:
    """One image and its captions by role (only roles that have one); nothing is decoded before `open`."""

    name: str
    captions: dict[str, tuple[str, ...]]
    # str: an address of the web, or of the Hub as fsspec opens it; an array is what was drawn
    image: Path | bytes | str | np.ndarray | None = field(repr=False)
    mask: Path | bytes | str | None = field(default=None, repr=False)  # a picture of label numbers
    problem: str = ""
    labels: Callable[[], np.ndarray] | None = field(default=None, repr=False)  # the mask where its source reads it

    def caption(self, role: str, rng: random.Random) -> str:
        """A caption of `role`, or of the next role that has one; of several, one at random.

        Raises ValueError where the image has no caption at all.
        """
        for name in FALLBACK[role]:
            if texts := self.captions.get(name):
                return texts[rng.randrange(len(texts))] if len(texts) > 1 else texts[0]
        raise ValueError(f"{self.name}: {self.problem or 'it has no caption'}.")

    def open(self) -> Image.Image:
        """The picture as `tipsv2.images` opens it: RGB, upright. Raises ImageError naming this pair."""
        if self.image is None:
            raise ImageError(f"{self.name}: {self.problem or 'it has no image'}.")
        image = self.read() if isinstance(self.image, str) else self.image
        try:
            return open_image(image)
        except ImageError as error:
            text = str(error).replace("The uploaded data", "it", 1).replace(f"'{Path(self.name).name}'", "it", 1)
            raise ImageError(f"{self.name}: {text}") from error

    def read(self) -> bytes:
        """The image's file, as it is stored. Raises ImageError where it cannot be fetched."""
        if isinstance(self.image, bytes):
            return self.image
        import fsspec

        from tipsv2.collections.public_web import fetch

        try:
            if isinstance(self.image, str) and is_web(self.image):
                return fetch(self.image)
            with fsspec.open(str(self.image), "rb") as file:
                return file.read()
        except Exception as error:  # each file system raises its own
            raise ImageError(f"{self.name}: it cannot be fetched ({str(error).rstrip('.')}).") from error


class Pairs:
    """`columns` as found, `mapping` of fields (image, web, short, detailed, mask) to them, and the pairs.

    images: the columns that images were found in: of a tar sample the first ending in IMAGE_SUFFIXES that it holds.
    indexed: has a length and pairs by number; it is then one shard. A stream has `shards` and is read in order.
    local: its files are on this machine.   notes: what was guessed or mended, a sentence each.
    label_names: of `tipsv2.collections.sources.Source`.
    Rows of a table that name the same file are one pair with all their captions.
    """

    def __init__(self, source: Source, given: Mapping[str, str], captions: bool, confined: bool = False):
        from datasets import Dataset

        self.name, self._source, data = source.name, source, source.data
        self._within = source.base.resolve() if confined and source.base is not None else None
        self.label_names = source.label_names
        self.local = source.base is not None
        self.indexed = isinstance(data, Dataset)
        if self.indexed:
            data = _undecoded(data)
            if not len(data):
                raise ValueError(f"{self.name} is empty: it has columns ({', '.join(data.column_names)}) but no row.")
        rows = [source.expand(row) for row in islice(_rows(data), PROBED)]
        if not rows:
            raise ValueError(f"{self.name} is empty: there is nothing in its first shard.")
        if all(row.get(PROBLEM) for row in rows):
            raise ValueError(f"{self.name}: {rows[0][PROBLEM]}.")
        seen: dict[str, object] = dict.fromkeys(data.column_names if source.expand is dict else ())
        for row in rows:
            seen |= {k: v for k, v in row.items() if seen.get(k) is None}
        seen = {k: v for k, v in seen.items() if not k.startswith("__")}
        self.columns = tuple(seen)
        self.mapping = find_columns(self.name, seen, given, captions)
        self._endings: tuple[str, ...] = (self.mapping["image"],)
        self.images: tuple[str, ...] = self._endings
        if "__key__" in rows[0] and "image" not in given:  # a tar's samples may hold different kinds
            first = [column for column in self.images if column not in IMAGE_SUFFIXES]
            self._endings = tuple(sorted((*first, *IMAGE_SUFFIXES), key=lambda ending: ending == given.get("mask")))
            held = [[ending for ending in self._endings if row.get(ending) is not None] for row in rows]
            self.images = tuple(dict.fromkeys(endings[0] for endings in held if endings))
            if self.mapping.get("mask") == "png" and "mask" not in given and not any("png" in h[1:] for h in held):
                del self.mapping["mask"]  # a png is a mask beside another image only
        used = {"txt", "json", *self.mapping.values()}  # txt and json become columns only when a row is expanded
        self._data = data.select_columns([c for c in data.column_names if c in used]) if self.indexed else data
        self.shards = 1 if self.indexed else data.num_shards
        self.notes, self._groups = list(source.notes), None
        if self.indexed and self.mapping["image"] in self._data.column_names:
            self._groups = RepeatedRows.of(self._data.data.column(self.mapping["image"]))
        if self._groups is not None:
            self.notes.append(
                f"{self.name}: {len(self._data):,} rows name {len(self._groups):,} images; the rows of an image are one"
                " pair with all their captions."
            )
        if any(is_web(row.get(self.mapping["image"])) for row in rows):
            self.notes.append(
                f"{self.name}: its images are fetched from the web (column {self.mapping['image']}) whenever one is "
                "read, and from public addresses only: to read them more than once, download them first."
            )

    def __len__(self) -> int:
        if not self.indexed:
            raise TypeError(f"{self.name} is a stream; its length is known only once it has been read")
        return len(self._data if self._groups is None else self._groups)

    def __getitem__(self, row: int) -> Pair:
        rows = [int(row)] if self._groups is None else self._groups[int(row)]
        first, *more = (self._pair(self._data[number], f"row {number + 1}") for number in rows)
        return _joined(first, more)

    def __iter__(self) -> Iterator[Pair]:
        for shard in range(self.shards):
            yield from self.read(shard)

    def read(self, shard: int) -> Iterator[Pair]:
        """The pairs of one shard, in order. Raises ValueError where a stream breaks off."""
        part = self._data if self.indexed else self._data.shard(num_shards=self.shards, index=shard)
        if self._groups is not None:
            yield from (self[image] for image in range(len(self)))
            return
        number = 0
        try:
            for number, row in enumerate(_rows(part), 1):
                yield self._pair(row, f"row {number}" if self.shards == 1 else f"row {number} of shard {shard + 1}")
        except (OSError, ValueError, RuntimeError) as error:
            raise ValueError(f"{self.name}: shard {shard + 1} breaks off after row {number}: {error}") from error

    def state(self, rows: int | None = None) -> dict[str, str]:
        """Digests that change where captions or pictures are replaced (tipsv2/collections/data_state.py); none of the
        Hub's.

        rows: the first so many only, where no image has several.
        """
        if self.indexed:
            data = self._data if rows is None or self._groups is not None else self._data.select(range(rows))
            columns = {self.mapping[role] for role in ROLES if role in self.mapping}
            masks = {self.mapping[key] for key in ("mask",) if key in self.mapping}
            return state_of_rows(self._source, data, {*self.images, *masks}, {*columns, "txt", "json"})
        return state_of_files(self._source.files) if self._source.files else {}

    def texts(self, limit: int) -> Iterator[str]:
        """Every caption of up to `limit` pairs: a fixed random choice of rows, or the start of a stream."""
        if self.indexed and len(self) > limit:
            pairs = (self[row] for row in np.random.default_rng(0).choice(len(self), limit, replace=False))
        else:
            pairs = islice(self, limit)
        for pair in pairs:
            for texts in pair.captions.values():
                yield from texts

    def _pair(self, row: dict, name: str) -> Pair:
        row = self._source.expand(row)
        column = next((ending for ending in self._endings if row.get(ending) is not None), self.mapping["image"])
        image = self._file(row.get(column))
        if "__key__" in row:  # a tar's
            file = f"{row['__key__']}.{column}" if column in row else row["__key__"]
            name = " in ".join(filter(None, [file, Path(str(row.get("__url__", ""))).name]))
        elif isinstance(row.get(column), str) and row[column].strip():  # an empty cell names nothing
            name = row[column]
        elif isinstance(row.get(column), dict) and row[column].get("path"):
            name = row[column]["path"]
        problem = row.get(PROBLEM) or ""
        if image is None and row.get(column) and self._within is not None:
            problem = "it names no file in the folder of these data, and no other file is read"
        elif image is None and row.get(column) and not self.local:
            problem = "it is read from the data set itself, the Hub or the web (https, http), and is named elsewhere"
        captions = {role: _texts(row.get(self.mapping.get(role))) for role in ROLES}
        if not any(captions.values()):  # where other rows have a json, a txt is still a caption
            captions["web"] = _texts(row.get("txt")) or _texts(row.get(WRITTEN))
        labels = self.mapping.get("mask")
        mask = self._file(row.get(labels)) if labels != column else None
        read = self._source.read_labels
        return Pair(
            name,
            {role: texts for role, texts in captions.items() if texts},
            image,
            mask,
            problem,
            partial(read, mask) if read is not None and mask is not None else None,
        )

    def _file(self, value: object) -> Path | bytes | str | None:
        if isinstance(value, dict):  # the Image feature of `datasets`
            value = value.get("bytes") or value.get("path")
        if not value or not isinstance(value, bytes | str):
            return None
        if isinstance(value, str):
            if self._source.base is not None:
                if self._within is None and is_web(value):
                    return value
                path = self._source.base / value
                return path if self._within is None or _lies_in(path, self._within) else None
            return _address(self._source.name, value)
        return value


def open_pairs(
    data: str | Path, columns: Mapping[str, str] | None = None, split: str = "train", subset: str = "",
    captions: bool = True, confined: bool = False,
) -> Pairs:  # fmt: skip
    """Open a collection; nothing is decoded yet.

    data: a folder, a table, tars (also as a pattern), folder:PATH of labelled pictures, or a data set of the Hub:
        hf:owner/name, or owner/name.
    columns: which column holds the image, web, short, detailed or mask, where their names do not say; "" is not given.
    split, subset: of a data set of the Hub; split also of labelled pictures that have parts.
    captions: False accepts a collection without captions.
    confined: a row may only name regular files in the table's own folder, for a table from somebody else.
    Raises ValueError, one sentence: nothing there, unreadable, or no column for image or caption (naming those found).
    """
    given = {name: column for name, column in (columns or {}).items() if column}
    return Pairs(open_source(data, split, subset), given, captions, confined)


def _lies_in(path: Path, folder: Path) -> bool:
    """Is it a regular file, not a device or a pipe, in this folder or below it, wherever links lead?"""
    try:
        return path.resolve().is_relative_to(folder) and path.is_file()
    except (OSError, ValueError):  # a name that is too long, or no name
        return False


def _address(name: str, value: str) -> str | None:
    """Where a row of the Hub's data set `name` says its image is: there or on the web. What a stranger has written is
    never a file of this machine (fsspec opens those, too): None.
    """
    *packed, last = value.split("::")  # zip://inside.png::hf://datasets/owner/name/images.zip
    if not packed and "://" not in value:
        return f"hf://datasets/{name}/{value.lstrip('/')}"
    if is_web(value):
        return value
    return value if last.startswith("hf://") and all(part.startswith(("zip://", "tar://")) for part in packed) else None


def _joined(pair: Pair, more: Sequence[Pair]) -> Pair:
    """Several pairs of one image as one."""
    if not more:
        return pair
    together = (pair, *more)
    captions = {
        role: tuple(dict.fromkeys(text for twin in together for text in twin.captions.get(role, ()))) for role in ROLES
    }
    mask = next((twin.mask for twin in together if twin.mask is not None), None)
    return replace(pair, captions={role: texts for role, texts in captions.items() if texts}, mask=mask)


def _texts(value: object) -> tuple[str, ...]:
    """The captions of a cell: a text, a list of texts or of COCO's {"raw": text}, or a list that is written as text."""
    if isinstance(value, str) and (texts := listed(value)):
        value = texts
    values = value if isinstance(value, list | tuple) else [value]
    values = [v.get("raw") or v.get("caption") if isinstance(v, dict) else v for v in values]
    return tuple(v.strip() for v in values if isinstance(v, str) and v.strip())


def _rows(data: Any) -> Iterator[dict]:
    """Rows in order. A stream's own iterator would deal its shards out to the workers of a DataLoader."""
    from datasets import Dataset

    if isinstance(data, Dataset):
        yield from data
    else:
        for batch in data.iter(1):
            yield {column: values[0] for column, values in batch.items()}


def _undecoded(data: Any) -> Any:
    """Images as bytes or paths: `tipsv2.images` opens them. Sound and video are left out."""
    import datasets

    for column, kind in dict(data.features).items():
        if isinstance(kind, datasets.Image):
            data = data.cast_column(column, datasets.Image(decode=False))
        elif isinstance(kind, datasets.Audio | datasets.Video):
            data = data.remove_columns([column])
    return data
