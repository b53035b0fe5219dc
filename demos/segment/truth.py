"""The true mask beside a segmentation: an example's own, uploaded as a label map, or drawn class by class.

What may be uploaded: a PNG whose grey values or palette places are the classes' numbers; one painted in the legend's
colours (white: none of them); a black-and-white one of the one class that is chosen for drawing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from demos.backend.studio import shown_size
from demos.ui import masks, views
from demos.ui.examples import Example
from tipsv2.analysis.label_maps import (
    BACKGROUND,
    IGNORED,
    VOID,
    from_colors,
    from_numbers,
    open_labels,
    resize_labels,
)
from tipsv2.images import ImageError, open_image


@dataclass(frozen=True, eq=False)  # Gradio hashes what a State holds
class Truth:
    """labels: [H, W] place in `names`, or in whatever list is asked for if these are None; BACKGROUND, IGNORED."""

    labels: np.ndarray
    names: tuple[str, ...] | None
    whole: bool  # tells of every class; else only of those it marks
    origin: str  # what it is, for the note
    note: str = ""


def of_example(example: Example) -> Truth | None:
    """The label map of a drawn scene; None for a photograph."""
    if example.seed is None:
        return None
    from tipsv2 import scenes

    with Image.open(example.path) as image:
        scene = scenes.draw(example.seed, image.width, example.styles)
    present = np.unique(scene.labels)
    names = tuple(scenes.names()[index] for index in present)
    return Truth(np.searchsorted(present, scene.labels), names, True, "The scene's own labels")


def uploaded(
    path: str | None, first: int, marked: str, names: Sequence[str], legend: np.ndarray, image: str | None
) -> Truth:
    """A file -> truth. first: the number of the first class in it; marked: the class of a black-and-white mask; names,
    legend: the list and its colours uint8 [N, 3]. Raises ImageError and ValueError.
    """
    if image is None:
        raise ValueError("Give an image first, then its mask.")
    if not path:
        raise ValueError("Choose the file of a mask.")
    if not names:
        raise ValueError("Write the classes first: a mask numbers them by their places in the list.")
    numbers, colors = open_labels(path)
    note = _sizes(colors.shape[:2], open_image(image).size)
    painted = _painted(colors, legend, numbers is not None)
    if painted is not None:
        return Truth(_kept(painted), tuple(names), True, "Uploaded, in the legend's colours", note)
    if numbers is None:
        raise ImageError(
            "The mask has other colours than the legend: paint it in the legend's, or save numbers as a grey or "
            "palette PNG."
        )
    if set(np.unique(numbers)) <= {0, VOID} and VOID in numbers:
        if marked not in names:
            raise ValueError("This mask is black and white: choose under “Draw” which class it is of, then upload it.")
        return Truth(
            _kept(np.where(numbers == VOID, list(names).index(marked), BACKGROUND)),
            tuple(names),
            False,
            f"Uploaded: {marked}",
            note,
        )
    return Truth(_kept(from_numbers(numbers, len(names), int(first))), None, True, "Uploaded, classes by number", note)


def drawn(uri: str, marked: str, names: Sequence[str], truth: Truth | None, image: str | None) -> Truth | None:
    """What was drawn of one class, put in place of what there was of it; None if nothing is left. Raises ImageError."""
    if image is None:
        raise ValueError("Give an image first, then its mask.")
    if marked not in names:
        raise ValueError("Choose which class to draw.")
    mask = masks.read_drawing(uri, open_image(image))
    place = list(names).index(marked)
    if truth is None:
        truth = Truth(np.full(mask.shape, BACKGROUND), tuple(names), False, "Drawn by hand")
    labels = placed(truth, names, mask.shape).copy()
    labels[labels == place] = BACKGROUND
    labels[mask] = place
    if not truth.whole and not (labels >= 0).any():
        return None
    origin = truth.origin if "by hand" in truth.origin else f"{truth.origin}, changed by hand"
    return replace(truth, labels=labels, names=tuple(names), origin=origin)


def placed(truth: Truth, names: Sequence[str], size: tuple[int, int]) -> np.ndarray:
    """The truth at size (H, W) with places in another list; classes that are not in it become BACKGROUND."""
    labels = resize_labels(truth.labels, size)
    if truth.names is None:
        return np.where(labels < len(names), labels, IGNORED)
    where = {name: place for place, name in enumerate(names)}
    table = np.array([*(where.get(name, BACKGROUND) for name in truth.names), IGNORED, BACKGROUND])
    return table[labels]  # -1 and -2 count from the end


def canvas(image: str | None, truth: Truth | None, marked: str, names: Sequence[str]) -> str:
    """The image to draw a class on, with what the truth says of it so far; nothing where no class is chosen."""
    if image is None or marked not in names:
        return ""
    picture = open_image(image)
    mask = None
    if truth is not None:
        mask = placed(truth, names, views.display_size(*picture.size)) == list(names).index(marked)
    return masks.canvas(picture, mask if mask is not None and mask.any() else None)


def describe(truth: Truth | None, names: Sequence[str]) -> str:
    """The note under the buttons: what the regions are compared with."""
    if truth is None:
        return views.note("Nothing to compare with yet: upload a label map, or choose a class and draw it.")
    text = f"{truth.origin}."
    if truth.names is not None:
        known = [name for name in truth.names if name in names]
        if len(known) < len(truth.names) and truth.whole:
            text += f" {len(known)} of its {len(truth.names)} classes are in the list."
    return views.note(text) + (views.note(truth.note, "warn") if truth.note else "")


def _kept(labels: np.ndarray) -> np.ndarray:
    """A label map as a page's State keeps it: int16, of as many pixels as an image is looked at with."""
    width, height = shown_size(labels.shape[1], labels.shape[0])
    return resize_labels(labels, (height, width)).astype(np.int16)


def _painted(colors: np.ndarray, legend: np.ndarray, numbered: bool) -> np.ndarray | None:
    """The label map of a picture in the legend's colours, else None. numbered: a palette's places may be meant instead.
    Black is the first place of most palettes and the eighth colour of the legend: there only colours tell.
    """
    colored = (colors != colors[..., :1]).any(axis=-1)
    if not colored.any() or numbered and from_colors(colors[colored], legend) is None:
        return None
    return from_colors(colors, legend)


def _sizes(size: tuple[int, int], image: tuple[int, int]) -> str:
    """What to say about a mask of another size (H, W) than the image's (width, height)."""
    (height, width), (wide, high) = size, image
    if (width, height) == (wide, high):
        return ""
    text = f"The mask has {width} × {height} pixels, the image {wide} × {high}: resized, nearest label."
    if abs(width * high / (height * wide) - 1) > masks.SAME_SHAPE:
        text += " Its shape differs too, so it was stretched."
    return text
