"""Linear segmentation: a layer on frozen patches, trained on one part of a data set and judged on another.

    python -m tipsv2 evaluate segmentation_probe --data ade20k:/data/ADEChallengeData2016 --model google/tipsv2-b14
    python -m tipsv2 evaluate segmentation_probe --data scenes:val --model tipsv2-nano --features values

The probe is DINOv2's linear head (facebookresearch/dinov2, eval/segmentation, BNHead): a batch norm and a layer to the
classes, cross-entropy, its scores bilinear to the picture's pixels before the arg-max. What differs from DINOv2's
training is in `probing`. One confusion matrix for the data set; miou is the mean over the classes that occur in it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from tipsv2.evaluation import probing
from tipsv2.evaluation.dense import Task, evaluate_task
from tipsv2.evaluation.layouts import Split
from tipsv2.evaluation.record import bootstrap
from tipsv2.metrics import accuracy, class_iou, confusion_matrix, mean_iou
from tipsv2.render import WIDE_PALETTE, label_colors, legend, paint_labels
from tipsv2.segmentation import label_map


def add_arguments(parser: argparse.ArgumentParser) -> None:
    probing.add_arguments(parser)


def evaluate(
    encoder,
    data: str = "scenes:val",
    *,
    resolution: int | None = None,
    limit: int | None = None,
    out: Path | None = None,
    progress: bool = True,
    features: str = "final",
    epochs: int | None = None,
    train_limit: int | None = None,
) -> dict:
    """Score an encoder on segmentation by a linear probe.

    Args:
        encoder: a `tipsv2.Encoder`.
        data: a layout with a part "train" beside the one it is judged on, or "scenes:val" and the like.
        resolution: short side in pixels the network sees; default the encoder's training resolution.
        limit: only the first images.
        out: folder for what an interrupted evaluation keeps, the probe and pictures.
        features, epochs, train_limit: of the probe, see `probing`.

    Returns: {"task", "data", "model", ..., "miou", "accuracy", "interval": {"miou": [low, high]}, "classes": {name:
        {"iou": ...}}}, the classes that occur in truth or guesses.
    Raises ValueError naming what is wrong.
    """
    return evaluate_task(TASK, encoder, data, resolution, limit, out, progress, features, epochs, train_limit)


def loss(outputs: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of outputs [B, C, H, W] where the truth [B, H, W] is not -1."""
    return F.cross_entropy(outputs, truth.long(), ignore_index=-1)


def score(truth: np.ndarray, found: np.ndarray, split: Split) -> dict[str, np.ndarray]:
    """The image's confusion matrix: "cells" that are not 0 and their "counts"; "pixels" judged, and those "wrong"."""
    table = confusion_matrix(truth, found, len(split.classes))
    cells = np.flatnonzero(table)
    return {
        "pixels": table.sum(), "wrong": table.sum() - np.trace(table), "cells": cells, "counts": table.ravel()[cells],
    }  # fmt: skip


def summary(scores: Sequence[dict], split: Split) -> dict:
    """The numbers of `evaluate`."""
    classes = len(split.classes)
    total = np.zeros(classes * classes, np.int64)
    counts = np.zeros((len(scores), 3, classes))  # of each image: right, true, guessed
    for one, row in zip(scores, counts, strict=True):
        total[one["cells"]] += one["counts"]
        true, guessed = np.divmod(one["cells"], classes)
        np.add.at(row[0], true[true == guessed], one["counts"][true == guessed])
        np.add.at(row[1], true, one["counts"])
        np.add.at(row[2], guessed, one["counts"])

    def drawn(weights: np.ndarray) -> float:
        right, true, guessed = np.tensordot(weights, counts, 1)
        there = true + guessed > 0
        return float((right[there] / (true + guessed - right)[there]).mean())

    table = total.reshape(classes, classes)
    iou = class_iou(table)
    low, high = bootstrap(len(scores), drawn)
    return {
        "miou": round(mean_iou(table), 4),
        "accuracy": round(accuracy(table), 4),
        "interval": {"miou": [round(low, 4), round(high, 4)]},
        "classes": {split.classes[k]: {"iou": round(float(iou[k]), 4)} for k in np.flatnonzero(np.isfinite(iou))},
    }


def paint(image: np.ndarray, truth: np.ndarray, found: np.ndarray, split: Split) -> list[np.ndarray]:
    """The image, the true and the guessed classes in colours, and what the colours mean."""
    colors = label_colors(np.stack([truth, found]), WIDE_PALETTE)
    there = [int(label) for label in np.unique([truth, found]) if label >= 0]
    names = legend([split.classes[label] for label in there], [colors[label] for label in there])
    return [image, paint_labels(image, truth, colors, 0.8), paint_labels(image, found, colors, 0.8), names]


TASK = Task(
    name="segmentation_probe",
    truth="segmentation",
    drawn=lambda scene: scene.labels.astype(np.int64),
    recipe=lambda split: probing.Recipe(len(split.classes), loss, lambda truth: truth >= 0, batch_norm=True),
    guess=lambda outputs, size: label_map(outputs, size)[0].cpu().numpy(),
    score=score,
    summary=summary,
    badness=lambda one: float(one["wrong"] / one["pixels"]),
    paint=paint,
)
