"""k-nearest-neighbour classification: which class have the most alike of the training images?

    python -m tipsv2 evaluate knn --data scenes:style --model opentips-nano
    python -m tipsv2 evaluate knn --data imagenet:/data/imagenet --shots 100 --out out/knn

The protocol is DINO's (arXiv 2104.14294, Sec. 4.1, after Wu et al., arXiv 1805.01978): the k = 20 training images with
the largest cosines vote for their classes, each with the weight exp(cosine / 0.07). Nothing is trained. On the bundled
scenes the training images are other pictures of the same things, in the drawing styles seen in training, see
`tipsv2.evaluation.shared.drawings`. Ties count against the encoder.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tipsv2.analysis.metrics import answer_ranks
from tipsv2.collections.parts import limited
from tipsv2.evaluation.layouts import SampleLike, Split
from tipsv2.evaluation.shared import embeddings
from tipsv2.evaluation.shared.drawings import open_labelled
from tipsv2.evaluation.shared.embeddings import embed_images, keep
from tipsv2.evaluation.shared.failures import Query, worst, write_classes, write_queries
from tipsv2.evaluation.shared.ranking import by_chance, interval, nearest, top
from tipsv2.evaluation.shared.splits import network_side
from tipsv2.records import fingerprint

if TYPE_CHECKING:
    from tipsv2.network.encoder import Encoder

SHOWN = 4  # neighbours in the picture


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--k", type=int, default=20, help="neighbours that vote (default: %(default)s)")
    parser.add_argument(
        "--temperature", type=float, default=0.07, help="of their weights exp(cosine / it) (default: %(default)s)"
    )
    add_shots(parser)
    embeddings.add_arguments(parser)


def add_shots(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--shots", type=int, help="only so many training images of each class (default: all)")


def evaluate(
    encoder: Encoder,
    data: str = "scenes:val",
    resolution: int | None = None,
    k: int = 20,
    temperature: float = 0.07,
    shots: int | None = None,
    cls: str = "cls",
    shape: str = "aspect",
    limit: int | None = None,
    out: Path | None = None,
    progress: bool = True,
) -> dict:
    """Score an encoder by the neighbours of images.

    Args: as of `classification.evaluate`, and
        k, temperature: how many neighbours vote with which weights.
        shots: only the first so many training images of each class.
        cls: the embedding that is compared.

    Returns: {"task", "data", "model", "resolution", "shape", "features", "k", "temperature", "images", "training",
        "classes", "top1", "top5", "chance": {...}, "interval": {"top1": [low, high]}, "fingerprint", "seconds"}.
    Raises ValueError for data without a training part or with other classes in it, k, shots or limit under 1, a
    temperature that is not positive, or a resolution not in whole patches.
    """
    if k < 1 or not temperature > 0:
        raise ValueError(f"k={k} and temperature={temperature}: at least one neighbour and a temperature over 0.")
    resolution = network_side(encoder, resolution)
    train, test = open_both("knn", data, resolution)
    known = few(train.samples, shots)
    samples = test.samples[: limited(len(test.samples), limit)]
    started = time.perf_counter()
    with keep(out, encoder, train, test, task="knn", resolution=resolution, shape=shape, cls=cls) as partial:
        given = (partial, resolution, shape, progress)
        memory = embed_images(encoder, known, *given, desc="training", tokens=(cls,))[cls]
        rows = embed_images(encoder, samples, *given, tokens=(cls,))[cls]
    labels = np.array([sample.truth() for sample in known])
    right = np.array([sample.truth() for sample in samples])
    cosines, neighbours = nearest(rows, memory, k)
    ranks = answer_ranks(votes(cosines, labels[neighbours], len(test.classes), temperature), right)
    low_high = interval(ranks < 1)
    if out is not None:
        write_classes(out, test.classes, right, ranks < 1)
        queries = []
        for q in worst(ranks):
            near = zip(neighbours[q][:SHOWN], cosines[q], strict=False)
            alike = [(known[n].image, f"{test.classes[labels[n]]}, {cosine:.3f}") for n, cosine in near]
            queries.append(Query(samples[q].image, test.classes[right[q]], alike))
        write_queries(out / "worst_queries.png", queries)
    return {
        "task": "knn", "data": data, "model": encoder.info.name, "resolution": resolution, "shape": shape,
        "features": cls, "k": k, "temperature": temperature, "images": len(samples), "training": len(known),
        "classes": len(test.classes), **top(ranks),
        "chance": by_chance(len(test.classes)),
        "interval": {"top1": low_high} if low_high else {},
        "fingerprint": fingerprint((sample.name for sample in (*known, *samples)), test.classes),
        "seconds": round(time.perf_counter() - started, 1),
    }  # fmt: skip


def votes(cosines: np.ndarray, labels: np.ndarray, classes: int, temperature: float) -> np.ndarray:
    """What each class gets: the sum of exp(cosine / temperature) over the neighbours of that class, up to a factor.

    cosines: [Q, k] of a query's neighbours.   labels: int [Q, k], their classes.   Returns float64 [Q, C].
    """
    cosines = np.asarray(cosines, np.float64)
    weights = np.exp((cosines - cosines.max(axis=1, keepdims=True)) / temperature)  # less the best: no overflow
    table = np.zeros((len(labels), classes))
    np.add.at(table, (np.arange(len(labels))[:, None], labels), weights)
    return table


def open_both(task: str, data: str, resolution: int) -> tuple[Split, Split]:
    """The training and the test part. Raises ValueError where their classes are not the same."""
    test, train = open_labelled(task, data, resolution), open_labelled(task, data, resolution, "train")
    if train.classes != test.classes:
        other = sorted(set(train.classes) ^ set(test.classes)) or ["their order"]
        raise ValueError(
            f"{data}: {train.part} has {len(train.classes)} classes and {test.part} {len(test.classes)}, which must be "
            f"the same; they differ in {other[0]}."
        )
    return train, test


def few(samples: Sequence[SampleLike], shots: int | None) -> list[SampleLike]:
    """The first `shots` samples of each class, or all. Raises ValueError for fewer than one."""
    if shots is None:
        return list(samples)
    if shots < 1:
        raise ValueError(f"shots={shots}: at least one training image of each class is needed.")
    seen: Counter[int] = Counter()
    chosen = []
    for sample in samples:
        seen[sample.truth()] += 1
        if seen[sample.truth()] <= shots:
            chosen.append(sample)
    return chosen
