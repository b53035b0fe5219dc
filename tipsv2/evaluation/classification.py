"""Zero-shot classification: which of all the nouns is it? One drawing alone on a drawn background, once per noun and
style.

    python -m tipsv2 evaluate classification --data scenes:val --model tipsv2-nano --json
    python -m tipsv2 evaluate classification --data scenes:style --model tipsv2-nano --templates clip80

The protocol is CLIP's (arXiv 2103.00020, Sec. 3.1): a class is the mean of its prompts' embeddings, the guess the
class with the largest cosine. The image's embedding is CLS 1 (trained against alt-texts, which the prompts resemble);
CLS 2 is measured beside it. The pictures are fixed: what stands where before which background follows from the noun
and the style alone, by seeds of their own which neither training nor the retrieval splits use. scenes:val has two
pictures of each noun, one in each drawing style seen in training; scenes:style has one, in the unseen style.

Top-1 and top-5 are the part of the pictures whose noun is the best, or among the five best. Ties count against the
encoder: the noun stands behind every other that scores the same. Chance is k of the number of classes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tipsv2 import scenes
from tipsv2.evaluation.splits import CLS_TOKENS, embed_images, embed_texts, limited, network_side, split_of
from tipsv2.metrics import recall_at_k
from tipsv2.prompts import TEMPLATES

FIRST_SEED = 4 * 10**12  # above those of training (below 10**12), of the splits and of the training monitor
RANKS = (1, 5)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--templates", choices=tuple(TEMPLATES), default="tips9", help="prompts per class (default: %(default)s)"
    )


def evaluate(
    encoder,
    data: str = "scenes:val",
    resolution: int | None = None,
    templates: str = "tips9",
    limit: int | None = None,
    out: Path | None = None,
    progress: bool = True,
) -> dict:
    """Score an encoder on naming single things.

    Args:
        encoder: a `tipsv2.Encoder`.
        data: "scenes:val" (seen drawing styles) or "scenes:style" (the unseen one).
        resolution: side in pixels the network sees; default the encoder's training resolution.
        templates: template set of the class prompts.
        limit: only the first images; every noun stays a class.
        out: not used: this takes seconds.

    Returns: {"task", "data", "model", "resolution", "templates", "images", "classes", "cls": {...},
        "caption_cls": {...}, "chance": {...}}, the inner dicts with `top1` and `top5` in [0, 1].
    Raises ValueError for an unknown data set, a limit under 1, or a resolution not in whole patches.
    """
    resolution = network_side(encoder, resolution)
    split, chosen = split_of(data, resolution), examples(data)
    nouns = [scenes.nouns()[index] for index in split.nouns]
    chosen = chosen[: limited(len(chosen), limit)]
    started = time.perf_counter()
    classes = embed_texts(encoder, [noun.name for noun in nouns], templates, progress)  # [C, D]

    def pictures() -> Iterator[np.ndarray]:
        for noun, style in chosen:
            yield draw_example(noun, style, resolution).image

    images = embed_images(encoder, pictures(), len(chosen), progress)
    right = np.array([split.nouns.index(noun) for noun, _ in chosen])
    scores = {name: top(np.asarray(images[name] @ classes.T), right) for name in CLS_TOKENS}
    return {
        "task": "classification", "data": data, "model": encoder.info.name, "resolution": resolution,
        "templates": templates, "images": len(chosen), "classes": len(nouns), **scores,
        "chance": {f"top{k}": round(k / len(nouns), 4) for k in RANKS},
        "seconds": round(time.perf_counter() - started, 1),
    }  # fmt: skip


def examples(data: str) -> list[tuple[int, str]]:
    """What is in the pictures of "scenes:val" or "scenes:style": (index of the noun, style), noun by noun."""
    split = split_of(data, 14)
    return [(noun, style) for noun in split.nouns for style in split.styles]


def draw_example(noun: int, style: str, size: int) -> scenes.Scene:
    """The one picture of a noun in a style, `size` pixels a side."""
    seed = FIRST_SEED + scenes.STYLES.index(style) * len(scenes.nouns()) + noun
    return scenes.draw_one(seed, noun, style, size)


def top(scores: np.ndarray, right: np.ndarray) -> dict[str, float]:
    """Top-1 and top-5 accuracy: scores [N, C], higher is better; right [N] index of the class."""
    return {f"top{k}": round(recall_at_k(scores, right, k), 4) for k in RANKS}
