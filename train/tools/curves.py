"""Draw the curves of runs from their metrics.jsonl: every loss term, and patch-text mIoU, over images seen.

python -m train curves runs/one runs/other --out curves.png           # over each other, to compare them
python -m train curves runs/nano runs/nano-styles --chain             # end to end: the second goes on from the first
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tipsv2.analysis.render import color_table
from train.recipe.metrics import current, term_title
from train.recipe.settings import from_dict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SMOOTH = 25  # steps of the running mean
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")  # Okabe-Ito
MIOU = "patch-text mIoU on drawn scenes\nsolid: value features, dotted: last layer"


def read(run: Path) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], int]:
    """name -> (images seen, value) of every number a run logged, and how many images the run saw.

    Raises ValueError where there is no run.
    """
    try:
        recipe = from_dict(json.loads((run / "recipe.json").read_text()))
        lines = [current(json.loads(line)) for line in (run / "metrics.jsonl").read_text().splitlines()]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{run} is not a run: it needs a readable recipe.json and metrics.jsonl.") from error
    sizes = np.repeat([s.batch_size for s in recipe.stages], [s.steps for s in recipe.stages])
    seen = np.concatenate([[0], np.cumsum(sizes)])
    series: dict[str, list[tuple[int, float]]] = {}
    for line in lines:
        for name, value in line.items():
            if name != "step":
                series.setdefault(name, []).append((seen[line["step"]], value))
    return {name: tuple(np.array(column) for column in zip(*rows, strict=True)) for name, rows in series.items()}, seen[
        -1
    ]


def plot(runs: list[Path], out: Path, chain: bool = False) -> Path:
    """Save `figure_of` as a picture. Raises ValueError where there is no run, or none has made a step."""
    figure_of(runs, chain).savefig(out, dpi=120)
    return out


def figure_of(runs: list[Path], chain: bool = False) -> Figure:
    """A panel for every loss term and one for mIoU; a run has its colour in all of them.

    The runs lie over each other, all from 0 images on. With `chain` each starts where the one before it ended, for runs
    that go on from one another. Behind a loss's running mean stands every step: the mean begins after the steep start.
    """
    from matplotlib.figure import Figure  # seconds to import, and only drawing needs it

    curves = [read(run) for run in runs]
    known = dict.fromkeys(name for series, _ in curves for name in sorted(series))
    panels = {title: [name] for name in known if (title := term_title(name))}
    if scores := [name for name in known if name.startswith("miou")]:
        panels["miou"] = scores
    if not panels:
        raise ValueError(f"{', '.join(map(str, runs))}: no step has been made yet, so there is nothing to draw.")
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(10, 0.6 + 2.6 * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False, sharex=True).flat)
    for axis, (title, names) in zip(axes, panels.items(), strict=False):
        start = 0
        for (series, count), color in zip(curves, _colors(len(runs)), strict=True):
            for name in names:
                if name in series:
                    x, y = series[name]
                    _draw(axis, name, (start + x) / 1000, y, color)
            if chain:
                start += count
                axis.axvline(start / 1000, color="#bbbbbb", linewidth=0.8)
        axis.set_title(MIOU if title == "miou" else title, fontsize=10)
        axis.set_xlabel("thousand images", fontsize=8)
        axis.tick_params(labelsize=8, labelbottom=True)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    _name_runs(figure, runs)
    return figure


def _draw(axis, name: str, x: np.ndarray, y: np.ndarray, color) -> None:
    if name.startswith("miou"):
        axis.plot(x, y, color=color, linewidth=1.4, linestyle=":" if "final" in name else "-", marker="o", markersize=3)
    elif len(y) <= SMOOTH:
        axis.plot(x, y, color=color, linewidth=1.4)
    else:
        axis.plot(x, y, color=color, linewidth=0.8, alpha=0.35)
        axis.plot(x[SMOOTH - 1 :], np.convolve(y, np.ones(SMOOTH) / SMOOTH, "valid"), color=color, linewidth=1.4)


def _colors(count: int) -> list:
    """A colour a run; of many, shades in their order."""
    if count <= len(COLORS):
        return list(COLORS[:count])
    return [tuple(shade / 255) for shade in color_table("viridis")[np.linspace(0, 230, count).astype(int)]]


def _name_runs(figure: Figure, runs: list[Path]) -> None:
    """The runs' names below the panels, where they cover nothing: folder names, or whole paths where two are alike."""
    from matplotlib.lines import Line2D

    names = [run.resolve().name for run in runs]
    if len(set(names)) < len(names):
        names = [str(run) for run in runs]
    lines = [Line2D([], [], color=color, linewidth=2) for color in _colors(len(runs))]
    columns = max(1, min(len(names), 110 // (max(map(len, names)) + 8)))
    figure.legend(lines, names, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
