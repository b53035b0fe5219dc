"""Pictures and their label files: which belongs to which, and what the numbers in a label file mean.

numbers = number_table({k + 1: k for k in range(150)}, ignored=(0, 255))     # ADE20K: 0 and 255 are not judged
labelled(pictures(root / "images/validation"), lambda name: ..., numbers)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from tipsv2.analysis.label_maps import open_labels
from tipsv2.evaluation.layouts import Sample
from tipsv2.labelled.pictures import pictures

_Place = TypeVar("_Place")  # a folder, or what the authors call the part

OUTSIDE = -2  # a number that means nothing in a data set's label files


def number_table(meaning: Mapping[int, int], ignored: Iterable[int] = (255,)) -> np.ndarray:
    """int64 [256]: the class of every number in a label file, -1 for ignored ones without one, OUTSIDE for others."""
    table = np.full(256, OUTSIDE, np.int64)
    table[list(ignored)] = -1
    table[list(meaning)] = list(meaning.values())
    return table


def listed(file: Path, folder: Path) -> dict[str, Path]:
    """The pictures of a list with a name per line, in its order. Raises ValueError where list or picture is missing."""
    if not file.is_file():
        raise ValueError(f"there is no list {file}: unpack the data set again, or name another part.")
    there = pictures(folder)
    names = file.read_text("utf-8").split()
    lost = [name for name in names if name not in there]
    if lost:
        raise ValueError(f"{folder} lacks pictures that {file.name} lists: {_some(lost)}; unpack them again.")
    return {name: there[name] for name in names}


def labelled(
    images: Mapping[str, Path], label_files: Callable[[str], Sequence[tuple[Path, np.ndarray]]]
) -> list[Sample]:
    """A sample per picture with its label map as truth, int64 [H, W], -1 where nothing is judged.

    label_files: name -> the places where its label file may be, the first that exists is read, each with its table.
    Raises ValueError where a picture has none.
    """
    samples, lost = [], []
    for name, image in images.items():
        places = label_files(name)
        there = next(((path, table) for path, table in places if path.is_file()), None)
        if there is None:
            lost.append(str(places[0][0]))
        else:
            samples.append(Sample(name, image, partial(read_labels, *there)))
    if lost:
        raise ValueError(
            f"{len(lost)} of {len(images)} pictures have no label file, such as {_some(lost)}: unpack these again."
        )
    return samples


def read_labels(path: Path, table: np.ndarray) -> np.ndarray:
    """A label file -> int64 [H, W] by `table`. Raises ValueError naming the file."""
    try:
        numbers, _ = open_labels(path)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if numbers is None:
        raise ValueError(f"{path} holds colours where numbers of classes are expected: take the data set's own file.")
    labels = np.where(numbers < len(table), table[np.minimum(numbers, len(table) - 1)], OUTSIDE)
    if (labels == OUTSIDE).any():
        worst = int(numbers[labels == OUTSIDE].max())
        raise ValueError(f"{path} holds the number {worst}, which is no class here: is it another data set's file?")
    return labels


def part_of(part: str, parts: Mapping[str, _Place]) -> _Place:
    """The folder or list that a part is called by. Raises ValueError on other parts."""
    if part not in parts:
        raise ValueError(f"there is no part '{part}': choose {' or '.join(parts)}.")
    return parts[part]


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
