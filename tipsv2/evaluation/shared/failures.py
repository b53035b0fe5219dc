"""What went wrong as pictures: the worst queries with what was found instead, the worst and the best classes.

write_queries(out / "worst_queries.png", [Query(image, "dog", [(found_image, "cat 0.71"), ...]), ...])
write_classes(out, ("dog", "cat"), right, guessed_right)
"""

from __future__ import annotations

import csv
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tipsv2.images import open_image

if TYPE_CHECKING:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

WORST = 6  # queries a picture
BARS = 15  # classes at either end
PANEL, DPI = 2.2, 100  # inches, and pixels per inch


@dataclass(frozen=True)
class Query:
    """A row of the picture: an image (what `open_image` takes, None for none), its text, and what was found for it."""

    image: Any
    text: str
    answers: Sequence[tuple[Any, str]]


def write_queries(path: Path, rows: Sequence[Query]) -> None:
    """Write a picture with a row for each query: it and its text, then each find and its text; none without rows."""
    path.unlink(missing_ok=True)  # an earlier run's
    if not rows:
        return
    columns = 1 + max(len(row.answers) for row in rows)
    figure, canvas = _figure(columns * PANEL, len(rows) * (PANEL + 0.4))
    for panels, row in zip(figure.subplots(len(rows), columns, squeeze=False), rows, strict=True):
        shown = [(row.image, row.text), *row.answers]
        for panel in panels[len(shown) :]:
            panel.set_axis_off()
        for k, (panel, (image, text)) in enumerate(zip(panels, shown, strict=False)):
            said = textwrap.fill(textwrap.shorten(text, 110, placeholder=" ..."), 32)
            if image is None:
                panel.text(0.5, 0.5, said, ha="center", va="center", fontsize=8, parse_math=False)
                panel.set_axis_off()
                continue
            small = open_image(image)
            small.thumbnail((320, 320))
            panel.imshow(np.asarray(small))
            panel.set_xlabel(said, fontsize=7, parse_math=False)
            panel.set_xticks([])
            panel.set_yticks([])
            for side in panel.spines.values():
                side.set_color("black" if k == 0 else "lightgray")
    canvas.print_png(path)


def write_classes(out: Path, names: Sequence[str], truth: np.ndarray, hit: np.ndarray) -> None:
    """Write classes.csv with the accuracy of every class that has images, and classes.png with the worst and best.

    truth: int [N], the class of each image.   hit: bool [N], was it named.
    """
    total = np.bincount(truth, minlength=len(names))
    share = np.bincount(truth, weights=hit, minlength=len(names)) / np.maximum(total, 1)
    order = [k for k in np.argsort(share, kind="stable") if total[k]]
    with (out / "classes.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("class", "images", "top1"))
        table.writerows((names[k], int(total[k]), f"{share[k]:.4f}") for k in order)
    shown = order if len(order) <= 2 * BARS else order[:BARS] + order[-BARS:]
    figure, canvas = _figure(6, 0.22 * len(shown) + 1)
    panel = figure.subplots()
    colors = ["tab:red" if len(order) > len(shown) and k < BARS else "tab:blue" for k in range(len(shown))]
    bars = panel.barh(range(len(shown)), [share[k] for k in shown], color=colors)
    panel.bar_label(bars, [f"{share[k]:.2f} of {total[k]}" for k in shown], fontsize=7, padding=2)
    labels = [textwrap.shorten(names[k], 40, placeholder=" ...") for k in shown]
    panel.set_yticks(range(len(shown)), labels, fontsize=7, parse_math=False)
    panel.set_xlim(0, 1.2)
    panel.invert_yaxis()
    panel.set_xlabel("top-1 accuracy", fontsize=8)
    panel.set_title(f"the worst and the best of {len(order)} classes" if len(order) > len(shown) else "", fontsize=9)
    canvas.print_png(out / "classes.png")


def worst(ranks: np.ndarray, count: int = WORST) -> np.ndarray:
    """The queries whose right answer stands deepest (rank over 0), deepest first: int64 [at most count]."""
    order = np.argsort(-ranks, kind="stable")[:count]
    return order[ranks[order] > 0]


def _figure(width: float, height: float) -> tuple[Figure, FigureCanvasAgg]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    return figure, FigureCanvasAgg(figure)  # not pyplot, whose figures are one global list
