"""Pictures that a run keeps apart: it never learns from them, so what it makes of them is no memory.

held = held_rows(len(pairs), Data(held_out=0.15), seed=0)   # numbers of pairs
apart, learned = Part(pairs, held), Part(pairs, others(len(pairs), held))
"""

from __future__ import annotations

import numpy as np

from tipsv2.collections.pairs import Pair, Pairs
from train.recipe.settings import Data


def held_rows(count: int, data: Data, seed: int) -> np.ndarray:
    """Which of `count` pairs are kept apart, in order, as many as `Data.kept_apart` says. Rows that name one picture
    are one pair (tipsv2.collections.pairs), so no picture is on both sides.
    """
    chosen = np.random.default_rng([seed, count]).permutation(count)
    return np.sort(chosen[: data.kept_apart(count)])


def others(count: int, held: np.ndarray) -> np.ndarray:
    """The rows that are not held."""
    return np.setdiff1d(np.arange(count), held)


class Part:
    """Some of the pairs, by number, in the order of `rows`."""

    def __init__(self, pairs: Pairs, rows: np.ndarray):
        self.pairs, self.rows, self.name = pairs, rows, pairs.name

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> Pair:
        """Raises IndexError past the end, which is where iterating stops."""
        return self.pairs[int(self.rows[number])]
