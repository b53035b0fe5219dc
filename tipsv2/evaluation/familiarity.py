"""Fits what kind of picture an encoder knows (`tipsv2.analysis.familiar`) to pictures of that kind and to others.

python -m tipsv2 calibrate scenes:val --model opentips-nano --unlike photos
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm.auto import tqdm

from tipsv2.analysis.familiar import Familiar, summary
from tipsv2.collections.sources import IMAGE_SUFFIXES
from tipsv2.evaluation.segmentation.calibration import evenly, open_split
from tipsv2.network.view import View

if TYPE_CHECKING:
    from tipsv2.images import ImageSource
    from tipsv2.network.encoder import Encoder

PICTURES = 600  # of either kind, at most
LEAST = 10  # of either kind
FOLDS = 5  # each is judged by what was fitted to the others
PASSING = 0.05  # part of the other kind that may pass for the known one
SURE = 0.5  # and no likelihood below this
FREEDOM = 1000.0  # inverse weight decay of the regression: the numbers differ in the second decimal


def pictures_in(folder: str | Path) -> list[str]:
    """The image files below a folder, in the order of their names. Raises ValueError where it holds fewer than LEAST,
    or is none.
    """
    if not os.path.isdir(folder):
        raise ValueError(f"'{folder}' is no folder: --unlike wants one with pictures, in sub-folders or not.")
    places = (os.path.join(top, name) for top, _, names in os.walk(folder) for name in names)
    paths = sorted(place for place in places if place.lower().rpartition(".")[2] in IMAGE_SUFFIXES)
    if len(paths) < LEAST:
        raise ValueError(f"'{folder}' holds {len(paths)} pictures: {LEAST} at least tell one kind from another.")
    return paths


def fit_familiar(
    encoder: Encoder, known: Sequence[str], unlike: Sequence[str | Path], resolution: int | None = None
) -> Familiar:
    """known: data sets as `calibrate` takes them, of pictures that the encoder knows.   unlike: folders of others.
    resolution: short side in pixels, by default the one trained at.

    Fitted to up to PICTURES of each; the figures are of each fifth of them, judged by what was fitted to the others.
    Raises ValueError for data that are not as they should be.
    """
    others = [path for folder in unlike for path in pictures_in(folder)]
    samples = []
    for name in known:
        split, side = open_split(encoder, name, resolution)
        samples += [(sample, side) for sample in evenly(split.samples, PICTURES // len(known))]
    if len(samples) < LEAST:
        raise ValueError(f"{' and '.join(known)} have {len(samples)} pictures: {LEAST} at least tell kinds apart.")
    looked = [(lambda s=sample: s.image, side) for sample, side in samples]
    looked += [(lambda p=path: p, resolution) for path in evenly(others, PICTURES)]
    summaries = np.array([_summary(encoder, *one) for one in tqdm(looked, unit="image", desc="kinds of pictures")])
    is_known = np.arange(len(looked)) < len(samples)
    return replace(fit(summaries, is_known), unlike=tuple(os.path.basename(os.path.abspath(name)) for name in unlike))


def fit(summaries: np.ndarray, is_known: np.ndarray) -> Familiar:
    """summaries: float [N, 2 D], a `summary` each; is_known: bool [N], LEAST of each or more."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    regression = LogisticRegression(C=FREEDOM, class_weight="balanced", max_iter=10_000)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    unseen = cross_val_predict(regression, summaries, is_known, cv=folds, method="predict_proba")[:, 1]
    least = round(max(SURE, float(np.quantile(unseen[~is_known], 1 - PASSING))), 4)
    fitted = regression.fit(summaries, is_known)
    weights = tuple(round(float(weight), 4) for weight in fitted.coef_[0])
    figures = {
        "pictures": int(is_known.sum()),
        "pictures_unlike": int((~is_known).sum()),
        "known_are_known": round(float((unseen[is_known] >= least).mean()), 3),
        "unlike_are_unlike": round(float((unseen[~is_known] < least).mean()), 3),
    }
    return Familiar(weights, round(float(fitted.intercept_[0]), 4), least, figures=figures)


def _summary(encoder: Encoder, image: Callable[[], ImageSource], side: int | None) -> list[float]:
    return summary(encoder.look(image(), View(side)).values)
