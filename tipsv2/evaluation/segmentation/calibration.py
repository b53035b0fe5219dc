"""Fits what "here" and "not here" mean for an encoder (`tipsv2.analysis.verdict`) to pictures with label maps.

    python -m tipsv2 calibrate folder:held --model opentips-s14 --limit 20

A name is there where at least two patches are
mostly its (`named_patches.asked_for`), it is not where it has no pixel; what lies between is left out. Both count half,
however rare one of them is, so that the thresholds are for a person who asks for as many things that are there as not;
the figures say what comes of it where every name of the data set is asked for, too.
Sizes: I pictures, C names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from tqdm.auto import tqdm

from tipsv2.analysis.heatmap import patch_maps
from tipsv2.analysis.metrics import auroc
from tipsv2.analysis.verdict import HERE, NOT_HERE, Calibration, measure, words_of
from tipsv2.evaluation.layouts import SampleLike, Split, open_data
from tipsv2.evaluation.segmentation.named_patches import INSIDE, asked_for, patch_shares
from tipsv2.evaluation.shared.splits import network_side, scene_split
from tipsv2.network.view import View
from tipsv2.scenes.splits import is_scenes

if TYPE_CHECKING:
    from tipsv2.network.encoder import Encoder

T = TypeVar("T")

RIGHT = {HERE: 0.95, NOT_HERE: 0.9}  # of the verdicts, where half of what is asked is there
COVERED = 0.2  # part of the patches that show a class and lie below the floor
DARK, BRIGHT = 0.5, 0.9  # quantiles of the peaks of what is absent and of what is there


@dataclass(frozen=True)
class Measured:
    """What was measured on pictures of one data set."""

    peaks: np.ndarray  # float64 [I, C]
    leads: np.ndarray  # float64 [I, C]
    there: np.ndarray  # bool [I, C]
    judged: np.ndarray  # bool [I, C]: there, or without a pixel
    covered: tuple[np.ndarray, ...]  # a picture's cosines of the classes' nine templates at the patches that show them

    def part(self, chosen: slice) -> Measured:
        """Some of the pictures."""
        return Measured(*(value[chosen] for value in vars(self).values()))


def look(encoder: Encoder, split: Split, samples: Sequence[SampleLike], resolution: int | None) -> Measured:
    """Encode the pictures and measure every name of the data set in each."""
    text, framed = (encoder.encode_text(split.classes, templates, True) for templates in ("none", "tips9"))
    _, rows = words_of(encoder)
    kept = []
    for sample in tqdm(samples, unit="image", desc=split.layout):
        features = encoder.look(sample.image, View(resolution))
        labels = sample.truth()
        present = np.unique(labels[labels >= 0])
        shares = patch_shares(labels, present, (features.values.shape[0], features.values.shape[1]))
        there, judged = np.zeros((2, len(split.classes)), bool)
        there[present[asked_for(shares)]] = True
        judged[:] = there
        judged[np.setdiff1d(np.arange(len(judged)), present)] = True
        peaks, leads, _, _ = measure(features.values, text, rows)
        inside = patch_maps(features, framed[torch.from_numpy(present)]).numpy()[shares > INSIDE]
        kept.append((peaks.double().numpy(), leads.double().numpy(), there, judged, inside))
    *tables, covered = zip(*kept, strict=True)
    peaks, leads, there, judged = map(np.stack, tables)
    return Measured(peaks, leads, there, judged, covered)


def fit(parts: Sequence[Measured], fitted_on: Sequence[str] = ()) -> Calibration:
    """The calibration that fits what was measured, each data set alike. Raises ValueError where nothing is there, or
    nothing is absent.
    """
    from sklearn.linear_model import LogisticRegression

    peaks, leads, there = (np.concatenate([vars(part)[name][part.judged] for part in parts]) for name in _TABLES)
    if not 0 < there.sum() < len(there):
        raise ValueError("A calibration needs names that are in a picture and names that are not: give other pictures.")
    measured = np.stack([peaks, leads], axis=1)
    spread = measured.std(axis=0) + 1e-9
    fitted = LogisticRegression(class_weight="balanced").fit(measured / spread, there)
    weights = fitted.coef_[0] / spread
    low, high = np.quantile(peaks[~there], DARK), np.quantile(peaks[there], BRIGHT)
    if low >= high:  # it does not know these pictures: all stays dark
        high = low + max(float(peaks.max() - low), 1e-3)
    covered = np.concatenate([cosines for part in parts for cosines in part.covered])
    peak, lead, bias = (round(float(value), 5) for value in (*weights, fitted.intercept_[0]))
    calibration = Calibration(
        peak, lead, bias,
        here=None, not_here=None, floor=round(float(np.quantile(covered, COVERED)), 4),
        low=round(float(low), 4), high=round(float(high), 4), fitted_on=tuple(fitted_on),
    )  # fmt: skip
    likelihoods = _likelihoods(calibration, peaks, leads)
    here = clear_from(likelihoods, there, RIGHT[HERE])
    not_here = clear_from(-likelihoods, ~there, RIGHT[NOT_HERE])
    here = None if here is None else round(here, 4)
    not_here = None if not_here is None else round(-not_here, 4)
    if here is not None and not_here is not None and here < not_here:
        here, not_here = not_here, here  # more than clear: between the two both would be right
    return replace(calibration, here=here, not_here=not_here)


_TABLES = ("peaks", "leads", "there")


def clear_from(scores: np.ndarray, right: np.ndarray, share: float) -> float | None:
    """The least score from which on this share of the verdicts is right, if right and wrong ones were equally many in
    all; None where there is none. scores: float [K]; right: bool [K], some of each.
    """
    order = np.argsort(-scores, kind="stable")
    hits, misses = np.cumsum(right[order]) / right.sum(), np.cumsum(~right[order]) / (~right).sum()
    last = np.append(scores[order][1:] < scores[order][:-1], True)  # equal scores go together
    fine = np.flatnonzero(last & (hits >= share * (hits + misses)))
    return float(scores[order][fine[-1]]) if len(fine) else None


def _likelihoods(calibration: Calibration, peaks: np.ndarray, leads: np.ndarray) -> np.ndarray:
    return np.array([calibration.likelihood(*pair) for pair in zip(peaks.ravel(), leads.ravel(), strict=True)]).reshape(
        peaks.shape
    )


def figures(halves: Sequence[tuple[Calibration, Measured]]) -> dict[str, float | int | None]:
    """What verdicts are worth on pictures that they were not fitted to. halves: a calibration, and other pictures.

    precision, recall: of "here" and "not here" over all names of all pictures; ..._half the precision where half of
    what is asked is there. presence: AUROC of the likelihood over the names within a picture, mean over pictures,
    presence_peak that of the peak alone; 0.5 is chance. share_there: of all names, what "here" has by chance; one less
    it what "not here" has.
    """
    answers, there = [], []
    areas: dict[str, list[float]] = {"presence": [], "presence_peak": []}
    for calibration, part in halves:
        likelihoods = _likelihoods(calibration, part.peaks, part.leads)
        answers.append(np.vectorize(calibration.answer, otypes=[object])(likelihoods)[part.judged])
        there.append(part.there[part.judged])
        for name, scores in (("presence", likelihoods), ("presence_peak", part.peaks)):
            rows = zip(scores, part.there, part.judged, strict=True)
            areas[name] += [auroc(row[known], truth[known]) for row, truth, known in rows]
    answers, there = np.concatenate(answers), np.concatenate(there)
    numbers: dict[str, float | int | None] = {"pictures": sum(len(part.there) for _, part in halves)}
    numbers |= {"asked": int(there.size), "share_there": _rounded(there.mean())}
    for answer, right in ((HERE, there), (NOT_HERE, ~there)):
        said, name = answers == answer, answer.replace(" ", "_")
        hits, misses = (said & right).sum() / max(1, right.sum()), (said & ~right).sum() / max(1, (~right).sum())
        numbers[f"{name}_precision"] = _rounded((said & right).sum() / said.sum()) if said.any() else None
        numbers[f"{name}_precision_half"] = _rounded(hits / (hits + misses)) if said.any() else None
        numbers[f"{name}_recall"] = _rounded(hits)
    return numbers | {k: _rounded(np.nanmean(area)) if np.isfinite(area).any() else None for k, area in areas.items()}


def _rounded(value: float | np.floating) -> float:
    return round(float(value), 3)


def calibrate(
    encoder: Encoder, data: Sequence[str], resolution: int | None = None, limit: int = 20
) -> tuple[Calibration, dict[str, dict]]:
    """Fit an encoder's calibration -> (it, data set -> `figures`).

    It is fitted to all the pictures; the figures are of each half of them, judged by what was fitted to the other.
    data: "scenes:val", or label maps as `layouts.open_data` takes them.   limit: pictures of each, evenly over it.
    Raises ValueError for data that are not as they should be, or fewer than four pictures of one.
    """
    if limit < 4:
        raise ValueError(f"limit={limit}: a calibration needs four pictures of each data set at least.")
    parts, names = [], []
    for name in data:
        split, side = open_split(encoder, name, resolution)
        samples = evenly(split.samples, limit)
        if len(samples) < 4:
            raise ValueError(f"'{name}' has {len(samples)} pictures: a calibration needs four at least.")
        parts.append(look(encoder, split, samples, side))
        names.append(f"{name}: {len(samples)} pictures")
    return judged(parts, data, names)


def open_split(encoder: Encoder, data: str, resolution: int | None) -> tuple[Split, int | None]:
    """-> (scenes or label maps on the disk, the short side in pixels that the encoder sees, None: as trained)."""
    if not is_scenes(data):
        return open_data("segmentation", data), resolution
    side = network_side(encoder, resolution)
    return scene_split(data, side), side


def evenly(samples: Sequence[T], count: int) -> list[T]:
    """`count` of them at most, evenly over all."""
    places = np.linspace(0, len(samples) - 1, min(count, len(samples))).round().astype(int)
    return [samples[int(place)] for place in places]


def judged(parts: Sequence[Measured], data: Sequence[str], names: Sequence[str]) -> tuple[Calibration, dict[str, dict]]:
    """`calibrate`, of what was measured."""
    even, odd = slice(0, None, 2), slice(1, None, 2)
    halves = [(fit([part.part(one) for part in parts]), other) for one, other in ((even, odd), (odd, even))]
    by_data = {
        name: figures([(fitted, part.part(other)) for fitted, other in halves])
        for name, part in zip(data, parts, strict=True)
    }
    return replace(fit(parts, names), figures=by_data), by_data
