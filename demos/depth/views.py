"""What the Depth tab draws: depth with its scale, normals with their balls, classes with their legend. Pure functions.

The page reads metres, directions and classes under the pointer out of three small grids of the exact numbers.
"""

from __future__ import annotations

import base64
import functools
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from demos.ui import views
from tipsv2.analysis.render import WIDE_PALETTE, label_colors, paint_normals, ticks

if TYPE_CHECKING:
    from demos.backend.heads import Scene
    from tipsv2.analysis.depth import Dpt

READ = 200  # long side of the grids that are read under the pointer
BALL = 132  # pixels of a ball of directions, drawn at half that size


def scene(shown: Scene, low: float, high: float, colormap: str) -> str:
    """Depth, normals and classes, whichever there are. low, high: metres at the ends of the depth's colours."""
    result, (width, height) = shown.result, shown.image.size
    grid = views.display_size(width, height, READ)
    cards, data = [], ""
    if result.depth is not None:
        cards.append(_depth_card(result.depth, low, high, colormap))
        data += f' data-depth="{_packed(_sampled(result.depth, grid).astype("<f4"))}" data-range="{low!r} {high!r}"'
    if result.normals is not None:
        cards.append(_normals_card(result.normals))
        data += f' data-normals="{_packed(np.rint(_sampled(result.normals, grid) * 127).astype(np.int8))}"'
    few = len(cards)
    cards.append('<p class="told" role="status">Point at a picture to read it; a click keeps the place.</p>')
    if result.labels is not None:
        cards.append(_classes_card(shown))
        names = escape("\n".join(result.classes), quote=True)
        data += f' data-labels="{_packed(_sampled(result.labels, grid).astype("<i2"))}" data-names="{names}"'
    style = f"--ratio:{width / height:.6f}"
    return (
        f'<div class="tips-depth" data-grid="{grid[0]}x{grid[1]}" style="{style}"{data}>'
        f'<div class="pair" data-count="{few}">{"".join(cards)}</div></div>'
    )


def limits(depth: np.ndarray | None, span: str, near: float | None, far: float | None) -> tuple[float, float]:
    """Metres at the ends of the colours: the picture's own, or fixed ones. Raises ValueError."""
    if span == "fixed":
        if near is None or far is None or not 0 <= near < far <= 1000:
            raise ValueError("The nearest of the colours must be less than the farthest, both from 0 to 1000 m.")
        return float(near), float(far)
    return (0.0, 0.0) if depth is None else (float(depth.min()), float(depth.max()))


def _depth_card(depth: np.ndarray, low: float, high: float, colormap: str) -> str:
    near, middle, far = (float(value) for value in np.quantile(depth, (0, 0.5, 1)))
    bar = views.data_uri(views.color_bar(colormap))
    marks = "".join(
        f'<li style="left:{100 * (value - low) / (high - low) if high > low else 0:.2f}%">{value:g}</li>'
        for value in ticks(low, high, 6)
    )
    facts = (("nearest", near), ("median", middle), ("farthest", far))
    numbers = "".join(f"<div><dt>{name}</dt><dd>{value:.2f} m</dd></div>" for name, value in facts)
    return (
        '<figure class="depth"><figcaption><b>Depth</b><span>metres</span></figcaption>'
        + _stage(views.colored(_drawn(depth), colormap, low, high), f"Depth from {near:.2f} to {far:.2f} metres")
        + f'<div class="scale"><img src="{bar}" alt="" draggable="false"><i class="needle"></i><ol>{marks}</ol></div>'
        f"<dl>{numbers}</dl></figure>"
    )


def _normals_card(normals: np.ndarray) -> str:
    balls = "".join(
        f'<div class="ball" data-side="{side}"><span><img src="{_ball(side)}" alt="" draggable="false"><i></i></span>'
        f"<small>z {'&gt;' if side > 0 else '&lt;'} 0</small></div>"
        for side in (1, -1)
    )
    picture = np.asarray(Image.fromarray(paint_normals(normals)).resize(_size(normals), Image.Resampling.BOX))
    return (
        '<figure class="normals"><figcaption><b>Normals</b><span>unit vectors</span></figcaption>'
        + _stage(picture, "Surface normals in colours")
        + f'<div class="balls">{balls}<p>Red is x, green y and blue z, from −1 to 1, '
        "with the signs of NYU Depth v2’s training data. On the balls x runs to the right and y up.</p></div></figure>"
    )


