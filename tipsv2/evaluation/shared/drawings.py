"""One drawing alone on a drawn background, once per noun and style: what the image tasks ask on the bundled scenes.

    split = open_labelled("knn", "scenes:style", 224)             # 315 pictures, one per noun, in the unseen style
    train = open_labelled("knn", "scenes:style", 224, "train")    # pictures in the styles seen in training

The pictures are fixed: what stands where before which background follows from the noun, the style and a number alone,
by seeds of their own which neither training nor the retrieval splits use. scenes:val has two pictures of each noun,
one in each drawing style seen in training; scenes:style has one, in the unseen style; scenes:search, which recipes are
chosen by, has other pictures than scenes:val. All have the same "train" part: TRAIN further pictures of each noun in
each seen style.
"""

from __future__ import annotations

import numpy as np

from tipsv2 import scenes
from tipsv2.evaluation.layouts import SCENES, Split, open_data
from tipsv2.scenes.splits import is_scenes, split_of

FIRST_SEED = 4 * 10**12  # above those of training (below 10**12), of the splits and of the training monitor
NUMBER_STEP = 10**6  # between the seeds of a noun's first picture in a style and of its second
TRAIN = 4
NUMBERS = {"val": 0, "style": 0, "search": TRAIN + 1}  # of a split's pictures; 1 to TRAIN are those of "train"


class Drawing:
    """A `layouts.Sample` that is drawn whenever it is asked for its image."""

    def __init__(self, noun: int, style: str, number: int, label: int | tuple[int, ...], size: int):
        self.name = f"{style}/{scenes.nouns()[noun].name}/{number}"
        self._what, self._label = (noun, style, size, number), label

    @property
    def image(self) -> np.ndarray:
        return draw_example(*self._what).image

    def truth(self) -> int | tuple[int, ...]:
        return self._label


def open_labelled(task: str, data: str, size: int, part: str | None = None) -> Split:
    """The single drawings of "scenes:val" or "scenes:style", `size` pixels a side, or the data set `open_data` finds.

    part: None for what is tested, "train" for what is learned from.
    """
    if not is_scenes(data):
        return open_data(task, data, part)
    shown = [(noun, style, number_of(data)) for noun, style in examples(data)]
    nouns = split_of(data, size).nouns
    if part == "train":
        shown = [(n, style, k) for k in range(1, TRAIN + 1) for style in scenes.SEEN_STYLES for n in nouns]
    samples = [Drawing(noun, style, number, nouns.index(noun), size) for noun, style, number in shown]
    return Split(SCENES, part or data, samples, tuple(scenes.nouns()[noun].name for noun in nouns))


def examples(data: str) -> list[tuple[int, str]]:
    """What is in the pictures of "scenes:val" or "scenes:style": (index of the noun, style), noun by noun."""
    split = split_of(data, 14)
    return [(noun, style) for noun in split.nouns for style in split.styles]


def number_of(data: str) -> int:
    """The number that the pictures of "scenes:val" or "scenes:val:60" have."""
    return NUMBERS[data.split(":")[1]]


def draw_example(noun: int, style: str, size: int, number: int = 0) -> scenes.Scene:
    """The one picture of a noun in a style with this number, `size` pixels a side."""
    seed = FIRST_SEED + number * NUMBER_STEP + scenes.STYLES.index(style) * len(scenes.nouns()) + noun
    return scenes.draw_one(seed, noun, style, size)
