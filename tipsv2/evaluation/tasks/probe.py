"""Linear probe: a logistic regression on frozen embeddings, its regularisation chosen on a part of the training images.

    python -m tipsv2 evaluate probe --data scenes:style --model opentips-nano
    python -m tipsv2 evaluate probe --data imagenet:/data/imagenet --shots 100 --out out/probe

The protocol is CLIP's (arXiv 2103.00020, App. A.3): scikit-learn's multinomial logistic regression (L-BFGS, L2) on the
embeddings of the training images; a tenth of each class's images is set aside to choose the strength C, then it is
fitted once more on all of them. Here the embeddings are CLS tokens of length one. Where an evaluation was killed it
goes on with the strengths not yet tried. On the bundled scenes the training images are other pictures of the same
things, in the drawing styles seen in training, see `tipsv2.evaluation.shared.drawings`. Ties count against the encoder.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm.auto import tqdm

from tipsv2.analysis.metrics import answer_ranks
from tipsv2.collections.parts import limited
from tipsv2.evaluation.shared import embeddings
from tipsv2.evaluation.shared.embeddings import embed_images, keep
from tipsv2.evaluation.shared.failures import Query, worst, write_classes, write_queries
from tipsv2.evaluation.shared.ranking import by_chance, interval, top
from tipsv2.evaluation.shared.splits import network_side
from tipsv2.evaluation.tasks.knn import add_shots, few, open_both
from tipsv2.records import fingerprint

if TYPE_CHECKING:
    from tipsv2.network.encoder import Encoder

STRENGTHS = (0.1, 1.0, 10.0, 100.0, 1000.0)
HELD_OUT = 0.1  # of each class's training images
ITERATIONS = 1000
SHOWN = 3  # guesses in the picture


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--strengths", type=_numbers, default=STRENGTHS, metavar="C,C,...",
        help="inverse regularisations to choose from (default: 0.1,1,10,100,1000)",
    )  # fmt: skip
    add_shots(parser)
    embeddings.add_arguments(parser)


def evaluate(
    encoder: Encoder,
    data: str = "scenes:val",
    resolution: int | None = None,
    strengths: Sequence[float] = STRENGTHS,
    shots: int | None = None,
    cls: str = "cls",
    shape: str = "aspect",
    limit: int | None = None,
    out: Path | None = None,
    progress: bool = True,
) -> dict:
    """Score an encoder by what a linear classifier makes of its embeddings.

    Args: as of `classification.evaluate`, and
        strengths: scikit-learn's C, the inverse of the regularisation, to choose from.
        shots: only the first so many training images of each class.
        cls: the embedding that is classified.

    Returns: {"task", "data", "model", "resolution", "shape", "features", "images", "training", "classes", "strength",
        "held_out": {strength: top-1 there}, "top1", "top5", "chance": {...}, "interval": {"top1": [low, high]},
        "fingerprint", "seconds"}.
    Raises ValueError for data without a training part or with other classes in it, strengths that are not positive,
    shots or limit under 1, a single training image a class, or a resolution not in whole patches.
    """
    if not strengths or not all(strength > 0 for strength in strengths):
        raise ValueError(f"strengths={list(strengths)}: at least one is needed, and all must be over 0.")
    resolution = network_side(encoder, resolution)
    train, test = open_both("probe", data, resolution)
    known = few(train.samples, shots)
    samples = test.samples[: limited(len(test.samples), limit)]
    labels = np.array([sample.truth() for sample in known])
    right = np.array([sample.truth() for sample in samples])
    aside = held_out(labels)
    started = time.perf_counter()
    settings = {"task": "probe", "resolution": resolution, "shape": shape, "cls": cls, "shots": shots}
    with keep(out, encoder, train, test, **settings) as partial:
        given = (partial, resolution, shape, progress)
        memory = embed_images(encoder, known, *given, desc="training", tokens=(cls,))[cls].numpy()
        rows = embed_images(encoder, samples, *given, tokens=(cls,))[cls].numpy()
        chosen: dict[float, float] = {}
        for strength in tqdm(strengths, unit="fit", disable=not progress, desc="strengths"):
            name = f"held out, C = {strength}"
            if name not in partial:
                scores = fit(memory[~aside], labels[~aside], memory[aside], len(test.classes), strength)
                partial.add(name, right=answer_ranks(scores, labels[aside]) < 1)
                partial.flush()
            chosen[strength] = float(partial[name]["right"].mean())
    strength = max(chosen, key=lambda value: (chosen[value], -value))  # of equals the most regularised
    scores = fit(memory, labels, rows, len(test.classes), strength)
    ranks = answer_ranks(scores, right)
    low_high = interval(ranks < 1)
    if out is not None:
        write_classes(out, test.classes, right, ranks < 1)
        first = {label: sample for label, sample in zip(labels[::-1].tolist(), known[::-1], strict=True)}
        queries = []
        for q in worst(ranks):
            guesses = np.argsort(-scores[q], kind="stable")[:SHOWN].tolist()
            named = [(first[c].image if c in first else None, test.classes[c]) for c in guesses]
            queries.append(Query(samples[q].image, f"{test.classes[right[q]]}, rank {ranks[q] + 1}", named))
        write_queries(out / "worst_queries.png", queries)
    return {
        "task": "probe", "data": data, "model": encoder.info.name, "resolution": resolution, "shape": shape,
        "features": cls, "images": len(samples), "training": len(known), "classes": len(test.classes),
        "strength": strength, "held_out": {f"{value:g}": round(share, 4) for value, share in chosen.items()},
        **top(ranks), "chance": by_chance(len(test.classes)),
        "interval": {"top1": low_high} if low_high else {},
        "fingerprint": fingerprint((sample.name for sample in (*known, *samples)), test.classes),
        "seconds": round(time.perf_counter() - started, 1),
    }  # fmt: skip


def fit(rows: np.ndarray, labels: np.ndarray, others: np.ndarray, classes: int, strength: float) -> np.ndarray:
    """Fit on rows [N, D] with labels int [N] -> the logits of others [M, D], float64 [M, C]; a class without an image
    gets -inf.

    Minimises C * sum of cross entropies + half the squared weights (the intercepts are free).
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 1000 steps are the protocol's too
        warnings.filterwarnings("ignore", "The number of unique classes")  # a few images of each are a fair question
        model = LogisticRegression(C=strength, max_iter=ITERATIONS).fit(rows, labels)
    scores = model.decision_function(others)
    logits = np.full((len(others), classes), -np.inf)
    logits[:, model.classes_] = scores if scores.ndim == 2 else np.stack([-scores, scores], axis=1)
    return logits


def held_out(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """bool [N]: a tenth of each class, at least one image of every class that has two, chosen at random.

    Raises ValueError where no class has two.
    """
    rng = np.random.default_rng(seed)
    aside = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        own = rng.permutation(np.flatnonzero(labels == label))
        aside[own[: max(1, round(HELD_OUT * len(own)))] if len(own) > 1 else []] = True
    if not aside.any():
        raise ValueError("every class has a single training image, and one of two is needed to choose a strength.")
    return aside


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(number) for number in text.split(",") if number.strip())
