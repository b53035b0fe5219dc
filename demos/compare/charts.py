"""The charts of the Compare tab's layer view, as inline SVG that follows the page's theme: numbers in, HTML out."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
from PIL import Image

from demos.compare.views import key
from demos.ui.views import data_uri

MEASURES = {"auroc": "AUROC", "sharpness": "peak, in sd above the mean"}
DASHES = ("", "7 4", "2 3", "9 3 2 3", "12 4", "4 2", "1 4", "6 2 1 2")  # a query's line where colour says A or B
WIDE, TALL = 460, 300  # of a chart, in its own units


def layers(
    names: Sequence[str],
    cka: np.ndarray,
    cells: np.ndarray,
    bar: Image.Image,
    measure: str,
    scores: tuple[np.ndarray, np.ndarray],
    queries: Sequence[str],
) -> str:
    """Two charts. cka: [L of A, L of B]; cells: its colours, uint8 [L of A, L of B, 3]; bar: those of 0 to 1 in a
    row; scores: [L, N] of A and B.
    """
    shown = np.isfinite(scores[0]).any(axis=0)  # with a mask, only its query has a score
    return (
        '<section class="tips-layers"><div>'
        f"<figure><figcaption>How alike the layers are <small>linear CKA of their patches, 1 is the same but for a "
        f"rotation</small></figcaption>{_matrix(cka, cells, names)}"
        f'<div class="range"><span>0</span><img src="{data_uri(bar)}" alt=""><span>1</span></div></figure>'
        f"<figure><figcaption>Where patches follow the words <small>{MEASURES[measure]}, per layer</small></figcaption>"
        f"{_lines(scores, measure)}{_legend(names, queries, shown)}</figure></div></section>"
    )


def _matrix(cka: np.ndarray, cells: np.ndarray, names: Sequence[str]) -> str:
    rows, columns = cka.shape
    left, top = 58, 8
    width, height = (WIDE - left - 8) / columns, (TALL - top - 46) / rows
    parts = []
    for row in range(rows):
        for column in range(columns):
            value = cka[row, column]
            fill = "#{:02x}{:02x}{:02x}".format(*map(int, cells[row, column])) if np.isfinite(value) else "none"
            text = f"{value:.2f}" if np.isfinite(value) else "undefined"
            # From the bottom up, as axes go; a hair larger than the step, so that no seams show
            parts.append(
                f'<rect x="{left + column * width:.1f}" y="{top + (rows - 1 - row) * height:.1f}" '
                f'width="{width + 0.3:.1f}" height="{height + 0.3:.1f}" fill="{fill}">'
                f"<title>layer {row + 1} of A, layer {column + 1} of B: {text}</title></rect>"
            )
            if max(rows, columns) <= 12 and np.isfinite(value):
                tone = "ink" if cells[row, column] @ (0.299, 0.587, 0.114) > 140 else "paper"
                parts.append(
                    f'<text class="in {tone}" x="{left + (column + 0.5) * width:.1f}" '
                    f'y="{top + (rows - 0.5 - row) * height + 4:.1f}">{value:.2f}</text>'
                )
    for index in _steps(rows):
        parts.append(f'<text class="y" x="{left - 8}" y="{top + (rows - index + 0.5) * height + 4:.1f}">{index}</text>')
    for index in _steps(columns):
        parts.append(f'<text x="{left + (index - 0.5) * width:.1f}" y="{TALL - 24}">{index}</text>')
    return _svg(parts, f"CKA of the layers of {names[0]} and {names[1]}", "layer of B", "layer of A", ("b", "a"))


def _lines(scores: tuple[np.ndarray, np.ndarray], measure: str) -> str:
    """Lines over depth: A's and B's layers may differ in number, so both run from their first to their last."""
    from tipsv2.analysis.render import ticks

    left, top, right, bottom = 58, 12, WIDE - 14, TALL - 46
    values = np.concatenate([side_scores.ravel() for side_scores in scores])
    values = values[np.isfinite(values)] if np.isfinite(values).any() else np.array([0.0, 1.0])
    low, high = float(values.min()), float(values.max())
    low, high = (min(np.floor(5 * low) / 5, 0.4), 1.0) if measure == "auroc" else (min(low, 0.0), high or 1.0)

    def place(depth: float, value: float) -> str:
        return f"{left + depth * (right - left):.1f},{bottom - (value - low) / (high - low) * (bottom - top):.1f}"

    parts = []
    for tick in ticks(low, high):
        y = place(0, tick).split(",")[1]
        parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text class="y" x="{left - 8}" y="{float(y) + 4:.1f}">{tick:g}</text>')
    for side, side_scores in zip("ab", scores, strict=True):
        count = len(side_scores)
        depths = [index / max(1, count - 1) for index in range(count)]
        for number, line in enumerate(side_scores.T):
            points = [place(depth, value) for depth, value in zip(depths, line, strict=True) if np.isfinite(value)]
            dash = DASHES[number % len(DASHES)]
            parts.append(f'<polyline class="{side}" stroke-dasharray="{dash}" points="{" ".join(points)}"/>')
            parts += [
                f'<circle class="{side}" cx="{x}" cy="{y}" r="3.2"><title>layer {index} of {side.upper()}: {value:.3f}'
                "</title></circle>"
                for index, (value, (x, y)) in enumerate(
                    ((v, place(d, v).split(",")) for d, v in zip(depths, line, strict=True) if np.isfinite(v)), 1
                )
            ]
    ends = " and ".join(sorted({str(len(side_scores)) for side_scores in scores}, key=int))
    parts.append(f'<text x="{left}" y="{TALL - 24}">1</text><text class="y" x="{right}" y="{TALL - 24}">{ends}</text>')
    return _svg(parts, f"{MEASURES[measure]} of each layer", "layer, from the first to the last", "", ("", ""))


def _legend(names: Sequence[str], queries: Sequence[str], shown: Sequence[bool]) -> str:
    dashes = "".join(
        f'<li><svg viewBox="0 0 30 8" aria-hidden="true"><line x1="0" x2="30" y1="4" y2="4" '
        f'stroke-dasharray="{DASHES[number % len(DASHES)]}"/></svg>{escape(query)}</li>'
        for number, query in enumerate(queries)
        if shown[number]
    )
    return f"{key(names)}<ul>{dashes}</ul>"


def _svg(parts: Sequence[str], title: str, across: str, up: str, sides: tuple[str, str]) -> str:
    middle = (TALL - 38) / 2
    return (
        f'<svg viewBox="0 0 {WIDE} {TALL}" role="img" aria-label="{escape(title, quote=True)}">{"".join(parts)}'
        f'<text class="name {sides[0]}" x="{(WIDE + 44) / 2}" y="{TALL - 4}">{across}</text>'
        f'<text class="name {sides[1]}" transform="translate(14 {middle}) rotate(-90)">{up}</text></svg>'
    )


def _steps(count: int) -> list[int]:
    """Layer numbers to write along an axis: all of a dozen, of more every fourth."""
    return list(range(1, count + 1)) if count <= 12 else [1, *range(4, count + 1, 4)]
