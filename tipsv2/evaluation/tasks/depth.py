"""Depth: how far away is every pixel? A linear probe on frozen patches, or the released DPT heads.

    python -m tipsv2 evaluate depth --data nyu:/data/nyu --model google/tipsv2-b14
    python -m tipsv2 evaluate depth --data nyu:/data/nyu --model google/tipsv2-b14-dpt --head dpt
    python -m tipsv2 evaluate depth --data navi:/data/navi_v1 --model google/tipsv2-b14 --train-limit 2000
    python -m tipsv2 evaluate depth --data scenes:val --model opentips-nano  # made up: tipsv2/scenes/geometry.py

The probe is DINOv2's "lin. 1" (facebookresearch/dinov2, eval/depth): each patch with CLS 1 beside it, a layer to 256
even bins from 1 mm to 10 m, rectified, 0.1 added, divided by their sum; depth is the mean of the bins, learnt by the
scale-invariant loss. Left out are its gradient loss and the mean with the mirrored picture. TIPS measures NYUv2 so, and
NAVI with DPT heads of its own, which were not released: the numbers for NAVI cannot be compared with the paper's.
Each number is the mean over images of the image's own (as DINOv2 takes it): rmse in metres, abs_rel, and delta1, the
part of the pixels off by less than 1.25 times. Pixels beyond the bins are not judged.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from tipsv2 import scenes
from tipsv2.analysis.heatmap import to_pixels
from tipsv2.analysis.render import color_bar, colorize
from tipsv2.evaluation.layouts import Split
from tipsv2.evaluation.probing import probes as probing
from tipsv2.evaluation.probing.dense import Task, evaluate_task, extremes, rounded
from tipsv2.records import bootstrap

if TYPE_CHECKING:
    from tipsv2.analysis.depth import Dpt
    from tipsv2.network.encoder import Encoder

_Depths = TypeVar("_Depths", np.ndarray, torch.Tensor)
BINS, MIN_DEPTH, MAX_DEPTH = 256, 0.001, 10.0  # metres
ADDED = 0.1  # to each rectified output, so that the sum is never 0 (decode_head.py)
METRICS = ("rmse", "abs_rel", "delta1")
HEADS = ("linear", "dpt")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    probing.add_arguments(parser)
    parser.add_argument("--head", choices=HEADS, default="linear", help="a probe, or the model's own DPT head")


def evaluate(
    encoder: Encoder,
    data: str = "scenes:val",
    *,
    resolution: int | None = None,
    limit: int | None = None,
    out: Path | None = None,
    progress: bool = True,
    features: str | None = None,
    epochs: int | None = None,
    train_limit: int | None = None,
    head: str = "linear",
) -> dict:
    """Score an encoder on depth.

    Args:
        encoder: a `tipsv2.Encoder`; for head "dpt" a `tipsv2.analysis.depth.Dpt`.
        data: "nyu:ROOT", "navi:ROOT", or "scenes:val" and the like.
        resolution: short side in pixels the network sees; default the encoder's training resolution.
        limit: only the first images.
        out: folder for what an interrupted evaluation keeps, the probe and pictures.
        features, epochs, train_limit: of the probe, see `probing`; features by default "final".
        head: "linear" or "dpt", which has no probe.

    Returns: {"task", "data", "model", ..., "rmse", "abs_rel", "delta1", "interval": {"rmse": [low, high], ...}}.
    Raises ValueError naming what is wrong.
    """
    predict = predictor(encoder, head, "depth", features, epochs, train_limit)
    return evaluate_task(
        TASK, encoder, data, resolution, limit, out, progress, features or "final", epochs, train_limit, predict
    )  # fmt: skip


def predictor(encoder: Encoder | Dpt, head: str, kind: str, *probe: object) -> Callable[[Any, int], np.ndarray] | None:
    """(image, resolution) -> what the DPT head `kind` of `encoder` says, in the picture's pixels; None for a probe.

    probe: what was said about one, None where nothing was. Raises ValueError where the head does not fit the model.
    """
    if head not in HEADS:
        raise ValueError(f"head='{head}' is unknown: take {' or '.join(HEADS)}.")
    if head == "dpt" and any(setting is not None for setting in probe):
        raise ValueError("--features, --epochs and --train-limit are of the probe: leave them out with --head dpt.")
    from tipsv2.analysis.depth import Dpt

    if isinstance(encoder, Dpt) != (head == "dpt"):
        fitting = "a model with DPT heads, such as tipsv2-b14-dpt" if head == "dpt" else "an encoder, not its DPT model"
        raise ValueError(f"head='{head}' needs {fitting}: {encoder.info.name} does not fit.")
    if not isinstance(encoder, Dpt):
        return None
    if kind not in encoder.heads:
        raise ValueError(f"{encoder.info.name} has no head for {kind}, only for {' and '.join(encoder.heads)}.")
    return lambda image, resolution: getattr(encoder.predict(image, resolution), kind)


def expected_depth(outputs: torch.Tensor) -> torch.Tensor:
    """Outputs [B, 256, h, w] -> the mean of the bins [B, h, w], metres."""
    bins = torch.linspace(MIN_DEPTH, MAX_DEPTH, BINS, device=outputs.device)
    sums = torch.stack([bins, torch.ones_like(bins)])  # of depth, and of the weights, in one product: half the time
    sums_of_bins = sums @ torch.relu(outputs).flatten(2) + ADDED * sums.sum(dim=1, keepdim=True)  # [B, 2, h * w]
    return (sums_of_bins[:, 0] / sums_of_bins[:, 1]).unflatten(1, outputs.shape[2:])


def judged(truth: _Depths) -> _Depths:
    """Where a depth, an array or a tensor, is known and within the bins."""
    return (truth > MIN_DEPTH) & (truth < MAX_DEPTH)


def loss(outputs: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """sqrt(var(g) + 0.15 mean(g)^2), g the difference of log depths where `judged` (eval/depth/models/losses)."""
    keep = judged(truth)
    g = torch.log(expected_depth(outputs)[keep] + 1e-3) - torch.log(truth[keep] + 1e-3)
    return (g.var(correction=0) + 0.15 * g.mean() ** 2 + 1e-12).sqrt()  # 1e-12: a root's slope at 0 is infinite


def guess(outputs: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
    """Outputs [256, h, w] -> metres float32 [H, W]: enlarged four times, then depth, then bilinear to the picture."""
    return to_pixels(expected_depth(probing.enlarge(outputs[None])), size)[0].cpu().numpy()


def score(truth: np.ndarray, predicted: np.ndarray, split: Split | None = None) -> dict[str, np.ndarray]:
    """Metres [H, W] both -> "pixels" that were judged, and METRICS over these; nan where there are none."""
    keep = judged(truth)
    truth, predicted = truth[keep].astype(np.float64), predicted[keep].astype(np.float64)
    if not truth.size:
        return {"pixels": np.array(0), **dict.fromkeys(METRICS, np.array(np.nan))}
    ratio = np.maximum(truth / predicted, predicted / truth)
    return {
        "pixels": np.array(truth.size),
        "rmse": np.sqrt(np.mean((truth - predicted) ** 2)),
        "abs_rel": np.mean(np.abs(truth - predicted) / truth),
        "delta1": np.mean(ratio < 1.25),
    }


def summary(scores: Mapping[str, Mapping], split: Split | None = None) -> dict:
    """The means over images, with 95 % intervals where there are two images or more."""
    numbers, intervals = {}, {}
    for name in METRICS:
        values = np.array([float(one[name]) for one in scores.values()])
        numbers[name] = round(float(values.mean()), 4)
        intervals[name] = bootstrap(len(values), partial(_weighted_mean, values))
    return {**numbers, "interval": rounded(intervals)}


def _weighted_mean(values: np.ndarray, weights: np.ndarray) -> float:
    return float(weights @ values / len(values))


def paint(image: np.ndarray, truth: np.ndarray, predicted: np.ndarray) -> list[np.ndarray]:
    """The image, the true and the found depth in one scale, and that scale; black where nothing is judged."""
    keep = judged(truth)
    low, high = float(truth[keep].min()), float(truth[keep].max())
    true = colorize(truth, "turbo", low, high) * keep[..., None]
    return [
        image,
        true,
        colorize(predicted, "turbo", low, high),
        color_bar(low, high, min(len(image), 480), "turbo", "m"),
    ]


TASK = Task(
    name="depth",
    truth="depth",
    drawn=scenes.depth,
    recipe=lambda split: probing.Recipe(BINS, loss, judged, with_cls=True),
    guess=guess,
    score=score,
    summary=summary,
    pictures=partial(extremes, badness=lambda one: float(one["rmse"]), paint=paint),
)
