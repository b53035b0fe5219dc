"""The mask of the Compare tab: where one chosen query really is, drawn on the image or uploaded as a picture."""

from __future__ import annotations

from collections.abc import Sequence

import gradio as gr
import numpy as np

from demos.backend import belongings
from demos.ui import masks
from demos.ui.controls import toasted, visitor
from demos.ui.masks import read_drawing, read_mask
from tipsv2.images import open_image

NO_MASK = "No mask"


def take(source: str, image: str | None, drawn: bool) -> np.ndarray | None:
    """A drawing or an uploaded file -> the mask; None if nothing is marked. Raises ImageError."""
    if image is None:
        raise ValueError("Give an image first, then its mask.")
    read = read_drawing if drawn else read_mask
    mask = read(source, open_image(image))
    return mask if mask.any() else None


@toasted
def upload(path: str | None, image: str | None, masked: str | None, request: gr.Request):
    """-> (mask, canvas with it, no layer view)."""
    if path is None:
        raise ValueError("No mask has arrived: upload it again.")
    belongings.claim(visitor(request), path)
    mask = take(path, image, drawn=False)
    return mask, canvas(image, masked, mask), ""


def canvas(image: str | None, masked: str | None, mask: np.ndarray | None = None) -> str:
    """The image to draw a mask on, if there is a query it would be of."""
    return masks.canvas(open_image(image), mask) if image and masked else ""


def begin(image: str | None, masked: str | None):
    """A query was chosen: the mask of the one before is none of its own. -> (drawing, upload button, mask)."""
    shown = bool(image and masked)
    return gr.update(value=canvas(image, masked), visible=shown), gr.update(visible=shown), None


def choices(queries: list[str] | None, masked: str | None):
    """The queries a mask can be of; whose query was taken away, that mask counts no longer."""
    return gr.update(choices=offered(queries), value=masked if masked in (queries or ()) else "")


def offered(queries: Sequence[str] | None) -> list[tuple[str, str]]:
    """The choices: none, or one of the queries."""
    return [(NO_MASK, ""), *((query, query) for query in queries or ())]


def for_queries(queries: Sequence[str], masked: str | None, mask: np.ndarray | None) -> list[np.ndarray | None]:
    """The mask beside the query it belongs to, None beside the others."""
    return [mask if query == masked else None for query in queries]


def outline(mask: np.ndarray) -> np.ndarray:
    """The border of a mask, bool [H, W] -> uint8 [H, W, 4], white with a dark rim, else transparent."""
    drawn = np.zeros((*mask.shape, 4), np.uint8)
    width = max(2, round(max(mask.shape) / 130))
    drawn[_edge(mask, width + 1)] = (0, 0, 0, 160)
    drawn[_edge(mask, width)] = 255
    return drawn


def _edge(mask: np.ndarray, width: int) -> np.ndarray:
    """Pixels of the mask that lie within `width` of its outside."""
    inner = np.pad(mask, 1)
    for _ in range(width):
        core = inner.copy()
        for axis in (0, 1):
            for step in (-1, 1):
                core &= np.roll(inner, step, axis)
        inner = core
    return mask & ~inner[1:-1, 1:-1]
