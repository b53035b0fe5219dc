"""The images whose heatmaps a run keeps, and what is asked of them: the user's own, or drawn scenes.

They are the same at every step and after every resume, so that what changes in the heatmaps is the encoder.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from PIL import Image

from tipsv2 import scenes
from tipsv2.analysis.words import phrases
from tipsv2.collections.pairs import Pairs
from train.data.samples import CaptionedImages, DrawnScenes

IMAGES = 4
QUERIES = 4  # of an image at most
WHOLE = 3  # a caption of so many words is one query
TRIED = 100  # rows looked at for images that can be used
LARGEST = 448  # longer side in pixels at which an image is kept


@dataclass(frozen=True)
class Shown:
    """An image and the one to four phrases whose heatmaps it gets."""

    image: Image.Image
    queries: list[str]
    held: bool = False  # the run does not learn from it


def shown_images(source: DrawnScenes | CaptionedImages, size: int, seed: int) -> list[Shown]:
    """Up to IMAGES of somebody's images, the first that training could use; none if all of the first TRIED are spoilt.

    Where the run learns drawn scenes, IMAGES of those from number `seed` on, `size` pixels a side.
    """
    if isinstance(source, DrawnScenes):
        return [_scene(seed + number, size) for number in range(IMAGES)]
    if len(getattr(source, "held", ())):  # half of them from those it keeps apart
        half = IMAGES // 2
        apart = [replace(pair, held=True) for pair in islice(_usable(source.held), IMAGES - half)]
        return [*islice(_usable(source.learned), half), *apart]
    return list(islice(_usable(source.pairs), IMAGES))


def queries_of(caption: str) -> list[str]:
    """A short caption itself, else its first few phrases."""
    if len(caption.split()) <= WHOLE:
        return [caption]
    return phrases(caption)[:QUERIES] or [caption]


def _scene(seed: int, size: int) -> Shown:
    scene, names = scenes.draw(seed, size), scenes.names()
    return Shown(Image.fromarray(scene.image), [names[number] for number in np.unique(scene.labels)][:QUERIES])


def _usable(pairs: Pairs) -> Iterator[Shown]:
    for pair in islice(pairs, TRIED):
        try:
            caption, image = pair.caption("short", random.Random(0)), pair.open()
        except ValueError:
            continue  # training counts and names it
        image.thumbnail((LARGEST, LARGEST))
        yield Shown(image, queries_of(caption))
