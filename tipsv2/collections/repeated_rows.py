"""Rows of a table that name the same image: one image with several captions.

groups = RepeatedRows.of(table.column("image"))      # None where no image comes twice
groups[0]                                            # the rows of the first image
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa


class RepeatedRows:
    """Row numbers by image, images in the order in which they first come. Holds two numbers a row."""

    def __init__(self, rows: np.ndarray, starts: np.ndarray):
        self._rows, self._starts = rows, starts

    @staticmethod
    def of(names: pa.ChunkedArray) -> RepeatedRows | None:
        """names: text; a row without a name is an image of its own."""
        import pyarrow as pa

        if not (pa.types.is_string(names.type) or pa.types.is_large_string(names.type)):
            return None
        coded = names.combine_chunks().dictionary_encode()
        coded = coded.combine_chunks() if isinstance(coded, pa.ChunkedArray) else coded
        values = coded.dictionary.to_pylist()
        codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        nameless = codes == -1
        if "" in values:
            nameless |= codes == values.index("")
        codes[nameless] = len(values) + np.arange(nameless.sum())
        rows = np.argsort(codes, kind="stable")
        first = np.flatnonzero(np.diff(codes[rows], prepend=-1))
        if len(first) == len(codes):
            return None
        order = np.argsort(rows[first], kind="stable")
        ends = np.append(first[1:], len(rows))
        lengths = (ends - first)[order]
        starts = np.append(0, np.cumsum(lengths))
        places = np.repeat(first[order] - starts[:-1], lengths) + np.arange(len(rows))
        return RepeatedRows(rows[places], starts)

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, image: int) -> list[int]:
        image = range(len(self))[image]  # counts from the end, and refuses what is out of range, as a list does
        return self._rows[self._starts[image] : self._starts[image + 1]].tolist()
