"""What is known of parts that are not finished: pieces beside a folder's embeddings, written every so often, so that a
kill costs no more than the time between two of them.

    pieces = Pieces(folder)
    pieces.known(shard, row)          # is this row in one?
    pieces.add(shard, part, rows)     # a Part, maybe of few rows
    pieces.take(shard, part)          # a Part with all of them, as far as they can be read
    pieces.drop(shard, part)          # once the part itself is written

A piece is one safetensors file: vectors and patch grids as tensors, what else is known of a row in its header.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tipsv2.collections.store import VECTORS, Folder, Part

if TYPE_CHECKING:
    from collections.abc import Container

PLACE = "pieces"
NAME = re.compile(r"(\d+)-(\d+)\..+\.safetensors")


class Pieces:
    """The pieces of a folder that were there when this was made, and those that are added."""

    def __init__(self, folder: Folder, done: Container[tuple[int, int]] = ()):
        """done: (shard, part) of finished parts, whose pieces are of no use any more and go."""
        self._folder, self._size = folder, folder.manifest["settings"]["shard_size"]
        self._numbers = itertools.count()
        self._parts: dict[tuple[int, int], Part] = {}
        for file in sorted((folder.path / PLACE).glob("*.safetensors")):
            match = NAME.fullmatch(file.name)
            part = (int(match[1]), int(match[2])) if match else None
            if part is None or part in done or not self._read(file, part):
                file.unlink(missing_ok=True)
        self._rows = {
            (shard, row["row"])
            for (shard, _), part in self._parts.items()
            for row in (*part.images, *part.unreadable)
            if row.get("what", "image") == "image"
        }

    def known(self, shard: int, row: int) -> bool:
        """Whether a row was embedded, or could not be read."""
        return (shard, row) in self._rows

    def take(self, shard: int, row: int) -> Part:
        """What is known of the part that a row is in."""
        part = self._parts.pop((shard, row // self._size), None) or Part()
        embedded = {image["row"] for image in part.images}
        part.unreadable = [fault for fault in part.unreadable if fault["what"] == "image" or fault["row"] in embedded]
        return part

    def add(self, rows: Part) -> None:
        """Write images, patches and unreadable rows of one part. Raises OSError where the disk does not take them."""
        from safetensors.numpy import save

        every = (*rows.images, *rows.unreadable)
        if not every:
            return
        tensors = {f"{kind}/{k}": row[kind] for k, row in enumerate(rows.images) for kind in VECTORS}
        tensors |= {f"patches/{k}": rows.patches[row["id"]] for k, row in enumerate(rows.images) if rows.patches}
        plain = [{key: value for key, value in row.items() if key not in VECTORS} for row in rows.images]
        header = {"rows": json.dumps({"images": plain, "unreadable": rows.unreadable})}
        shard, part = every[0]["shard"], every[0]["row"] // self._size
        name = f"{shard:06d}-{part:06d}.{socket.gethostname()}-{os.getpid()}-{next(self._numbers)}.safetensors"
        tensors = {key: np.ascontiguousarray(value) for key, value in tensors.items()}
        self._folder.write_file(f"{PLACE}/{name}", save(tensors, header))

    def drop(self, shard: int, part: int) -> None:
        """Forget the pieces of a part that is written."""
        for file in (self._folder.path / PLACE).glob(f"{shard:06d}-{part:06d}.*"):
            file.unlink(missing_ok=True)

    def close(self) -> None:
        """Leave nothing of a folder that is complete."""
        shutil.rmtree(self._folder.path / PLACE, ignore_errors=True)

    def _read(self, file: Path, part: tuple[int, int]) -> bool:
        """Add a piece to what is known; False where it is damaged, so that its rows are embedded again."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(file, framework="numpy") as opened:
                rows = json.loads(opened.metadata()["rows"])
                grids = {key for key in opened.keys() if key.startswith("patches/")}  # noqa: SIM118 (not a dict)
                read = Part(unreadable=rows["unreadable"])
                for k, row in enumerate(rows["images"]):
                    read.images.append(row | {kind: opened.get_tensor(f"{kind}/{k}") for kind in VECTORS})
                    if f"patches/{k}" in grids:
                        read.patches[row["id"]] = opened.get_tensor(f"patches/{k}")
        except (OSError, ValueError, KeyError, TypeError, SafetensorError):
            return False
        known = self._parts.setdefault(part, Part())
        there = {row["row"] for row in known.images}  # two workers may have done the same
        lost = {(row["row"], row["what"]) for row in known.unreadable}
        known.images += [row for row in read.images if row["row"] not in there]
        known.unreadable += [row for row in read.unreadable if (row["row"], row["what"]) not in lost]
        known.patches |= read.patches
        return True