def _stage(picture: np.ndarray | Image.Image, label: str) -> str:
    return (
        f'<div class="stage" tabindex="0" role="img" aria-label="{escape(label)}; arrow keys read it">'
        f'<img src="{views.data_uri(picture)}" alt="" draggable="false"><i class="spot"></i></div>'
    )


@functools.lru_cache(maxsize=2)
def _ball(side: int) -> str:
    """The half of the ball of directions with z > 0 (side 1) or z < 0 (side -1) in the colours of `paint_normals`."""
    axis = (np.arange(BALL) + 0.5) / BALL * 2 - 1
    x, y = np.meshgrid(axis, -axis)
    square = x**2 + y**2
    colors = paint_normals(np.stack([x, y, side * np.sqrt(np.clip(1 - square, 0, None))], axis=-1))
    edge = np.clip((1 - np.sqrt(square)) * BALL / 2 + 0.5, 0, 1)
    return views.data_uri(np.dstack([colors, (255 * edge + 0.5).astype(np.uint8)]))


def _classes_card(shown: Scene) -> str:
    """The classes' colours over the image, which the page isolates by colour, and the legend with their shares."""
    result = shown.result
    colors = class_colors(result.labels, len(result.classes))
    shares = result.shares()
    rows = []
    for name, share in shares.items():
        key = result.classes.index(name)
        color, title = "#{:02x}{:02x}{:02x}".format(*map(int, colors[key])), escape(name, quote=True)
        percent = f"{100 * share:.1f}&thinsp;%" if share >= 0.001 else "&lt;&thinsp;0.1&thinsp;%"
        rows.append(
            f'<li><button type="button" data-class="{key}" data-color="{color}" aria-pressed="false" title="{title}">'
            f'<i style="background:{color}"></i><span>{title}</span><b>{percent}</b>'
            f'<em style="width:{100 * share:.2f}%;background:{color}"></em></button></li>'
        )
    painted = Image.fromarray(colors[result.labels]).resize(_size(result.labels), Image.Resampling.NEAREST)
    top = ", ".join(f"{escape(name, quote=True)} {100 * share:.0f} %" for name, share in list(shares.items())[:5])
    photo = f"background-image:url({views.photo_uri(shown.image)})"
    return (
        f'<figure class="classes"><figcaption><b>Classes</b><span>{len(shares)} of {len(result.classes)}</span>'
        f'</figcaption><div class="body"><div class="stage" tabindex="0" role="img" style="{photo}" '
        f'aria-label="Classes: {top}; arrow keys read them">'
        f'<img class="layer" src="{views.data_uri(painted)}" alt="" draggable="false">'
        f'<canvas hidden></canvas><i class="spot"></i></div><ul class="legend">{"".join(rows)}</ul></div></figure>'
    )


def class_colors(labels: np.ndarray, count: int) -> np.ndarray:
    """[count, 3] uint8: a class has the same colour in every image, as long as there are colours for all."""
    colors = np.zeros((count, 3), np.uint8)
    own = np.array(label_colors(labels, WIDE_PALETTE), np.uint8)
    colors[: len(own)] = own
    return colors


def note(shown: Scene, dpt: Dpt) -> str:
    """What the network saw, and what the checkpoint has no heads for."""
    rows, columns = shown.result.grid
    used, training = min(rows, columns) * dpt.patch_size, dpt.info.resolution
    text = f"{used} px short side, {rows} × {columns} patches."
    missing = [name for name in ("depth", "normals", "segmentation") if name not in dpt.heads]
    if missing:
        text += f" This checkpoint has no head for {' and '.join(missing)}."
    if used < shown.resolution - 2 * dpt.patch_size:
        return views.note(f"{text} The image is so long that {shown.resolution} px would not fit.", "warn")
    if used > training:
        return views.note(f"{text} Beyond the {training} px of training: finer, less sure.", "warn")
    return views.note(text)


def _drawn(depth: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(depth).resize(_size(depth), Image.Resampling.BOX))


def _size(array: np.ndarray) -> tuple[int, int]:
    """(width, height) at which a map [H, W, ...] is drawn."""
    height, width = views.display_size(array.shape[1], array.shape[0])
    return width, height


def _sampled(array: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """The pixels in the middle of the cells of a grid (rows, columns)."""
    rows, columns = (
        ((np.arange(count) + 0.5) * length / count).astype(int)
        for count, length in zip(grid, array.shape[:2], strict=True)
    )
    return array[rows][:, columns]


def _packed(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
