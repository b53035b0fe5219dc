"""What the Compare tab draws: numbers and pictures in, HTML out; as demos.ui.views, whose pieces it uses.

A is blue and B red everywhere: in the difference (the ends of RdBu), in the table and in the charts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from demos.ui.views import data_uri, photo_uri

if TYPE_CHECKING:
    from PIL import Image

    from tipsv2.analysis.alignment import MapScore

UNITS = {"z": "standard deviations", "rank": "rank", "cosine": "cosine"}


@dataclass(frozen=True)
class PairCard:
    """One query on both sides. pictures: of A, of B and of B - A, as large as drawn; values: [2, h, w], both maps
    coarsely, for the pointer; scores: peaks in those pixels; outline: [H, W, 4] of its mask.
    """

    query: str
    pictures: tuple[Image.Image, Image.Image, Image.Image]
    values: np.ndarray
    scores: tuple[MapScore, MapScore]
    agreement: float
    outline: np.ndarray | None = None


def pairs(
    image: Image.Image,
    names: Sequence[str],
    sentence: str,
    cards: Sequence[PairCard],
    scale: str,
    spans: tuple[float, float, float],
    bars: tuple[Image.Image, Image.Image],
) -> str:
    """The sentence, a row per query and the table: picture, A, B and the difference side by side, larger on a click.

    spans: the least and greatest value of the maps' colours, and that of the difference's, which is symmetric.
    bars: the colours of the maps and of the difference from low to high.
    """
    style = f"--photo:url({photo_uri(image)});--ratio:{image.width / image.height:.6f}"
    ranges = _ranges(UNITS[scale], spans, bars)
    figures = "".join(_row(card, alone=len(cards) == 1) for card in cards)
    return (
        f'<div class="tips-compare" style="{style}"><p class="verdict" role="status">{escape(sentence)}</p>'
        f'{key(names)}<div class="rows">{figures}</div><div class="legend">{"".join(ranges)}</div>'
        f"{table(names, cards)}</div>"
    )


def key(names: Sequence[str]) -> str:
    parts = (f'<span class="{s}"><b>{s.upper()}</b> {escape(name)}</span>' for s, name in zip("ab", names, strict=True))
    return f'<p class="key">{"".join(parts)}</p>'


def _ranges(unit: str, spans, bars) -> tuple[str, str]:
    low, high, most = spans
    maps, signed = (f'<img src="{data_uri(bar)}" alt="" draggable="false">' for bar in bars)
    return (
        f'<div><div class="range"><span>{_minus(low)}</span>{maps}<span>{_minus(high)}</span></div>'
        f"<small>A and B, {unit}</small></div>",
        f'<div><div class="range"><span>−{most:.2f}</span>{signed}<span>+{most:.2f}</span></div>'
        f'<small><span class="a">A responds more</span><span class="b">B responds more</span></small></div>',
    )


def _minus(value: float, form: str = "{:.2f}") -> str:
    return form.format(value).replace("-", "−")


def _row(card: PairCard, alone: bool) -> str:
    """One query. alone: it is the only one, and opens large."""
    name, size = escape(card.query, quote=True), card.pictures[0].size
    layers = "".join(
        f'<div class="layer {side}"><img src="{data_uri(picture)}" alt="" draggable="false">'
        f'<i class="peak" style="left:{100 * (score.x + 0.5) / size[0]:.3f}%;'
        f'top:{100 * (score.y + 0.5) / size[1]:.3f}%"></i></div>'
        for side, picture, score in zip("ab", card.pictures, card.scores, strict=False)
    )
    outline = ""
    if card.outline is not None:
        outline = f'<img class="outline" src="{data_uri(card.outline)}" alt="" draggable="false">'
    signed = f'<img src="{data_uri(card.pictures[2])}" alt="Where B responds more to {name} than A" draggable="false">'
    values = json.dumps(np.round(card.values.astype(float), 3).ravel().tolist(), separators=(",", ":"))
    opened, expanded = (" open", "true") if alone else ("", "false")
    return (
        f'<figure class="pair{opened}" data-grid="{"x".join(map(str, card.values.shape[1:]))}" data-values="{values}">'
        f'<figcaption><b title="{name}">{name}</b><span class="here"><span class="a">A <i>–</i></span>'
        f'<span class="b">B <i>–</i></span></span><button type="button" class="size" aria-expanded="{expanded}" '
        f'aria-label="{name}: larger or smaller"></button></figcaption>'
        f'<div class="stage photo"></div><div class="stage swipe">{layers}{outline}<span class="tag a">A</span>'
        f'<span class="tag b">B</span><i class="line"></i><input type="range" min="0" max="100" step="1" value="50" '
        f'aria-label="{name}: how much of A is shown beside B"></div>'
        f'<div class="stage gray">{signed}{outline}<span class="tag">B − A</span></div></figure>'
    )


def table(names: Sequence[str], cards: Sequence[PairCard]) -> str:
    """A row per query, each measure for A and B with the better one bold; the mask's measures only if there is one."""
    scores = [card.scores for card in cards]
    columns = [
        ("peak cosine", "peak", "{:.3f}", "Highest cosine; the range differs from encoder to encoder"),
        ("peak, sd", "sharpness", "{:.2f}", "How far the peak stands above the map's mean, in standard deviations"),
        ("margin, sd", "margin", "{:.2f}", "The query's cosine minus the best other query's, at the peak"),
    ]
    if any(a.auroc is not None for a, _ in scores):
        columns += [
            ("pointing", "pointing", "", "Is the peak in the mask, or at most 15 pixels away?"),
            ("AUROC", "auroc", "{:.3f}", "The chance that a pixel inside scores higher than one outside"),
            ("best IoU", "iou", "{:.2f}", "At the threshold that suits this map best: an upper bound"),
        ]
    heads = "".join(f'<th colspan="2" title="{escape(why, quote=True)}">{title}</th>' for title, _, _, why in columns)
    sides = '<th class="a">A</th><th class="b">B</th>' * len(columns)
    rows = "".join(
        f'<tr><th scope="row" title="{escape(card.query, quote=True)}">{escape(card.query)}</th>'
        + "".join(
            _cells(getattr(card.scores[0], field), getattr(card.scores[1], field), form, field)
            for _, field, form, _ in columns
        )
        + f"<td>{_minus(card.agreement)}</td></tr>"
        for card in cards
    )
    heads += '<th rowspan="2" title="How alike the two maps are: their correlation over all pixels">alike</th>'
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="Scores per query"><table class="scores">'
        f"<caption>A is {escape(names[0])}, B is {escape(names[1])}</caption>"
        f'<thead><tr><th rowspan="2">query</th>{heads}</tr><tr>{sides}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _cells(a, b, form: str, field: str) -> str:
    if a is None or b is None:
        return "<td>–</td><td>–</td>"
    texts = [_minus(value, form) if form else "hit" if value else "miss" for value in (a, b)]
    # Cosines of two encoders have different ranges: the higher one is not the better one.
    best = [field != "peak" and texts[0] != texts[1] and mine > other for mine, other in ((a, b), (b, a))]
    return "".join(f"<td>{f'<b>{text}</b>' if top else text}</td>" for text, top in zip(texts, best, strict=True))


def colors(names: Sequence[str], pictures: Sequence[np.ndarray], size: tuple[int, int], note: str) -> str:
    """Both sides' principal components, uint8 [h, w, 3] each, a pixel per patch. size: (width, height) of the image."""
    figures = "".join(
        f'<figure><div class="stage"><img src="{data_uri(picture)}" draggable="false" '
        f'alt="Principal components of {escape(name, quote=True)}"><span class="tag {side}">{side.upper()}</span></div>'
        f"<figcaption>{escape(name)}</figcaption></figure>"
        for side, name, picture in zip("ab", names, pictures, strict=True)
    )
    return (
        f'<section class="tips-joint" style="--ratio:{size[0] / size[1]:.6f}"><h3>The same colours on both sides</h3>'
        f"<p>{escape(note)}</p><div>{figures}</div></section>"
    )
