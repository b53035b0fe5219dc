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
    """The sentence, a card per query and the table.

    spans: the least and greatest value of the maps' colours, and that of the difference's, which is symmetric.
    bars: the colours of the maps and of the difference from low to high.
    """
    style = f"--photo:url({photo_uri(image)});--ratio:{image.width / image.height:.6f}"
    ranges = _ranges(UNITS[scale], spans, bars)
    figures = "".join(_card(card, ranges) for card in cards)
    return (
        f'<div class="tips-compare" style="{style}"><p class="verdict" role="status">{escape(sentence)}</p>'
        f"{key(names)}{figures}{table(names, [card.scores for card in cards])}</div>"
    )


def key(names: Sequence[str]) -> str:
    parts = (f'<span class="{s}"><b>{s.upper()}</b> {escape(name)}</span>' for s, name in zip("ab", names, strict=True))
    return f'<p class="key">{"".join(parts)}</p>'


def _ranges(unit: str, spans, bars) -> tuple[str, str]:
    low, high, most = spans
    maps, signed = (f'<img src="{data_uri(bar)}" alt="" draggable="false">' for bar in bars)
    return (
        f'<div class="range"><span>{_minus(low)}</span>{maps}<span>{_minus(high)}</span></div><small>{unit}</small>',
        f'<div class="range"><span>−{most:.2f}</span>{signed}<span>+{most:.2f}</span></div>'
        f'<small><span class="a">A responds more</span><span class="b">B responds more</span></small>',
    )


def _minus(value: float, form: str = "{:.2f}") -> str:
    return form.format(value).replace("-", "−")


def _card(card: PairCard, ranges: tuple[str, str]) -> str:
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
    return (
        f'<figure class="pair" data-grid="{"x".join(map(str, card.values.shape[1:]))}" data-values="{values}">'
        f'<figcaption><b title="{name}">{name}</b></figcaption>'
        f'<div class="side"><div class="stage swipe">{layers}{outline}<span class="tag a">A</span>'
        f'<span class="tag b">B</span><i class="line"></i><input type="range" min="0" max="100" step="1" value="50" '
        f'aria-label="{name}: how much of A is shown beside B"></div>{ranges[0]}</div>'
        f'<div class="side"><div class="stage gray">{signed}{outline}<span class="tag">B − A</span></div>'
        f"{ranges[1]}</div>"
        f"{_numbers(card)}</figure>"
    )


def _numbers(card: PairCard) -> str:
    rows = [
        ("peak cosine", [_minus(score.peak, "{:.3f}") for score in card.scores]),
        ("above the mean", [f"{score.sharpness:.1f} sd" for score in card.scores]),
    ]
    if card.scores[0].auroc is not None:
        rows += [
            ("AUROC", [f"{score.auroc:.3f}" for score in card.scores]),
            ("best IoU", [f"{score.iou:.2f}" for score in card.scores]),
        ]
    body = "".join(f"<tr><th>{what}</th><td>{a}</td><td>{b}</td></tr>" for what, (a, b) in rows)
    body += '<tr class="here"><th>under the pointer</th><td>–</td><td>–</td></tr>'
    return (
        '<div class="numbers"><table><thead><tr><th></th><th class="a">A</th><th class="b">B</th></tr></thead>'
        f"<tbody>{body}</tbody></table><p>The maps correlate <b>{_minus(card.agreement)}</b>.</p></div>"
    )


def table(names: Sequence[str], scores: Sequence[tuple[MapScore, MapScore]]) -> str:
    """A row per query, each measure for A and B with the better one bold; the mask's measures only if there is one."""
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
        f'<tr><th scope="row" title="{escape(pair[0].query, quote=True)}">{escape(pair[0].query)}</th>'
        + "".join(_cells(*(getattr(score, field) for score in pair), form, field) for _, field, form, _ in columns)
        + "</tr>"
        for pair in scores
    )
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
