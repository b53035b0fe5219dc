"""Which phrases make a batch: of about equal length, a share of them emphasised, the same ones however often resumed.

Sizes: N phrases of which the last E are emphasised, B a batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

SHARE = 0.2  # of a batch that is emphasised, where there are emphasised phrases
POOL = 16  # batches that are drawn together and sorted by length: padding costs as much as words


class Batches:
    """Step -> the rows of its phrases. Every phrase comes once before any comes again, in an order of its own."""

    def __init__(self, lengths: Sequence[int], emphasised: int, size: int, seed: int):
        """lengths: tokens of each of the N phrases. emphasised: E of them, the last."""
        self.lengths, self.size, self.seed = np.asarray(lengths), size, seed
        plain = len(lengths) - emphasised
        some = (round(SHARE * size) if plain else size) if emphasised else 0
        self.parts = [(0, plain, size - some), (plain, emphasised, some)]  # first row, rows, how many a batch
        self._pool: tuple[int, np.ndarray] = (-1, np.empty(0))

    def rows(self, step: int) -> np.ndarray:
        """The B rows of a step, from 0."""
        number, place = divmod(step, POOL)
        if self._pool[0] != number:
            self._pool = number, self._draw(number)
        return self._pool[1][place]

    def _draw(self, number: int) -> np.ndarray:
        """POOL batches [POOL, B]: each part sorted by length and cut, then the batches shuffled."""
        columns = []
        for first, count, share in self.parts:
            if share:
                rows = first + self._stream(number * POOL * share, POOL * share, count, first)
                columns.append(rows[np.argsort(self.lengths[rows], kind="stable")].reshape(POOL, share))
        order = np.random.default_rng([self.seed, 1, number]).permutation(POOL)
        return np.concatenate(columns, axis=1)[order]

    def _stream(self, start: int, count: int, of: int, first: int) -> np.ndarray:
        """Places start..start+count of an endless row of permutations of 0..of-1."""
        drawn: list[np.ndarray] = []
        while count:
            turn, begin = divmod(start, of)
            some = np.random.default_rng([self.seed, 0, first, turn]).permutation(of)[begin : begin + count]
            drawn.append(some)
            start, count = start + len(some), count - len(some)
        return np.concatenate(drawn)


def pad(ids: Sequence[Sequence[int]], padding: int) -> tuple[Tensor, Tensor]:
    """Tokens of some texts as ids and mask [B, L], L the longest; padding at the end, masked with 0."""
    lengths = torch.tensor([len(some) for some in ids])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    padded = torch.full(mask.shape, padding)
    padded[mask] = torch.tensor([number for some in ids for number in some])
    return padded, mask.long()
