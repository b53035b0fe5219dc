"""Zero-shot classification: which of all the classes is it, by their names alone?

    python -m tipsv2 evaluate classification --data scenes:val --model opentips-nano --json
    python -m tipsv2 evaluate classification --data imagenet:/data/imagenet --templates clip80 --out out/imagenet

The protocol is CLIP's (arXiv 2103.00020, Sec. 3.1): a class is the mean of its prompts' embeddings, the guess the
class with the largest cosine. The image's embedding is CLS 1 (trained against alt-texts, which the prompts resemble);
CLS 2 is measured beside it. On the bundled scenes the pictures are single drawings, see
`tipsv2.evaluation.shared.drawings`. The whole image is seen, not a crop of its centre.

Top-1 and top-5 are the part of the pictures whose class is the best, or among the five best. Ties count against the
encoder: the class stands behind every other that scores the same. Chance is k of the number of classes, at most 1.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tipsv2.analysis.metrics import answer_ranks
from tipsv2.collections.parts import limited
from tipsv2.evaluation.shared import embeddings
from tipsv2.evaluation.shared.drawings import open_labelled
from tipsv2.evaluation.shared.embeddings import CLS_TOKENS, embed_images, keep
from tipsv2.evaluation.shared.failures import Query, worst, write_classes, write_queries
from tipsv2.evaluation.shared.ranking import by_chance, interval, top
from tipsv2.evaluation.shared.splits import embed_texts, network_side
from tipsv2.prompts import TEMPLATES
from tipsv2.records import fingerprint

if TYPE_CHECKING:
    from tipsv2.network.encoder import Encoder

SHOWN = 3  # guesses in the picture


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--templates", choices=tuple(TEMPLATES), default="tips9", help="prompts per class (default: %(default)s)"
    )
    embeddings.add_arguments(parser)


def evaluate(
    encoder: Encoder,
    data: str = "scenes:val",
    resolution: int | None = None,
    templates: str = "tips9",
    cls: str = "cls",
    shape: str = "aspect",
    limit: int | None = None,
    out: Path | None = None,
    progress: bool = True,
) -> dict:
    """Score an encoder on naming images.

    Args:
        encoder: a `tipsv2.Encoder`.
        data: "scenes:val" (seen drawing styles), "scenes:style" (the unseen one), or what `layouts.open_data` takes.
        resolution: short side in pixels the network sees; default the encoder's training resolution.
        templates: template set of the class prompts.
        cls: whose interval and pictures are made; both are measured.
        shape: "aspect" or "square", see `embeddings`.
        limit: only the first images; every class stays one.
        out: keeps the embeddings, and takes classes.csv, classes.png and worst_queries.png.

    Returns: {"task", "data", "model", "resolution", "shape", "templates", "images", "classes", "cls": {...},
        "caption_cls": {...}, "chance": {...}, "interval": {"top1": [low, high]}, "fingerprint", "seconds"}, the inner
        dicts with `top1` and `top5` in [0, 1].
    Raises ValueError for an unknown data set, a limit under 1, or a resolution not in whole patches.
    """
    resolution = network_side(encoder, resolution)
    split = open_labelled("classification", data, resolution)
    samples = split.samples[: limited(len(split.samples), limit)]
    started = time.perf_counter()
    with keep(out, encoder, split, task="classification", resolution=resolution, shape=shape) as partial:
        images = embed_images(encoder, samples, partial, resolution, shape, progress)
    classes = embed_texts(encoder, split.classes, templates, progress, keep=True)  # [C, D]
    right = np.array([sample.truth() for sample in samples])
    ranks = {token: answer_ranks(np.asarray(images[token] @ classes.T), right) for token in CLS_TOKENS}
    low_high = interval(ranks[cls] < 1)
    if out is not None:
        write_classes(out, split.classes, right, ranks[cls] < 1)
        rows = []
        for k in worst(ranks[cls]):
            cosines = classes @ images[cls][k]
            best = cosines.topk(min(SHOWN, len(cosines)))
            said = [(None, f"{split.classes[c]}, {s:.3f}") for s, c in zip(*map(list, best), strict=True)]
            own = f"{split.classes[right[k]]}, {cosines[right[k]]:.3f}, rank {ranks[cls][k] + 1}"
            rows.append(Query(samples[k].image, own, said))
        write_queries(out / "worst_queries.png", rows)
    return {
        "task": "classification", "data": data, "model": encoder.info.name, "resolution": resolution, "shape": shape,
        "templates": templates, "images": len(samples), "classes": len(classes),
        **{token: top(token_ranks) for token, token_ranks in ranks.items()},
        "chance": by_chance(len(classes)),
        "interval": {"top1": low_high} if low_high else {},
        "fingerprint": fingerprint((sample.name for sample in samples), split.classes),
        "seconds": round(time.perf_counter() - started, 1),
    }  # fmt: skip
