"""Does a run learn, or learn by heart? How often words and pictures find each other: among pairs that it learns from,
and among as many that it keeps apart.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from PIL import Image

from tipsv2.evaluation.tasks.retrieval import rank_both_ways, same
from tipsv2.network.encoder import Encoder
from train.recipe.settings import LEAST_HELD

MOST = 64  # pairs of each side
LARGEST = 448  # longer side in pixels at which an image is kept
LEARNED, HELD_OUT = "recall_learned", "recall_held_out"  # in metrics.jsonl


@dataclass(frozen=True)
class Sides:
    """Pairs of an image and its caption, as many from either side."""

    learned: list[tuple[Image.Image, str]]
    held: list[tuple[Image.Image, str]]


def sides(source) -> Sides | None:
    """Of what `train.data.samples.CaptionedImages` reads; None where it keeps nothing apart."""
    if not len(getattr(source, "held", ())):
        return None
    held = _usable(source.held, MOST)
    learned = _usable(source.learned, len(held))
    return Sides(learned, held) if min(len(learned), len(held)) >= LEAST_HELD else None


def measure(encoder: Encoder, given: Sides, size: int) -> dict[str, float]:
    """Recall at 1 of either side, the mean of both directions, in [0, 1]. size: short side in pixels of the images."""
    return {name: _recall(encoder, pairs, size) for name, pairs in ((LEARNED, given.learned), (HELD_OUT, given.held))}


def _recall(encoder: Encoder, pairs: list[tuple[Image.Image, str]], size: int) -> float:
    captions = [caption for _, caption in pairs]
    cls = torch.stack([features.cls for features in encoder.encode_images([image for image, _ in pairs], size)])
    ranks = rank_both_ways(torch.nn.functional.normalize(cls, dim=-1), encoder.encode_text(captions), same(captions))
    return sum(float((rank < 1).mean()) for rank in ranks.values()) / len(ranks)


def _usable(pairs: Iterable, most: int) -> list[tuple[Image.Image, str]]:
    usable = []
    for pair in pairs:
        if len(usable) == most:
            break
        try:
            caption, image = pair.caption("web", random.Random(0)), pair.open()
        except ValueError:
            continue  # training counts and names it
        image.thumbnail((LARGEST, LARGEST))
        usable.append((image, caption))
    return usable
