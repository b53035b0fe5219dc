"""Zero-shot segmentation by patch-text similarity: cosine, upsample, argmax, one confusion matrix for the data set.

    python -m tipsv2 evaluate segmentation --data scenes:val --model tipsv2-nano --json

The protocol is TIPSv2's single pass (value features, cosine with class text, bilinear upsampling, argmax, global
confusion); here the final layer is measured beside it. Two candidate sets:
miou_present  the names that are in the image, things and stuff alike, as SPARC Sec. 4.4 chooses candidates
miou_all      every name of the data set
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from tipsv2 import scenes
from tipsv2.evaluation.splits import BATCH_SIZE, network_side, open_split, to_pixels
from tipsv2.metrics import confusion_matrix, mean_iou
from tipsv2.prompts import TEMPLATES

FEATURES = ("final", "values")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--templates", choices=tuple(TEMPLATES), default="tips9", help="prompts per class (default: %(default)s)"
    )


def evaluate(
    encoder,
    data: str = "scenes:val",
    resolution: int | None = None,
    templates: str = "tips9",
    limit: int | None = None,
    out: Path | None = None,
    progress: bool = True,
) -> dict:
    """Score an encoder on a data set with pixel labels.

    Args:
        encoder: a `tipsv2.Encoder`.
        data: "scenes:val" (seen drawing styles) or "scenes:style" (the unseen one).
        resolution: side in pixels the network sees; default the encoder's training resolution.
        templates: template set of the class prompts.
        limit: only the first images.

    Returns: {"task", "data", "model", "resolution", "images", "final": {...}, "values": {...}, "chance": {...}}, the
        inner dicts with `miou_present` and `miou_all` in [0, 1].
    Raises ValueError for an unknown data set, a limit under 1, or a resolution not in whole patches.
    """
    resolution = network_side(encoder, resolution)
    chosen, count = open_split(data, resolution, limit)
    started = time.perf_counter()
    scores = score_scenes(encoder, [chosen[i] for i in range(count)], templates=templates, progress=progress)
    return {
        "task": "segmentation", "data": data, "model": encoder.info.name, "resolution": resolution,
        "templates": templates, "images": count, "classes": len(scenes.names()), **scores,
        "seconds": round(time.perf_counter() - started, 1),
    }  # fmt: skip


def score_scenes(
    encoder,
    chosen: Sequence[scenes.Scene],
    candidates: Sequence[str] = ("present", "all"),
    templates: str = "tips9",
    batch_size: int = BATCH_SIZE,
    progress: bool = True,
) -> dict[str, dict[str, float]]:
    """The scores of `evaluate` for scenes at hand, all of one size, a multiple of the patch size."""
    names = scenes.names()
    text = encoder.encode_text(list(names), templates)  # [C, D]
    tables = {(f, c): np.zeros((len(names), len(names)), np.int64) for f in FEATURES for c in candidates}
    with tqdm(total=len(chosen), unit="image", disable=not progress, desc="segmentation") as bar:
        for start in range(0, len(chosen), batch_size):
            batch = chosen[start : start + batch_size]
            out = encoder.encode_pixels(to_pixels([s.image for s in batch]))
            for feature in FEATURES:
                grids = F.normalize(out["patches" if feature == "final" else "values"].float().cpu(), dim=-1)
                for scene, grid in zip(batch, grids, strict=True):
                    maps = torch.einsum("hwd,cd->chw", grid, text)
                    for kind in candidates:
                        among = np.unique(scene.labels) if kind == "present" else np.arange(len(names))
                        guess = among[_argmax(maps[torch.from_numpy(among).long()], scene.labels.shape)]
                        tables[feature, kind] += confusion_matrix(scene.labels, guess, len(names))
            bar.update(len(batch))
    scores = {f: {f"miou_{c}": round(mean_iou(tables[f, c]), 4) for c in candidates} for f in FEATURES}
    labels = [s.labels for s in chosen]
    return scores | {"chance": {f"miou_{c}": round(_chance(labels, len(names), c), 4) for c in candidates}}


def _argmax(maps: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
    return F.interpolate(maps[None], size, mode="bilinear", align_corners=False)[0].argmax(0).numpy()


def _chance(labels: Sequence[np.ndarray], classes: int, candidates: str) -> float:
    """mIoU of a guess drawn uniformly per pixel among the candidates (ratio of expected pixel counts, per class)."""
    truth, guessed, hit = np.zeros((3, classes))
    for label in labels:
        count = np.bincount(label.ravel(), minlength=classes)
        among = count > 0 if candidates == "present" else np.ones(classes, bool)
        truth += count
        guessed += among * label.size / among.sum()
        hit += count / among.sum()
    union = truth + guessed - hit
    return float((hit[union > 0] / union[union > 0]).mean())
