"""The curves of the Train tab as inline SVG that follows the page's theme: numbers in, HTML out."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from html import escape

from demos.train.state import Look
from train.recipe.metrics import term_title

WIDE, TALL = 360, 210  # of a chart, in its own units
LEFT, TOP, RIGHT, BOTTOM = 48, 12, WIDE - 8, TALL - 34
POINTS = 160  # of a curve; more steps are averaged in groups
COLORS = 6  # series of one chart that have a colour of their own (tab-train.css)
RECALLS = {"recall_learned": "learned from", "recall_held_out": "kept apart"}  # of train/run/recall.py

Curve = tuple[str, Sequence[int], Sequence[float]]


def curves(look: Look) -> str:
    """The charts of a run: terms of the loss with ln(batch), learning rate, patch-text mIoU as far as measured."""
    series = look.series()
    if "loss" not in series:
        return ""
    last = max(look.steps, look.step)
    terms = [(title, *series[name]) for name in series if (title := term_title(name))]
    losses = terms or [("loss", *series["loss"])]
    chance = series.get("ln_batch")
    charts = [
        chart("Loss", "terms before their weights", losses, last, chance),
        chart("Learning rate", "warm-up, then a cosine", [("learning rate", *series["lr"])], last)
        if "lr" in series
        else "",
    ]
    measured = [(name.removeprefix("miou_"), *series[name]) for name in sorted(series) if name.startswith("miou_")]
    if measured:
        forgets = look.own_data and look.base
        what = "of drawn scenes" + (": what is forgotten" if forgets else "")
        charts.append(chart("Patch-text mIoU", what, measured, last))
    recalls = [(title, *series[name]) for name, title in RECALLS.items() if name in series]
    if recalls:
        charts.append(chart("Retrieval", "share of captions and pictures that find each other", recalls, last))
    return f'<section class="tips-curves">{"".join(charts)}</section>'


def chart(
    title: str,
    text: str,
    given: Sequence[Curve],
    last: int,
    reference: tuple[Sequence[int], Sequence[float]] | None = None,
) -> str:
    """Curves over steps 0 to `last`. given: (name, steps, values) each; reference: steps and values of a dashed line,
    called chance.
    """
    from tipsv2.analysis.render import ticks

    shown = [(name, *_grouped(steps, values)) for name, steps, values in given[:COLORS]]
    dashed = _grouped(*reference) if reference else ([], [])
    values = [value for _, _, curve in shown for value in curve] + list(dashed[1])
    low, high = _span(values)

    def place(step: float, value: float) -> str:
        x = LEFT + step / max(1, last) * (RIGHT - LEFT)
        return f"{x:.1f},{BOTTOM - (value - low) / (high - low) * (BOTTOM - TOP):.1f}"

    parts = []
    for tick in ticks(low, high, 5):
        y = place(0, tick).split(",")[1]
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text class="y" x="{LEFT - 7}" y="{float(y) + 4:.1f}">{_short(tick)}</text>')
    parts += [
        f'<text class="{anchor}" x="{x}" y="{TALL - 16}">{step:,}</text>'
        for x, step, anchor in ((LEFT, 0, "x"), (RIGHT, last, "x end"))
    ]
    if len(dashed[0]):
        parts.append(_line("chance", [place(s, v) for s, v in zip(*dashed, strict=True)]))
    for number, (_, steps, curve) in enumerate(shown):
        points = [place(step, value) for step, value in zip(steps, curve, strict=True)]
        parts.append(_line(f"s{number}", points))
        if len(points) <= 12:
            parts += [
                f'<circle class="s{number}" r="3" cx="{p.split(",")[0]}" cy="{p.split(",")[1]}"/>' for p in points
            ]
    names = [name for name, *_ in shown] + (["chance"] if len(dashed[0]) else [])
    plan = {
        "last": last,
        "span": [LEFT / WIDE, RIGHT / WIDE],
        "curves": [[n, list(s), [float(f"{v:.4g}") for v in e]] for n, s, e in [*shown, ("chance", *dashed)] if len(s)],
    }
    data = escape(json.dumps(plan, separators=(",", ":")), quote=True)
    return (
        f'<figure data-plan="{data}"><figcaption>{escape(title)} <small>{escape(text)}</small></figcaption>'
        f'<svg viewBox="0 0 {WIDE} {TALL}" role="img" aria-label="{escape(_description(title, shown), quote=True)}">'
        f'{"".join(parts)}<line class="at" y1="{TOP}" y2="{BOTTOM}"/>'
        f'<text class="name" x="{(LEFT + RIGHT) / 2}" y="{TALL - 4}">step</text></svg>{_key(names)}'
        f'<p class="told">{escape(_latest(shown))}</p></figure>'
    )


def _line(kind: str, points: Sequence[str]) -> str:
    return f'<polyline class="{kind}" points="{" ".join(points)}"/>'


def _key(names: Sequence[str]) -> str:
    if len(names) < 2:
        return '<ul class="key"></ul>'
    kinds = ["chance" if name == "chance" else f"s{number}" for number, name in enumerate(names)]
    rows = "".join(
        f'<li><svg viewBox="0 0 22 8" aria-hidden="true"><line class="{kind}" x1="0" x2="22" y1="4" y2="4"/></svg>'
        f"{escape('ln(batch)' if name == 'chance' else name)}</li>"
        for kind, name in zip(kinds, names, strict=True)
    )
    return f'<ul class="key">{rows}</ul>'


def _latest(shown) -> str:
    """The last values, which stand under a chart until somebody points at it."""
    facts = [f"{name} {_short(values[-1])}" for name, _, values in shown if len(values)]
    return " · ".join([f"Step {max(s[-1] for _, s, _ in shown if len(s)):,}", *facts]) if facts else ""


def _description(title: str, shown) -> str:
    ends = [f"{name} from {_short(values[0])} to {_short(values[-1])}" for name, _, values in shown if len(values)]
    return f"{title}: {', '.join(ends)}"


def _grouped(steps: Sequence[int], values: Sequence[float]) -> tuple[list[int], list[float]]:
    """At most POINTS points: means of as many steps in a row."""
    size = math.ceil(len(steps) / POINTS)
    if size <= 1:
        return list(steps), list(values)
    starts = range(0, len(steps), size)
    parts = [values[k : k + size] for k in starts]
    return [steps[min(k + size, len(steps)) - 1] for k in starts], [sum(part) / len(part) for part in parts]


def _span(values: Sequence[float]) -> tuple[float, float]:
    """From zero, or the least value below it, to a little above the greatest."""
    finite = [value for value in values if math.isfinite(value)]
    low, high = min([0.0, *finite]), max(finite, default=1.0)
    return low, high + 0.05 * (high - low) if high > low else low + 1.0


def _short(value: float) -> str:
    return f"{value:.3g}".replace("e-0", "e-").replace("-", "−")
