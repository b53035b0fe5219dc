"""A folder of kept crops: its files, how they are written a row at a time, and how they are opened to train on.

    meta.json      how it was made (a dictionary), the digest of the frozen part, and how many crops were asked for
    progress.json  how many rows are whole: a stopped one goes on there, and what is whole can be used
    hidden.npy     float16 [M, T, D]: CLS, registers and patches after the last frozen block
    labels.npy     int16 [M, N]: the name that most of a patch shows, -1 = unlabelled; share.npy float16 [M, N]: of it
    known.npy      int16 [M]: the class that the picture is known to show, -1 = none
    soft.npy       int16 [M, N, 8] classes, likeliest first, and chance.npy float16 [M, N, 8]: how likely
    names.json     what labels mean; captions.jsonl: a line a row, {role: text}

M crops, T tokens, N patches, D width. Files that a source has nothing for are not there.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from tipsv2.files import whole_file, whole_folder
from train.recipe.settings import PATCH

META, PROGRESS, NAMES, CAPTIONS = "meta.json", "progress.json", "names.json", "captions.jsonl"
BEST = 8  # classes that are kept of a patch
ARRAYS = {
    "hidden": np.float16,
    "labels": np.int16,
    "share": np.float16,
    "known": np.int16,
    "soft": np.int16,
    "chance": np.float16,
}


@dataclass(frozen=True)
class Kept:
    """An opened folder. `rows` are whole, and the arrays are memory maps of them."""

    folder: Path
    meta: dict
    rows: int
    names: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def blocks(self) -> int:
        """How many blocks the tokens have gone through."""
        return self.meta["blocks"]

    @property
    def size(self) -> int:
        """Side of the crops in pixels."""
        return self.meta["size"]

    @property
    def side(self) -> int:
        """Patches of a crop's side."""
        return self.size // PATCH

    def has(self, array: str) -> bool:
        """Whether there is such an array: hidden, labels, share, known, soft, chance."""
        return (self.folder / f"{array}.npy").exists()

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """name -> what there is of it."""
        return {name: _open_array(self.folder, name, self.rows) for name in ARRAYS if self.has(name)}

    @cached_property
    def captions(self) -> list[dict[str, str]]:
        """A dictionary a row, empty where there is none."""
        place = self.folder / CAPTIONS
        try:
            lines = place.read_text("utf-8").splitlines() if place.exists() else []
            rows = [json.loads(line) for line in lines[: self.rows]]
        except ValueError as error:
            raise ValueError(f"'{place}' is damaged: {_again(self.folder)}") from error
        return rows if rows else [{}] * self.rows


def open_kept(folder: Path) -> Kept:
    """Raises ValueError, one sentence, where there is no such folder or a file of it is damaged or of another size."""
    meta, rows, names = _noted(folder)
    if not rows:
        raise ValueError(f"'{folder}' holds no crop yet: let python -m train keep go on.")
    kept = Kept(folder, meta, rows, tuple(names))
    if not kept.has("hidden"):
        raise ValueError(f"'{folder}' lacks hidden.npy: {_again(folder)}")
    for name, array in kept.arrays.items():
        if len(array) < rows:
            raise ValueError(f"'{folder / name}.npy' holds {len(array)} rows of {rows}: {_again(folder)}")
    return kept


def begin(folder: Path, meta: dict, names: Sequence[str], shapes: dict[str, tuple[int, ...]]) -> int:
    """Make the folder with room for every row, or see that it is the same; returns how many rows are whole.

    shapes: array -> its shape. Raises ValueError for a folder that is damaged or of other settings, OSError where the
    disk has no room.
    """
    if (folder / META).exists():
        before, rows, _ = _noted(folder)
        changed = [key for key in {**meta, **before} if meta.get(key) != before.get(key)]
        if changed:
            differences = "; ".join(f"{key} was {before.get(key)!r}, now {meta.get(key)!r}" for key in changed[:3])
            raise ValueError(
                f"'{folder}' was kept otherwise ({differences}): give what was given then, or another --out."
            )
        return rows
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"'{folder}' is not empty and holds nothing kept; choose another --out.")
    need = sum(int(np.prod(shape)) * np.dtype(ARRAYS[name]).itemsize for name, shape in shapes.items())
    folder.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder.parent).free
    if need > free:
        raise OSError(
            f"'{folder}' would take {need / 1e9:.1f} GB and the disk has {free / 1e9:.1f} GB: keep fewer crops, "
            "smaller ones, or choose another place."
        )
    with whole_folder(folder) as part:
        (part / META).write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
        (part / NAMES).write_text(json.dumps(list(names), ensure_ascii=False) + "\n", encoding="utf-8")
        (part / PROGRESS).write_text(json.dumps({"rows": 0}) + "\n")
        for name, shape in shapes.items():
            np.lib.format.open_memmap(part / f"{name}.npy", "w+", ARRAYS[name], shape)
    return 0


class Writer:
    """Rows into the arrays of a begun folder, by ordinary writes: a full disk is then an error, not a crash."""

    def __init__(self, folder: Path, names: Sequence[str]):
        self.folder, self._files, self._starts, self._bytes = folder, {}, {}, {}
        for name in names:
            array = np.load(folder / f"{name}.npy", mmap_mode="r")
            self._starts[name], self._bytes[name] = array.offset, array[:1].nbytes
            self._files[name] = (folder / f"{name}.npy").open("r+b")

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_) -> None:
        for file in self._files.values():
            file.close()

    def put(self, name: str, row: int, values: np.ndarray) -> None:
        """`values` [n, ...] as the rows from `row` on."""
        file = self._files[name]
        file.seek(self._starts[name] + row * self._bytes[name])
        file.write(np.ascontiguousarray(values, ARRAYS[name]).tobytes())

    def whole(self, rows: int, captions: Sequence[dict[str, str]]) -> None:
        """Everything up to `rows` is there: say so on the disk."""
        for file in self._files.values():
            file.flush()
        if any(captions):
            with whole_file(self.folder / CAPTIONS) as part:
                part.write_text("".join(json.dumps(c, ensure_ascii=False) + "\n" for c in captions), encoding="utf-8")
        with whole_file(self.folder / PROGRESS) as part:
            part.write_text(json.dumps({"rows": rows}) + "\n")


def _noted(folder: Path) -> tuple[dict, int, list[str]]:
    """What meta.json, progress.json and names.json say. Raises ValueError where one is missing or damaged."""
    try:
        meta = json.loads((folder / META).read_text("utf-8"))
        rows = json.loads((folder / PROGRESS).read_text("utf-8"))["rows"]
        names = json.loads((folder / NAMES).read_text("utf-8"))
        if not {"vision", "blocks", "size", "frozen"} <= meta.keys():
            raise KeyError(META)
    except FileNotFoundError as error:
        raise ValueError(
            f"'{folder}' holds nothing kept: python -m train keep SOURCE --out {folder} makes it."
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"'{folder}' is damaged: {_again(folder)}") from error
    return meta, rows, names


def _open_array(folder: Path, name: str, rows: int) -> np.ndarray:
    place = folder / f"{name}.npy"
    try:
        array = np.load(place, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"'{place}' is damaged: {_again(folder)}") from error
    if array.dtype != ARRAYS[name]:
        raise ValueError(f"'{place}' holds {array.dtype} and not {np.dtype(ARRAYS[name])}: {_again(folder)}")
    return array[:rows]


def _again(folder: Path) -> str:
    return f"delete '{folder}' and make it again with python -m train keep."
