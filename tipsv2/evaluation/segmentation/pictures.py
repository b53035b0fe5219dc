"""A segmentation evaluation in pictures: IoU of the classes, what is taken for what, the best and the worst images.

Colours are the colour-blind-safe ones of `tipsv2.analysis.render`; figures are matplotlib's, without pyplot and its
global list.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from tipsv2.analysis.metrics import class_iou, mean_iou
from tipsv2.analysis.render import PALETTE, WIDE_PALETTE, beside, label_colors, legend, paint_labels
from tipsv2.evaluation.segmentation.scores import Tables

EXTREMES = 4  # images shown of the best and of the worst
SIDE = 384  # longest side of a picture in them
LEAST = 0.005  # part of an image that a class covers to be named beside it
MOST_SQUARE = 25  # classes that a whole confusion table is readable with
MOST_PAIRS = 30
BLUE, ORANGE = (tuple(channel / 255 for channel in PALETTE[index]) for index in (4, 0))


def write(
    out: Path,
    tables: Tables,
    classes: Sequence[str],
    show: Callable[[int], tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> None:
    """Write class_iou.png, confusion.png, best_N_*.png and worst_N_*.png into a folder.

    show: from an image's place in `tables` to its picture uint8 [H, W, 3], truth and guess [H, W].
    """
    confusion = tables.sum()
    iou_bars(confusion, classes).savefig(out / "class_iou.png")
    confusion_plot(confusion, classes).savefig(out / "confusion.png")
    scores = tables.of_images()
    order = np.argsort(scores, kind="stable")[: np.isfinite(scores).sum()]  # nan, where nothing is judged, comes last
    for what, chosen in (("worst", order[:EXTREMES]), ("best", order[::-1][:EXTREMES])):
        for old in out.glob(f"{what}_?_*.png"):
            old.unlink()
        for place, index in enumerate(chosen, 1):
            name = re.sub(r"[^\w-]+", "_", tables.names[index])[-60:]
            picture = triple(*show(int(index)), classes)
            Image.fromarray(picture).save(out / f"{what}_{place}_{name}_{scores[index]:.3f}.png")


def triple(image: np.ndarray, truth: np.ndarray, guess: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Picture, truth, guess and the names of what is in them, from left to right -> uint8 [h, w, 3].

    image uint8 [H, W, 3]; truth and guess [H, W], where the truth is negative the picture shows through.
    """
    step = -(-max(truth.shape) // SIDE)
    small = np.asarray(Image.fromarray(image).reduce(step))
    height, width = small.shape[:2]
    rows = np.minimum(np.arange(height) * step + step // 2, truth.shape[0] - 1)
    columns = np.minimum(np.arange(width) * step + step // 2, truth.shape[1] - 1)
    truth, guess = (labels[np.ix_(rows, columns)] for labels in (truth, guess))
    colors = label_colors(np.stack([truth, guess]), WIDE_PALETTE)
    shares = {k: ((truth == k).mean(), (guess == k).mean()) for k in np.unique([truth, guess]) if k >= 0}
    named = sorted((k for k in shares if max(shares[k]) >= LEAST), key=lambda k: -max(shares[k]))
    rows = [f"{classes[k]}  {100 * shares[k][0]:.0f} % / {100 * shares[k][1]:.0f} %" for k in named]
    key = legend(["true / guessed", *rows], [(255, 255, 255), *(colors[k] for k in named)])
    return beside([small, *(paint_labels(small, labels, colors, 0.75) for labels in (truth, guess)), key])


def iou_bars(confusion: np.ndarray, classes: Sequence[str]) -> Figure:
    """A bar per class that is in the truth, the best on top; the line is the mIoU."""
    iou, there = class_iou(confusion), confusion.sum(axis=1) > 0
    order = [k for k in np.argsort(iou, kind="stable") if there[k]]
    figure = Figure(figsize=(6, 1.2 + 0.16 * max(4, len(order))), layout="constrained", dpi=110)
    axes = figure.subplots()
    axes.barh(range(len(order)), iou[order], color=BLUE)
    axes.axvline(mean_iou(confusion), color=ORANGE, label=f"mIoU {mean_iou(confusion):.3f}")
    axes.legend(loc="lower right", fontsize=8)
    axes.set_yticks(range(len(order)), [classes[k] for k in order], fontsize=7, parse_math=False)
    absent = int((confusion.any(axis=0) & ~there).sum())
    note = f" (and 0 for {absent} class{'es' if absent > 1 else ''} guessed but nowhere there)" if absent else ""
    axes.set(xlabel=f"IoU{note}", xlim=(0, 1), ylim=(-0.7, max(1, len(order)) - 0.3))
    return figure


def confusion_plot(confusion: np.ndarray, classes: Sequence[str]) -> Figure:
    """Of few classes the table, each row adding up to one; of many the most frequent confusions as bars."""
    shares = confusion / np.maximum(1, confusion.sum(axis=1, keepdims=True))
    if len(classes) <= MOST_SQUARE:
        side = 2.5 + 0.26 * len(classes)
        figure = Figure(figsize=(side + 0.8, side), layout="constrained", dpi=110)
        axes = figure.subplots()
        shown = axes.imshow(shares, "cividis", vmin=0, vmax=1)
        axes.set_xticks(range(len(classes)), classes, rotation=90, fontsize=7, parse_math=False)
        axes.set_yticks(range(len(classes)), classes, fontsize=7, parse_math=False)
        axes.set(xlabel="guess", ylabel="truth")
        figure.colorbar(shown, ax=axes, label="part of the class's pixels", shrink=0.7)
        return figure
    wrong = confusion * ~np.eye(len(classes), dtype=bool)
    order = np.argsort(-wrong, axis=None, kind="stable")[:MOST_PAIRS]
    order = order[wrong.ravel()[order] > 0][::-1]
    pairs = np.stack(np.unravel_index(order, wrong.shape), axis=1)
    figure = Figure(figsize=(8, 1.2 + 0.2 * max(4, len(pairs))), layout="constrained", dpi=110)
    axes = figure.subplots()
    axes.barh(range(len(pairs)), [100 * wrong[t, g] / max(1, confusion.sum()) for t, g in pairs], color=BLUE)
    labels = [f"{classes[t]} taken for {classes[g]} ({100 * shares[t, g]:.0f} % of it)" for t, g in pairs]
    axes.set_yticks(range(len(pairs)), labels, fontsize=7, parse_math=False)
    axes.set(xlabel="% of all judged pixels")
    return figure
