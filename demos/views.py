"""What the tabs draw: numbers and pictures in, HTML out. No gradio and no model in here; scripts are in demos/web.

Everything a visitor typed is escaped. Pictures travel as data URIs, so that nobody else's page can ask for them and no
file stays behind; where colours mean numbers they are PNG.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from html import escape

import numpy as np
from PIL import Image

DISPLAY = 640  # long side in pixels of what is drawn; the numbers are those of the whole map
THUMBNAIL = 112
HOVER = 160  # long side of the grid that tells which class is under the pointer


def display_size(width: int, height: int, longest: int = DISPLAY) -> tuple[int, int]:
    """(H, W) at which a width x height image is drawn: never enlarged, never under one pixel."""
    scale = min(1.0, longest / max(width, height))
    return max(1, round(height * scale)), max(1, round(width * scale))


def data_uri(image: Image.Image | np.ndarray, quality: int | None = None) -> str:
    """PNG, or JPEG of this quality, as a data URI."""
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    buffer = io.BytesIO()
    if quality is None:
        image.save(buffer, "PNG", compress_level=4)
    else:
        image.save(buffer, "JPEG", quality=quality)
    kind = "png" if quality is None else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def photo_uri(image: Image.Image) -> str:
    """The image under a map: as it is if it is small, else drawn smaller."""
    height, width = display_size(*image.size)
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    return data_uri(image, quality=None if max(image.size) <= 256 else 92)


def regions(
    image: Image.Image,
    labels: np.ndarray,
    names: Sequence[str],
    colors: np.ndarray,
    shares: Sequence[float],
    background: float,
) -> str:
    """A segmentation: the image with one layer per class found, a legend with shares, and the classes not found.

    labels: [H, W] index into names, negative for background.   colors: [N, 3] uint8.   shares: N parts of one.
    """
    height, width = labels.shape
    found = sorted((index for index in range(len(names)) if shares[index] > 0), key=lambda index: -shares[index])
    layers, rows = [], []
    shown = [
        (index, names[index], "#{:02x}{:02x}{:02x}".format(*map(int, colors[index])), shares[index]) for index in found
    ]
    if background > 0:
        shown.append((-1, "background", "transparent", background))
    for index, name, color, share in shown:
        mask = Image.fromarray(np.where(labels == index, 255, 0).astype(np.uint8))
        mask = Image.merge("LA", (Image.new("L", mask.size), mask))
        style = f"--color:{color};--mask:url({data_uri(mask)})"
        layers.append(f'<div class="layer" data-class="{index}" style="{style}"></div>')
        rows.append(_legend_row(index, escape(name, quote=True), color, share))
    absent = [escape(names[index]) for index in range(len(names)) if shares[index] <= 0]
    missing = ""
    if absent:
        fold = "open" if len(absent) <= 24 else ""
        missing = (
            f'<details class="absent" {fold}><summary>Not found: {len(absent)}</summary>{", ".join(absent)}</details>'
        )
    small = display_size(width, height, HOVER)
    grid = np.asarray(Image.fromarray(labels.astype(np.int32)).resize(small[::-1], Image.Resampling.NEAREST))
    hover = json.dumps(grid.ravel().tolist(), separators=(",", ":"))
    titles = escape(json.dumps({str(index): names[index] for index in found} | {"-1": "background"}), quote=True)
    style = f"--photo:url({photo_uri(image)});--ratio:{image.width / image.height:.6f}"
    return (
        f'<div class="tips-regions" style="{style}"><div class="stage" data-grid="{small[0]}x{small[1]}" '
        f'data-labels="{hover}" data-titles="{titles}">{"".join(layers)}<span class="tag"></span></div>'
        f'<div class="legend"><ul>{"".join(rows)}</ul>{missing}</div></div>'
    )


def _legend_row(key: int, name: str, color: str, share: float) -> str:
    percent = f"{100 * share:.1f}&thinsp;%" if share >= 0.001 else "&lt;&thinsp;0.1&thinsp;%"
    return (
        f'<li><button type="button" data-class="{key}" aria-pressed="false" title="Show only {name}">'
        f'<i style="background:{color}"></i><span>{name}</span><b>{percent}</b>'
        f'<em style="width:{100 * share:.2f}%;background:{color}"></em></button></li>'
    )


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
