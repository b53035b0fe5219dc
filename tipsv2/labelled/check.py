"""A look at labelled pictures before anything long starts: do sizes fit, and has every value a name?

unlabelled, notes = survey(pictures, legend)

Of many pictures MOST are looked at, evenly spread over all; what comes later is found when it is read.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from tipsv2.images import ImageError, picture_size
from tipsv2.labelled.classes import HIGHEST
from tipsv2.labelled.legend import NAMELESS, UNLABELLED, Legend

MOST = 1000
UNNAMED = 0.5  # part of all pixels whose values have no name, from which on the list is taken for a wrong one
UNCOVERED = 0.02  # the same of colours: soft edges may be so many
SHOWN = 3  # values that are named


@dataclass(frozen=True)
class Picture:
    """A picture and the file of its labels."""

    name: str  # without its ending
    image: Path
    labels: Path


@dataclass(frozen=True)
class _Seen:
    """Of one picture: pixels, how many are of a class, and how many have which nameless value."""

    pixels: int
    named: int
    nameless: dict[int, int]


def survey(pictures: Sequence[Picture], legend: Legend) -> tuple[float, tuple[str, ...]]:
    """The part of the pixels that is unlabelled, and sentences about values without a name.

    Raises ValueError, one sentence, where pictures and label maps differ in size, cannot be read, or where too much has
    no name.
    """
    chosen = tuple(pictures[k * len(pictures) // min(len(pictures), MOST)] for k in range(min(len(pictures), MOST)))
    changed = tuple(_stamp(path) for picture in chosen for path in (picture.image, picture.labels))
    return _survey(chosen, legend, changed)


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError as error:
        raise ValueError(f"'{path}' cannot be read ({error.strerror or error}).") from error
    return status.st_size, status.st_mtime_ns


@lru_cache(maxsize=4)  # a command opens its data before the model, to see what is wrong, and again to use them
def _survey(pictures: tuple[Picture, ...], legend: Legend, changed: tuple) -> tuple[float, tuple[str, ...]]:
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        _check_sizes(list(pool.map(_sizes, pictures)), pictures)
        seen = list(pool.map(partial(_look, legend), pictures))
    pixels = sum(counts.pixels for counts in seen)
    named = sum(counts.named for counts in seen)
    nameless: Counter[int] = Counter()
    for counts in seen:
        nameless.update(counts.nameless)
    notes = _judge(nameless, pixels, seen, pictures, legend) if nameless else ()
    if not named:
        raise ValueError(
            f"none of the label maps, such as '{pictures[0].labels}', holds a pixel of a class that "
            f"'{legend.classes.source}' names: they do not belong together."
        )
    return 1 - named / pixels, notes


def _sizes(picture: Picture) -> tuple[tuple[int, int], tuple[int, int]]:
    try:
        return picture_size(picture.image), picture_size(picture.labels, upright=False)
    except ImageError as error:
        raise ValueError(f"'{picture.name}' of '{picture.image.parent}' cannot be used: {error}") from error


def _check_sizes(sizes: Sequence[tuple[tuple[int, int], tuple[int, int]]], pictures: Sequence[Picture]) -> None:
    wrong = [k for k, (image, labels) in enumerate(sizes) if image != labels]
    if wrong:
        (width, height), (other_width, other_height) = sizes[wrong[0]]
        raise ValueError(
            f"{len(wrong)} of {len(pictures)} label maps have another size than their picture, such as "
            f"'{pictures[wrong[0]].labels}' ({other_width} x {other_height}, the picture {width} x {height}): a label "
            "map says of every pixel of its picture what it shows."
        )


def _look(legend: Legend, picture: Picture) -> _Seen:
    values, counts = _counted(legend.codes(picture.labels))
    places = legend.places(values, picture.labels)
    nameless = places == NAMELESS
    unnamed = dict(zip(values[nameless].tolist(), counts[nameless].tolist(), strict=True))
    return _Seen(int(counts.sum()), int(counts[places > UNLABELLED].sum()), unnamed)


def _counted(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different values, int64 [V], and how many pixels have each."""
    if not 0 <= codes.min() <= codes.max() <= HIGHEST:
        return np.unique(codes, return_counts=True)
    counts = np.bincount(codes.ravel())  # far faster, where the table of all values is short
    values = np.flatnonzero(counts)
    return values, counts[values]


def _judge(
    nameless: Counter[int], pixels: int, seen: Sequence[_Seen], pictures: Sequence[Picture], legend: Legend
) -> tuple[str, ...]:
    total = sum(nameless.values())
    worst = max(range(len(seen)), key=lambda k: sum(seen[k].nameless.values()))
    shown = _shares(nameless, pixels, legend.shown)
    source, example = legend.classes.source, pictures[worst].labels.name
    if legend.classes.colors and total > UNCOVERED * pixels:
        raise ValueError(
            f"the palette '{source}' does not cover the label maps: {_percent(total / pixels)} of their pixels have "
            f"colours that it lacks ({shown}; most in {example}): add a line for each, without a name for what is not "
            "judged."
        )
    what = "colours" if legend.classes.colors else "segments" if legend.segments is not None else "values"
    if total > UNNAMED * pixels:
        raise ValueError(
            f"{_percent(total / pixels)} of the pixels of the label maps have {what} that '{source}' gives no name "
            f"({shown}; most in {example}): take the list that they were made for (or the number it begins with, "
            "first=N), or say which are not judged, by a line without a name or void=N."
        )
    return (
        f"{_percent(total / pixels)} of the pixels have {what} that '{source}' gives no name ({shown}): they count as "
        "unlabelled.",
    )


def _shares(nameless: Counter[int], pixels: int, shown: Callable[[int], str]) -> str:
    parts = [f"{shown(code)}: {_percent(count / pixels)}" for code, count in nameless.most_common(SHOWN)]
    return ", ".join(parts) + (f" and {len(nameless) - SHOWN} more" if len(nameless) > SHOWN else "")


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.001 else "under 0.1 %"
