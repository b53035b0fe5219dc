"""Whether a collection's captions and pictures are still what they were: a few digests, cheap and so no proof.

    then = state_of(source, data, columns)      # {"captions": ..., "pictures": ..., "times": ...}
    replaced(then, now)                         # ["captions"]

Captions count by their text; pictures by name and size, some also by how they begin. When files were written is kept
apart: a copy of the same files has other times.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from datasets import Dataset

    from tipsv2.collections.sources import Source

ROWS = 20_000  # of more, so many evenly spread count
BEGINNINGS = 64  # pictures, or files of a stream, of which the first BYTES count
BYTES = 1 << 16
KINDS = ("captions", "pictures", "files")  # what, replaced, makes other data of it


def state_of_rows(source: Source, data: Dataset, images: Collection[str], captions: Collection[str]) -> dict[str, str]:
    """Digests of `data`'s rows: captions, pictures, times. images, captions: the columns that hold them.

    Of `source` a folder's captions are in files that the rows name, a table's in the rows.
    """
    rows = _spread(len(data), ROWS)
    texts, pictures, times = (hashlib.sha256() for _ in range(3))
    texts.update(json.dumps([len(data), source.label_names]).encode())
    in_files = source.expand is not dict
    for column in sorted(set(captions) & set(data.column_names)):
        for value in data.select_columns([column]).select(rows)[column]:
            content = _beginning(source.base / value, None) if in_files and value else json.dumps(value).encode()
            texts.update(len(content).to_bytes(8, "little") + content)
    for column in sorted(set(images) & set(data.column_names)):
        column_data = data.select_columns([column])
        if data.features[column].dtype == "string" and source.base is not None:
            paths = [source.base / name for name in column_data.select(rows)[column] if name]
            _add_files(paths, pictures, times, source.base)
        else:  # the pictures themselves: reading them all would take as long as training on them
            for value in column_data.select(_spread(len(data), BEGINNINGS))[column]:
                value = (value.get("bytes") or value.get("path")) if isinstance(value, dict) else value
                value = value.encode() if isinstance(value, str) else value or b""
                pictures.update(len(value).to_bytes(8, "little") + value[:BYTES])
    return {"captions": _short(texts), "pictures": _short(pictures), "times": _short(times)}


def state_of_files(files: Iterable[Path]) -> dict[str, str]:
    """Digests of the files a stream is read from, which hold pictures and captions: files, times."""
    contents, times = hashlib.sha256(), hashlib.sha256()
    _add_files(list(files), contents, times)
    return {"files": _short(contents), "times": _short(times)}


def replaced(before: Mapping, now: Mapping) -> list[str]:
    """Which of KINDS are no longer what they were, of those that both tell of."""
    return [kind for kind in KINDS if kind in before and kind in now and before[kind] != now[kind]]


def rewritten(before: Mapping, now: Mapping) -> bool:
    """Whether files have other times and are the same as far as that was looked at."""
    timed = "times" in before and "times" in now
    return timed and before["times"] != now["times"] and not replaced(before, now)


def _add_files(paths: list[Path], contents: hashlib._Hash, times: hashlib._Hash, base: Path | None = None) -> None:
    read = set(_spread(len(paths), BEGINNINGS))
    for number, path in enumerate(paths):
        try:
            known = os.stat(path)
            size, when = known.st_size, known.st_mtime_ns
        except OSError:
            size = when = -1
        name = os.path.relpath(path, base) if base else path.name
        contents.update(f"{name} {size} ".encode("utf-8", "replace"))
        times.update(f"{when} ".encode())
        if number in read:
            contents.update(_beginning(path, BYTES))


def _beginning(path: Path, size: int | None) -> bytes:
    """The first `size` bytes of a file, or all; nothing of one that cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(-1 if size is None else size)
    except OSError:
        return b""


def _spread(count: int, most: int) -> list[int]:
    return np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist()


def _short(digest: hashlib._Hash) -> str:
    return digest.hexdigest()[:16]
