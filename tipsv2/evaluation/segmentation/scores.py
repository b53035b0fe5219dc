"""A data set's label maps against its truth: confusion tables image by image, and what follows from them.

    tables = Tables(["a.jpg"], [pack(confusion_matrix(truth, labels, 150))], 150)
    tables.miou(), tables.interval(), tables.of_images()

mIoU is that of the sum of all images' tables (TIPSv2's notebook), classes in neither truth nor guess left out.
Sizes: C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tipsv2.analysis.metrics import accuracy, class_iou, mean_iou
from tipsv2.records import bootstrap

if TYPE_CHECKING:
    from scipy.sparse import csr_array


def pack(confusion: np.ndarray) -> np.ndarray:
    """A confusion table [C, C], mostly zeros -> int64 [2, n]: where it is not zero, counted by rows, and how much."""
    flat = confusion.ravel()
    places = np.flatnonzero(flat)
    return np.stack([places, flat[places]])


class Tables:
    """The packed confusion tables of a data set's images, row = truth, column = guess."""

    def __init__(self, names: Sequence[str], packed: Sequence[np.ndarray], num_classes: int):
        self.names, self.num_classes = list(names), num_classes
        self._packed = list(packed)

    def sum(self) -> np.ndarray:
        """The data set's table, int64 [C, C]."""
        total = np.zeros(self.num_classes**2, np.int64)
        for places, counts in self._packed:
            total[places] += counts
        return self._square(total)

    def miou(self) -> float:
        return mean_iou(self.sum())

    def pixel_accuracy(self) -> float:
        return accuracy(self.sum())

    def interval(self) -> tuple[float, float]:
        """Bootstrap interval of the mIoU, 95 %, over images, centred; see
        `tipsv2.records.bootstrap`.
        """
        sparse = self._sparse()
        return bootstrap(len(self.names), lambda weights: mean_iou(self._square(weights @ sparse)), centred=True)

    def difference(self, other: Tables) -> tuple[float, float]:
        """Interval of the other's mIoU minus this one's, the same images drawn for both (paired bootstrap)."""
        if self.names != other.names:
            raise ValueError("The two evaluations are of different images: their difference has no paired interval.")
        mine, theirs = self._sparse(), other._sparse()
        return bootstrap(
            len(self.names),
            lambda weights: mean_iou(self._square(weights @ theirs)) - mean_iou(self._square(weights @ mine)),
            centred=True,
        )

    def of_images(self) -> np.ndarray:
        """float64 [images]: mean IoU of the classes that are in each image; nan where nothing is judged."""
        scores = np.full(len(self.names), np.nan)
        for number, (places, counts) in enumerate(self._packed):
            table = np.zeros(self.num_classes**2, np.int64)
            table[places] = counts
            there = self._square(table).any(axis=1)
            if there.any():
                scores[number] = class_iou(self._square(table))[there].mean()
        return scores

    def truth(self) -> np.ndarray:
        """int64 [images, C]: how many pixels of each image are of each class."""
        rows = np.zeros((len(self.names), self.num_classes), np.int64)
        for number, (places, counts) in enumerate(self._packed):
            np.add.at(rows[number], places // self.num_classes, counts)
        return rows

    def numbers(self, classes: tuple[str, ...]) -> dict:
        """mIoU with its interval, pixel accuracy, and the classes one by one; None for what nothing tells of."""
        low, high = self.interval()
        numbers = {"miou": self.miou(), "miou_low": low, "miou_high": high, "pixel_accuracy": self.pixel_accuracy()}
        rounded = {name: None if np.isnan(value) else round(value, 4) for name, value in numbers.items()}
        return rounded | {"per_class": class_table(self.sum(), classes)}

    def _square(self, flat: np.ndarray) -> np.ndarray:
        return flat.reshape(self.num_classes, self.num_classes)

    def _sparse(self) -> csr_array:
        """Every image a row: scipy's sparse [images, C * C]."""
        from scipy.sparse import csr_array

        ends = np.cumsum([0, *(packed.shape[1] for packed in self._packed)])
        places, counts = np.concatenate(self._packed, axis=1)
        return csr_array((counts, places, ends), shape=(len(self.names), self.num_classes**2))


def class_table(confusion: np.ndarray, names: tuple[str, ...]) -> dict[str, dict[str, float | None]]:
    """Name -> IoU (None if the class is in neither), and which part of the judged pixels is it and was taken for it."""
    iou = class_iou(confusion)
    total = max(1, int(confusion.sum()))
    return {
        name: {
            "iou": None if np.isnan(iou[row]) else round(float(iou[row]), 4),
            "truth": round(float(confusion[row].sum() / total), 4),
            "guess": round(float(confusion[:, row].sum() / total), 4),
        }
        for row, name in enumerate(names)
    }


def chance(truth: np.ndarray, candidates: str) -> float:
    """mIoU of a guess drawn uniformly per pixel among the candidates (ratio of expected pixel counts, per class).

    truth: [images, C] pixels of each class.   candidates: "present", the image's own classes, or "all".
    """
    guessed, hit = _expected(truth, truth > 0 if candidates == "present" else np.ones(truth.shape, bool))
    guessed, hit, truth = guessed.sum(axis=0), hit.sum(axis=0), truth.sum(axis=0)
    union = truth + guessed - hit
    return float((hit[union > 0] / union[union > 0]).mean())


def chance_of_images(truth: np.ndarray) -> float:
    """What the mean of `Tables.of_images` is for such a guess among each image's own classes; nan without any."""
    guessed, hit = _expected(truth, truth > 0)
    iou = np.divide(hit, truth + guessed - hit, out=np.zeros(truth.shape), where=truth > 0)
    there = (truth > 0).sum(axis=1)
    return float((iou.sum(axis=1)[there > 0] / there[there > 0]).mean()) if there.any() else float("nan")


def _expected(truth: np.ndarray, among: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of a guess drawn uniformly among the classes that are allowed, bool [images, C]: how many pixels are guessed and
    how many rightly, float64 [images, C] each.
    """
    choices = np.maximum(1, among.sum(axis=1, keepdims=True))
    return among * truth.sum(axis=1, keepdims=True) / choices, truth / choices
