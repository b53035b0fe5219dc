"""Batches of kept crops, as a function of the step alone: resuming at step k needs nothing but k."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from tipsv2.files import whole_file
from train.data.kept.folder import BEST
from train.data.kept.sets import open_sets
from train.data.kept.words import Words, compose
from train.recipe.settings import Recipe


class KeptBatches(Dataset):
    """Item `step` is that step's batch. Of set number k, with B crops, N patches and C names:

    k.hidden float16 [B, T, D]; k.labels [B, N] (-1 = unlabelled), k.share [B, N] and k.names [C] where it has labels;
    k.known [B] (-1 = none) where some are; where it has soft names k.soft_at [n], places of B * N, k.soft and k.chance
    [n, 8];
    k.captions [B, 2] (-1 = none) where captions are learned from. names, captions, and for all sets classes [K] and
    groups [G], are rows of the sentence vectors (`train.data.kept.words`).
    seed [] is of what else is random in the step.
    Raises ValueError where a set's crops cannot be shared out among the processes.
    """

    drawn = False

    def __init__(self, recipe: Recipe, rank: int = 0, world: int = 1, words: Words | None = None):
        self.recipe, self.rank, self.world = recipe, rank, world
        self.sets = open_sets(recipe.data.source)
        self.words = words or compose(
            [kept_set.kept for kept_set in self.sets], recipe.kept, recipe.whole_names.captions > 0
        )
        self.rows = [kept_set.kept.rows for kept_set in self.sets]
        self.known = [bool((kept_set.kept.arrays["known"] >= 0).any()) for kept_set in self.sets]
        self._orders: dict[int, tuple[int, np.ndarray]] = {}
        for kept_set in self.sets:
            if kept_set.crops % world:
                raise ValueError(
                    f"{kept_set.crops} crops of {kept_set.kept.folder} cannot be shared by {world} processes; use a "
                    "multiple."
                )

    def __len__(self) -> int:
        return self.recipe.steps

    def images_before(self, step: int) -> int:
        """How many crops the steps before `step` consumed."""
        return step * sum(kept_set.crops for kept_set in self.sets)

    def extent(self) -> str:
        """What the data are and how often they are gone through."""
        parts = [
            f"{kept_set.kept.name} {rows:,} crops, {self.recipe.steps * kept_set.crops / rows:.1f} epochs"
            for kept_set, rows in zip(self.sets, self.rows, strict=True)
        ]
        return f"data: {'; '.join(parts)}"

    def too_many(self, unreadable: int, tried: int) -> bool:
        """Never: what is kept is read already."""
        return False

    def remember(self, record: Path) -> None:
        """Keep how many crops there were when the run began. Raises ValueError where there are fewer now; of more, the
        run goes on with those that it began with.
        """
        if not record.exists():
            if self.rank == 0:
                with whole_file(record) as part:
                    part.write_text(json.dumps({"rows": self.rows}) + "\n")
            return
        try:
            before = json.loads(record.read_text())["rows"]
        except (ValueError, KeyError) as error:
            raise ValueError(f"{record} is damaged: start a new run, or write the crops of each set there.") from error
        for kept_set, then, now in zip(self.sets, before, self.rows, strict=True):
            if then > now:
                raise ValueError(f"'{kept_set.kept.folder}' held {then} crops when the run began and has {now} now.")
        self.rows = before

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        seed = np.random.SeedSequence([self.recipe.seed, step, self.rank]).generate_state(1)
        generator = torch.Generator().manual_seed(int(seed[0]))
        batch = {"seed": torch.tensor(int(seed[0]))}
        for name, listed in self.words.lists.items():
            key = f"{name}.names" if name.isdigit() else name
            batch[key] = listed.choose(generator, self.recipe.kept.own)
        for number, kept_set in enumerate(self.sets):
            rows = self._rows(number, step)
            arrays = kept_set.kept.arrays
            part = {"hidden": torch.from_numpy(arrays["hidden"][rows])}
            if self.known[number]:
                part["known"] = torch.from_numpy(arrays["known"][rows]).long()
            if "labels" in arrays:
                part["labels"] = torch.from_numpy(arrays["labels"][rows]).long()
                part["share"] = torch.from_numpy(arrays["share"][rows]).float()
            if "soft" in arrays:
                soft = torch.from_numpy(arrays["soft"][rows]).long().view(-1, BEST)
                most = self.recipe.soft_names.patches
                at = torch.randperm(len(soft), generator=generator)[: most or None].sort().values
                chance = torch.from_numpy(arrays["chance"][rows]).float().view(-1, BEST)
                part |= {"soft_at": at, "soft": soft[at], "chance": chance[at]}
            if number in self.words.captions:
                part["captions"] = self.words.captions[number][torch.from_numpy(rows)]
            batch |= {f"{number}.{key}": value for key, value in part.items()}
        return batch

    def _rows(self, number: int, step: int) -> np.ndarray:
        """This process's crops of a set: an endless row of permutations, cut into steps."""
        count, share = self.rows[number], self.sets[number].crops // self.world
        first = step * self.sets[number].crops + self.rank * share
        return np.array([self._order(number, (first + k) // count)[(first + k) % count] for k in range(share)])

    def _order(self, number: int, epoch: int) -> np.ndarray:
        if self._orders.get(number, (-1,))[0] != epoch:
            order = np.random.default_rng([self.recipe.seed, number, epoch]).permutation(self.rows[number])
            self._orders[number] = epoch, order
        return self._orders[number][1]
