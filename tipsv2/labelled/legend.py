"""How one label picture is read: its numbers, colours or segments -> the class of every pixel. Numpy only.

A label map is int64 [H, W]: a class's place in the list, UNLABELLED (-1) where nothing is judged.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from tipsv2.analysis.label_maps import color_codes, open_colors, open_numbers, places_of
from tipsv2.labelled.classes import HIGHEST, ClassList, color_text

UNLABELLED = -1
NAMELESS = -2  # a value that the list does not tell of


@dataclass(frozen=True)
class Legend:
    """A list of classes, and how its codes are found in a picture.

    segments: of COCO's panoptic format, by the label picture's file name: numbers int64 [S], classes int64 [S].
    """

    classes: ClassList
    segments: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = field(default=None, compare=False, repr=False)

    def read(self, file: Path) -> np.ndarray:
        """A label picture -> its label map, not to be written to. What has no name is UNLABELLED.

        Raises ValueError naming a file that is damaged, or of another kind than the list.
        """
        try:
            changed = os.stat(file).st_mtime_ns
        except OSError as error:
            raise ValueError(f"the label map '{file}' cannot be read ({error.strerror or error}).") from error
        return _read(self, file, changed)

    def codes(self, file: Path) -> np.ndarray:
        """The value of every pixel as a number, int64 [H, W]. Raises ValueError as `read`."""
        try:
            if self.segments is not None:
                red, green, blue = np.moveaxis(open_colors(file), -1, 0).astype(np.int64)
                return red + 256 * green + 65536 * blue
            if self.classes.colors:
                return color_codes(open_colors(file))
            numbers = open_numbers(file)
        except ValueError as error:
            raise ValueError(f"the label map '{file}' cannot be used: {error}") from error
        if numbers is None:
            raise ValueError(
                f"the label map '{file}' holds colours, not numbers: say what they are in a palette.tsv (R G B NAME a "
                "line), or save a number a pixel."
            )
        return numbers

    def places(self, codes: np.ndarray, file: Path) -> np.ndarray:
        """Codes of a picture -> the class of each, UNLABELLED where it is ignored, NAMELESS where it has no name."""
        if self.segments is not None:
            numbers, classes = self.segments[file.name]
            keys, values = np.append(numbers, 0), np.append(classes, UNLABELLED)
            return np.append(values, NAMELESS)[places_of(codes, keys, len(keys))]
        if self.classes.colors:
            keys, values = self._keys
            return np.append(values, NAMELESS)[places_of(codes, keys, len(keys))]
        # as unsigned numbers, what is negative is far above the highest
        return self._table[np.minimum(codes.view(np.uint64), HIGHEST + 1)]

    def shown(self, code: int) -> str:
        """A value as a sentence has it."""
        return color_text(code) if self.classes.colors else str(code)

    @cached_property
    def _keys(self) -> tuple[np.ndarray, np.ndarray]:
        ignored = sorted(self.classes.ignored)
        keys = np.array([*self.classes.codes, *ignored], np.int64)
        return keys, np.array([*range(len(self.classes.codes)), *[UNLABELLED] * len(ignored)], np.int64)

    @cached_property
    def _table(self) -> np.ndarray:
        table = np.full(HIGHEST + 2, NAMELESS, np.int64)
        keys, values = self._keys
        table[keys[keys <= HIGHEST]] = values[keys <= HIGHEST]
        return table


@lru_cache(maxsize=1)  # in training a map is asked for twice in a row: for a caption, and for the patches' labels
def _read(legend: Legend, file: Path, changed: int) -> np.ndarray:
    labels = np.maximum(legend.places(legend.codes(file), file), UNLABELLED)
    labels.flags.writeable = False
    return labels
