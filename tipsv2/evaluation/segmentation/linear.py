"""Linear segmentation: a layer on frozen patches, trained on one part of a data set and judged on another.

    python -m tipsv2 evaluate segmentation_probe --data ade20k:/data/ADEChallengeData2016 --model google/tipsv2-b14
    python -m tipsv2 evaluate segmentation_probe --data scenes:val --model opentips-nano --features values

The probe is DINOv2's linear head (facebookresearch/dinov2, eval/segmentation, BNHead): a batch norm and a layer to the
classes, cross-entropy, its scores bilinear to the picture's pixels before the arg-max. What differs from DINOv2's
training is in `probing`. One confusion matrix for the data set; miou is the mean over the classes that occur in it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from tipsv2.analysis.metrics import confusion_matrix
from tipsv2.analysis.segmentation import label_map
from tipsv2.evaluation.layouts import Split, folder
from tipsv2.evaluation.probing import probes as probing
from tipsv2.evaluation.probing.dense import Task, evaluate_task
from tipsv2.evaluation.segmentation.scores import Tables, pack
from tipsv2.evaluation.shared.splits import labels_of

if TYPE_CHECKING:
    from tipsv2.network.encoder import Encoder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    probing.add_arguments(parser)
    folder.add_arguments(parser)


def evaluate(
    encoder: Encoder,
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
        data: a layout with a part "train" beside the one it is judged on, or "scenes:val" and the like. Of own
            labelled pictures without parts (folder:ROOT) every fifth is judged, and the probe is trained on the others.
        resolution: short side in pixels the network sees; default the encoder's training resolution.
        limit: only the first images.
        out: folder for what an interrupted evaluation keeps, the probe and pictures.
        features, epochs, train_limit: of the probe, see `probing`.

    Returns: {"task", "data", "model", ..., "miou", "miou_low", "miou_high", "pixel_accuracy", "per_class": {name:
        {"iou", "truth", "guess"}}}, as zero-shot segmentation.
    Raises ValueError naming what is wrong.
    """
    return evaluate_task(TASK, encoder, data, resolution, limit, out, progress, features, epochs, train_limit)


def loss(outputs: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of outputs [B, C, H, W] where the truth [B, H, W] is not -1."""
    return F.cross_entropy(outputs, truth.long(), ignore_index=-1)


def score(truth: np.ndarray, predicted: np.ndarray, split: Split) -> dict[str, np.ndarray]:
    """The image's confusion table, packed, and "pixels" that were judged."""
    table = confusion_matrix(truth, predicted, len(split.classes))
    return {"pixels": table.sum(), "table": pack(table)}


def tables(scores: Mapping[str, Mapping], split: Split) -> Tables:
    """The tables of images by their names."""
    return Tables(list(scores), [one["table"] for one in scores.values()], len(split.classes))


def pictures(out: Path, scores: Mapping[str, Mapping], split: Split, show: Callable[[str], tuple]) -> None:
    """As zero-shot segmentation: class_iou.png, confusion.png, and the best and the worst images."""
    from tipsv2.evaluation.segmentation.pictures import write

    write(out, tables(scores, split), split.classes, lambda index: show(list(scores)[index]))


TASK = Task(
    name="segmentation_probe",
    truth="segmentation",
    drawn=labels_of,
    recipe=lambda split: probing.Recipe(len(split.classes), loss, lambda truth: truth >= 0, batch_norm=True),
    guess=lambda outputs, size: label_map(outputs, size)[0].cpu().numpy(),
    score=score,
    summary=lambda scores, split: tables(scores, split).numbers(split.classes),
    pictures=pictures,
)
