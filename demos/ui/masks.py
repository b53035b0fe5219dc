"""Masks of a visitor's own: drawn over the image on a canvas (demos/ui/web/compare-mask.js) or uploaded as a
picture.
"""

from __future__ import annotations

import base64
import binascii

import numpy as np
from PIL import Image

from demos.ui import views
from tipsv2.images import ImageError, open_image

MAX_DRAWING = 2_000_000  # characters of a drawing's data URI; a mask of 320 pixels has some thousand
SAME_SHAPE = 0.03  # relative difference of the aspect ratios up to which a mask is taken for one of the image


def read_mask(source: str | bytes, image: Image.Image) -> np.ndarray:
    """A picture, white where the thing is -> bool [H, W] at the size at which the image is drawn. Raises ImageError."""
    mask = open_image(source)
    if abs(mask.width * image.height / (mask.height * image.width) - 1) > SAME_SHAPE:
        raise ImageError(
            f"The mask has {mask.width} × {mask.height} pixels and the image {image.width} × {image.height}: "
            "give a mask of the same shape."
        )
    height, width = views.display_size(*image.size)
    return np.asarray(mask.convert("L").resize((width, height), Image.Resampling.NEAREST)) > 127


def read_drawing(uri: str, image: Image.Image) -> np.ndarray:
    """What the canvas sends, a PNG as a data URI, as `read_mask`."""
    start = "data:image/png;base64,"
    if not isinstance(uri, str) or not uri.startswith(start) or len(uri) > MAX_DRAWING:
        raise ImageError("The drawing did not arrive whole: draw it again.")
    try:
        return read_mask(base64.b64decode(uri.removeprefix(start), validate=True), image)
    except binascii.Error:
        raise ImageError("The drawing did not arrive whole: draw it again.") from None


def canvas(image: Image.Image, mask: np.ndarray | None) -> str:
    """The image to draw a mask on, with the mask there is so far (bool [H, W]); works by
    demos/ui/web/compare-mask.js.
    """
    shown = f' data-mask="{views.data_uri(mask.astype(np.uint8) * 255)}"' if mask is not None else ""
    tools = "".join(
        f'<button type="button" data-tool="{tool}" aria-pressed="{str(tool == "outline").lower()}">{title}</button>'
        for tool, title in (("outline", "Outline"), ("brush", "Brush"), ("erase", "Erase"))
    )
    return (
        f'<div class="tips-mask"{shown} style="--photo:url({views.photo_uri(image)});'
        f'--ratio:{image.width / image.height:.6f}">'
        '<div class="stage"><canvas aria-label="Draw the mask here"></canvas></div>'
        f'<div class="tools">{tools}<button type="button" data-tool="clear">Clear</button></div></div>'
    )
