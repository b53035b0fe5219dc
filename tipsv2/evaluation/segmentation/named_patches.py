"""How well a picture's patches know the names of what they show, and whether a name says "not here": of own pictures.

    shares = patch_shares(labels, present, (h, w))           # which part of each patch is of each name
    scores = patch_scores(maps[present], shares)             # cosines [P, h, w] -> peak inside, AUROC
    presence(peaks, there)                                   # AUROC of the highest cosine, by picture and by name

No threshold enters, so encoders whose cosines have different ranges can be compared. A name's patches are those it
covers by more than INSIDE; those it does not touch are the others; what lies between is left out of the AUROC. A name
with fewer than FEWEST such patches is not asked for where it is.
Sizes: C classes, P of them present, S synonyms, h x w patches, H x W pixels, I pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
import torch.nn.functional as F

from tipsv2.analysis.metrics import auroc

INSIDE = 0.5  # part of a patch that a name covers, above which the patch is the name's
HIT = 0.25  # the same for the patch where the name's cosine is highest
FEWEST = 2  # patches


def patch_shares(labels: np.ndarray, present: Sequence[int] | np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Which part of each patch's pixels is of each class of `present`: float32 [P, h, w] in [0, 1].

    labels: int [H, W].   grid: (h, w); where it does not divide (H, W) patches share the pixels between them.
    """
    shares = np.zeros((len(present), *grid), np.float32)
    for row, number in enumerate(present):  # one at a time: all together are too much for large pictures
        mask = torch.from_numpy((labels == number).astype(np.float32))
        shares[row] = F.adaptive_avg_pool2d(mask[None, None], grid)[0, 0].numpy()
    return shares


def asked_for(shares: np.ndarray) -> np.ndarray:
    """Which of the names of `patch_shares` [P, h, w] have patches enough: bool [P]."""
    return (shares > INSIDE).sum(axis=(1, 2)) >= FEWEST


def patch_auroc(cosines: np.ndarray, share: np.ndarray) -> float:
    """AUROC of a name's patches against those without it, from its cosines [h, w] and its shares [h, w]; nan where
    there are none of either.
    """
    judged = (share > INSIDE) | (share == 0)
    return auroc(cosines[judged], share[judged] > INSIDE)


def patch_scores(maps: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """float64 [P, 3] of cosines and shares [P, h, w]: does the highest cosine lie inside the name (1 or 0), how likely
    is that by chance, and `patch_auroc`.
    """
    rows = [
        (float(share.ravel()[cosines.argmax()] > HIT), float((share > HIT).mean()), patch_auroc(cosines, share))
        for cosines, share in zip(maps, shares, strict=True)
    ]
    return np.array(rows, np.float64).reshape(len(rows), 3)


def presence(peaks: np.ndarray, there: np.ndarray) -> tuple[float, float]:
    """How well the highest cosine tells what is in a picture: AUROC over names within a picture, mean over pictures,
    and AUROC over pictures for a name, mean over names.

    peaks: [I, C] highest cosine of any patch.   there: [I, C] bool. Pictures with all names or none, and names in all
    pictures or none, are left out; nan where that leaves nothing.
    """
    rows, columns = (
        [auroc(scores, truth) for scores, truth in zip(table, mask, strict=True) if 0 < truth.sum() < len(truth)]
        for table, mask in ((peaks, there), (peaks.T, there.T))
    )
    by_picture, by_name = (float(np.mean(values)) if values else float("nan") for values in (rows, columns))
    return by_picture, by_name


@dataclass(frozen=True)
class NamedPatches:
    """What one kind of features says of a set of pictures, each an entry.

    scores: float64 [P, 3] of `patch_scores`, of the names that are asked for.   peaks: float32 [C].
    synonyms: float64 [Q, 2], AUROC of a synonym and of its plain name, for each that is in the picture.
    """

    scores: Sequence[np.ndarray]
    peaks: Sequence[np.ndarray]
    synonyms: Sequence[np.ndarray]

    @classmethod
    def of(cls, kept: Sequence[Mapping[str, np.ndarray]], kind: str) -> NamedPatches:
        """From what `look_at` gave for each picture."""
        return cls(*([of_picture[f"{kind} {name}"] for of_picture in kept] for name in ("named", "peaks", "synonyms")))

    def figures(self, there: np.ndarray) -> dict[str, float | None]:
        """The figures, in [0, 1]; None for what nothing tells of. there: [I, C] bool."""
        hits, _, areas = _stacked(self.scores, 3).T
        numbers = {"peak_inside": _mean(hits), "auroc": _mean(areas)}
        synonyms = _stacked(self.synonyms, 2)
        if len(synonyms):
            numbers |= {"auroc_synonyms": _mean(synonyms[:, 0]), "auroc_their_names": _mean(synonyms[:, 1])}
        by_picture, by_name = presence(np.stack(self.peaks), there)
        return numbers | {"presence_per_picture": _rounded(by_picture), "presence_per_name": _rounded(by_name)}

    def chance(self) -> dict[str, float | None]:
        """The same figures of random cosines."""
        _, inside, areas = _stacked(self.scores, 3).T
        half = {name: 0.5 for name in ("presence_per_picture", "presence_per_name")}
        if len(_stacked(self.synonyms, 2)):
            half = {"auroc_synonyms": 0.5, "auroc_their_names": 0.5} | half
        return {"peak_inside": _mean(inside), "auroc": 0.5 if np.isfinite(areas).any() else None} | half


def look_at(
    maps: Mapping[str, np.ndarray],
    labels: np.ndarray,
    synonyms: Sequence[int] = (),
    synonym_maps: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> dict[str, np.ndarray]:
    """What `NamedPatches` needs of one picture.

    maps: features -> cosines [C, h, w] with every name, of one size.   labels: int [H, W], a class or negative.
    synonyms: the class of each synonym.   synonym_maps: features -> its cosines [S, h, w].
    """
    present = np.unique(labels[labels >= 0])
    shares = patch_shares(labels, present, next(iter(maps.values())).shape[1:])
    asked = asked_for(shares)
    present, shares = present[asked], shares[asked]
    row_of = {number: row for row, number in enumerate(present.tolist())}
    arrays = {}
    for kind, cosines in maps.items():
        scores = patch_scores(cosines[present], shares)
        pairs = [
            (patch_auroc(synonym_maps[kind][place], shares[row_of[number]]), scores[row_of[number], 2])
            for place, number in enumerate(synonyms)
            if number in row_of
        ]
        pairs = np.array(pairs, np.float64).reshape(len(pairs), 2)
        arrays[f"{kind} named"] = scores
        arrays[f"{kind} peaks"] = cosines.reshape(len(cosines), -1).max(axis=1).astype(np.float32)
        arrays[f"{kind} synonyms"] = pairs[np.isfinite(pairs).all(axis=1)]
    return arrays


def _stacked(rows: Sequence[np.ndarray], columns: int) -> np.ndarray:
    return np.concatenate([np.zeros((0, columns)), *rows])


def _mean(values: np.ndarray) -> float | None:
    return _rounded(float(np.nanmean(values))) if np.isfinite(values).any() else None


def _rounded(value: float) -> float | None:
    return round(value, 4) if np.isfinite(value) else None
