"""What the tabs draw: numbers and pictures in, HTML out. No gradio and no model in here; scripts are in demos/ui/web.

Everything a visitor typed is escaped. Pictures travel as data URIs, so that nobody else's page can ask for them and no
file stays behind; where colours mean numbers they are PNG.
"""

from __future__ import annotations

import base64
import io
import weakref
from collections.abc import Sequence
from html import escape

import numpy as np
from PIL import Image

DISPLAY = 640  # long side in pixels of what is drawn; the numbers are those of the whole map
THUMBNAIL = 112
_photos: dict[int, tuple[weakref.ref, str]] = {}  # by id of the image, as long as it lives


def display_size(width: int, height: int, longest: int = DISPLAY) -> tuple[int, int]:
    """(H, W) at which a width x height image is drawn: never enlarged, never under one pixel."""
    scale = min(1.0, longest / max(width, height))
    return max(1, round(height * scale)), max(1, round(width * scale))


def data_uri(image: Image.Image | np.ndarray, quality: int | None = None) -> str:
    """PNG, or JPEG of this quality, as a data URI."""
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    buffer = io.BytesIO()
    if quality is None:
        image.save(buffer, "PNG", compress_level=1)  # a quarter larger than 6, three times as fast
    else:
        image.save(buffer, "JPEG", quality=quality)
    kind = "png" if quality is None else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def colored(values: np.ndarray, colormap: str, low: float, high: float) -> Image.Image:
    """A map [H, W] in the colours of `tipsv2.analysis.render.colorize`, exactly, as a picture with a table of 256
    colours: a tenth of the time and half the bytes of one with three channels.
    """
    from tipsv2.analysis.render import color_table, shades

    picture = Image.fromarray(shades(values, low, high))
    picture.putpalette(color_table(colormap).tobytes())
    return picture


def color_bar(colormap: str) -> Image.Image:
    """The colours of a map from low to high, 256 pixels in a row."""
    return colored(np.arange(256, dtype=np.float32)[None], colormap, 0, 255)


def photo_uri(image: Image.Image) -> str:
    """The image under a map: as it is if it is small, else drawn smaller. Made once for an image, which nobody may
    change afterwards.
    """
    known = _photos.get(id(image))
    if known is None or known[0]() is not image:
        height, width = display_size(*image.size)
        drawn = image
        if (width, height) != image.size:
            drawn = image.resize((width, height), Image.Resampling.LANCZOS)
        uri = data_uri(drawn, quality=None if max(drawn.size) <= 256 else 92)
        key = id(image)
        known = _photos[key] = weakref.ref(image, lambda _: _photos.pop(key, None)), uri
    return known[1]


def thumbnails(pictures: Sequence[tuple[Image.Image, str]]) -> str:
    """A strip of example images to choose from; (image, what it shows) each."""
    if not pictures:
        return ""
    buttons = []
    for index, (picture, title) in enumerate(pictures):
        side = min(picture.size)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        square = picture.crop((left, top, left + side, top + side)).resize(
            (THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS
        )
        name = escape(title, quote=True)
        buttons.append(
            f'<button type="button" data-index="{index}" title="{name}" aria-label="Example: {name}">'
            f'<img src="{data_uri(square, quality=88)}" alt="" draggable="false"></button>'
        )
    return f'<div class="tips-examples">{"".join(buttons)}</div>'


def status(title: str, facts: Sequence[str], state: str = "ready") -> str:
    """The one line about who answers. state: "ready" | "loading" | "failed"."""
    parts = "".join(f"<span>{escape(fact)}</span>" for fact in facts)
    return f'<p class="tips-status" data-state="{state}" role="status"><i></i><b>{escape(title)}</b>{parts}</p>'


def note(text: str, kind: str = "") -> str:
    """A quiet line under a control; kind "warn" for something to look out for."""
    return f'<p class="tips-note {kind}">{escape(text)}</p>'


def empty(title: str, text: str) -> str:
    """What stands where results will be: what to do now."""
    cells = "<i></i>" * 25
    return (
        f'<div class="tips-empty"><div class="mark" aria-hidden="true">{cells}</div>'
        f"<b>{escape(title)}</b><p>{escape(text)}</p></div>"
    )
