"""Draw the curves of runs from their metrics.jsonl: every loss term, and patch-text mIoU, over images seen.

python -m train curves runs/nano runs/nano-2 --out curves.png
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from train.settings import from_dict

TERMS = ("contrastive", "grounding", "patch", "dino", "distillation", "sparc", "sfclip")
SMOOTH = 25  # steps of the running mean
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")  # Okabe-Ito


def read(run: Path) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], int]:
    """name -> (images seen, value) of every number a run logged, and how many images the run saw.

    Raises ValueError where there is no run.
    """
    try:
        recipe = from_dict(json.loads((run / "recipe.json").read_text()))
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
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


def plot(runs: list[Path], out: Path) -> Path:
    """One picture: losses above, mIoU below, the runs one after the other."""
    from matplotlib.figure import Figure  # seconds to import, and only drawing needs it

    figure = Figure(figsize=(9, 6), layout="constrained")
    losses, alignment = figure.subplots(2, 1, sharex=True)
    start, colors = 0, {}
    for run in runs:
        series, count = read(run)
        for axis, names in (
            (losses, [n for n in series if n.startswith(TERMS) and not n.endswith("entropy")]),
            (alignment, [n for n in series if n.startswith("miou")]),
        ):
            for name in sorted(names):
                x, y = series[name]
                if axis is losses and len(y) > SMOOTH:
                    y = np.convolve(y, np.ones(SMOOTH) / SMOOTH, "valid")
                    x = x[SMOOTH - 1 :]
                label = name.replace("_", " ") if name not in colors else None
                color = colors.setdefault(name, COLORS[len(colors) % len(COLORS)])
                style = {"marker": "o", "markersize": 3} if axis is alignment else {}
                axis.plot((start + x) / 1000, y, label=label, color=color, linewidth=1.4, **style)
        for axis in (losses, alignment):
            axis.axvline(start / 1000, color="#bbbbbb", linewidth=0.8)
        alignment.text(
            start / 1000, 0.99, f" {run.name}", transform=alignment.get_xaxis_transform(), va="top", fontsize=8
        )
        start += count
    losses.set_ylabel("loss")
    alignment.set_ylabel("patch-text mIoU\n(present names)")
    alignment.set_xlabel("thousand images")
    for axis in (losses, alignment):
        axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    figure.savefig(out, dpi=120)
    return out
