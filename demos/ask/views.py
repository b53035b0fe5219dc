"""What the Ask tab draws: one card for each map, for a second image, and for the words near a patch.

Pure functions: numbers and pictures in, HTML out, everything a visitor typed escaped. The script is web/maps.js.
Sizes: h x w patches, H x W pixels.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from demos.ui.verdicts import DIGITS, badge
from demos.ui.views import data_uri, photo_uri

if TYPE_CHECKING:
    from tipsv2.analysis.regions import Regions
    from tipsv2.analysis.verdict import Verdict


@dataclass(frozen=True)
class Card:
    """One map to draw. values: [h, w] scores of the patches; picture: the coloured map, of any size."""

    name: str
    values: np.ndarray
    picture: Image.Image
    low: float
    high: float
    patch: tuple[int, int] | None = None  # (row, column) to outline: the map is of what resembles this patch
    region: Regions | None = None  # to outline, with boxes around its parts
    photo: Image.Image | None = None  # the second image, if the map is of that; its best match is outlined
    verdict: Verdict | None = None  # is it there?
    because: str = ""  # what the verdict rests on
    absent: bool = False  # it is not: the colours are held down


def maps(
    image: Image.Image,
    cards: Sequence[Card],
    bar: Image.Image,
    near: Sequence[tuple[str, float]] = (),
    absolute: tuple[float, float] = (0.0, 1.0),
) -> str:
    """The grid of maps. bar: the colours from low to high, in a row; near: words and scores, told after the maps of a
    clicked patch; absolute: the scores that their bars run between.
    """
    scale = data_uri(bar)
    figures = [_card(card, scale) for card in cards]
    if near:
        figures.insert(sum(card.patch is not None or card.photo is not None for card in cards), _near(near, absolute))
    width, height = image.size
    return (
        f'<div class="tips-maps" data-count="{len(figures)}" data-size="{width}x{height}" style="{_photo(image)}">'
        f"{''.join(figures)}</div>"
    )


def _card(card: Card, scale: str) -> str:
    rows, columns = card.values.shape
    peak, mean = float(card.values.max()), float(card.values.mean())
    best = tuple(int(index) for index in np.unravel_index(card.values.argmax(), card.values.shape))
    over, remove, own = "", "", ""
    if card.patch is not None:
        over = f'<i class="patch" style="{_box(card.patch, (rows, columns))}"></i>'
        remove = '<button class="remove" type="button" title="Remove this map" aria-label="Remove this map">×</button>'
    if card.photo is not None:
        over = f'<i class="patch" style="{_box(best, (rows, columns))}"></i>'
        own = f' style="{_photo(card.photo)}"'
    coverage = ""
    if card.region is not None:
        over += _region(card.region)
        coverage = _covered(card.region)
    name = escape(card.name, quote=True)
    kinds = (" other" if own else "") + (" absent" if card.absent else "")
    said = badge(card.verdict, card.because) if card.verdict is not None else ""
    kind = "patches" if card.picture.size == (columns, rows) else "smooth"
    values = json.dumps(np.round(card.values.astype(float), 4).ravel().tolist(), separators=(",", ":"))
    keys = "" if card.photo is not None else ' tabindex="0" role="application"'
    return (
        f'<figure class="card{kinds}" data-grid="{rows}x{columns}" data-values="{values}" '
        f'data-digits="{DIGITS}"><figcaption><b title="{name}">{name}</b>{said}{remove}</figcaption>'
        f'<div class="stage"{own}{keys} aria-label="Map of {name}: arrow keys move, Enter picks a patch">'
        f'<img class="{kind}" src="{data_uri(card.picture)}" draggable="false" alt="Map of {name}: peak '
        f'{peak:.{DIGITS}f}"><i class="peak" style="{_box(best, (rows, columns))}"></i>{over}<i class="spot"></i></div>'
        f'<div class="range"><span>{card.low:.{DIGITS}f}</span><img src="{scale}" alt="" draggable="false">'
        f"<span>{card.high:.{DIGITS}f}</span></div>"
        f'<dl><div><dt>{"best" if own else "peak"}</dt><dd class="value-peak">{peak:.{DIGITS}f}</dd></div>'
        f'<div><dt>mean</dt><dd class="value-mean">{mean:.{DIGITS}f}</dd></div>'
        f'<div class="here"><dt>here</dt><dd>–</dd></div></dl>{coverage}</figure>'
    )


def _near(words: Sequence[tuple[str, float]], absolute: tuple[float, float]) -> str:
    """The words nearest to a patch, each a button that asks for it."""
    low, high = absolute
    rows = []
    for word, score in words:
        name, width = escape(word, quote=True), 100 * min(max((score - low) / (high - low), 0), 1)
        rows.append(
            f'<li><button type="button" data-word="{name}" title="Ask for {name}"><span>{name}</span>'
            f'<b>{score:.{DIGITS}f}</b><em><u style="width:{width:.1f}%"></u></em></button></li>'
        )
    return (
        '<figure class="card near"><figcaption><b>Nearest words</b></figcaption>'
        f"<ol>{''.join(rows)}</ol><p>Click a word to ask for it.</p></figure>"
    )


def _region(region: Regions) -> str:
    """The outline of a region and the boxes of its parts, over a picture."""
    from tipsv2.analysis.regions import outlines

    height, width = region.mask.shape
    lines = "".join("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in line) + "Z" for line in outlines(region.mask))
    boxes = "".join(
        f'<rect x="{left}" y="{top}" width="{right - left}" height="{bottom - top}"/>'
        for left, top, right, bottom in (part.box for part in region.parts)
    )
    return (
        f'<svg class="region" viewBox="0 0 {width} {height}" preserveAspectRatio="none" aria-hidden="true">'
        f'<path class="casing" d="{lines}"/><path d="{lines}"/><g class="casing">{boxes}</g><g>{boxes}</g></svg>'
    )


def _covered(region: Regions) -> str:
    if not region.parts:
        return f'<p class="covers"><b>Nothing</b> from {region.threshold:.{DIGITS}f}</p>'
    parts = "1 part" if len(region.parts) == 1 else f"{len(region.parts)} parts"
    share = f"<b>{100 * region.share:.1f}&thinsp;%</b> of the image"
    return f'<p class="covers">{share}, {parts}, from {region.threshold:.{DIGITS}f}</p>'


def _photo(image: Image.Image) -> str:
    return f"--photo:url({photo_uri(image)});--ratio:{image.width / image.height:.6f}"


def _box(patch: tuple[int, int], grid: tuple[int, int]) -> str:
    """CSS that lays a box over one patch, in percent of the image."""
    (row, column), (rows, columns) = patch, grid
    return (
        f"left:{100 * column / columns:.3f}%;top:{100 * row / rows:.3f}%;"
        f"width:{100 / columns:.3f}%;height:{100 / rows:.3f}%"
    )
