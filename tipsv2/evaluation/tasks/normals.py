"""Surface normals: which way does every pixel's surface face? A linear probe, or the released DPT heads.

    python -m tipsv2 evaluate normals --data nyu-normals:/data/dsine_eval/nyuv2 --model google/tipsv2-b14
    python -m tipsv2 evaluate normals --data navi:/data/navi_v1 --model google/tipsv2-b14 --train-limit 2000
    python -m tipsv2 evaluate normals --data nyu-normals:/data/dsine_eval/nyuv2 --model google/tipsv2-b14-dpt --head dpt
    python -m tipsv2 evaluate normals --data scenes:val --model opentips-nano  # made up: scenes/geometry.py

The probe is a layer from a patch to three numbers, brought to length one, learnt by the angle to the truth (Probe3D,
arXiv 2404.08636, mbanani/probe3d, evals/utils/losses.py, without its uncertainty). TIPS measures normals with DPT heads
instead of a layer, so a probe's numbers are worse than the paper's.
rmse is the mean over images of the image's root mean square angle in degrees (Probe3D, which TIPS follows); mean,
median, rmse_pixels and the parts of the pixels off by less than 11.25, 22.5 and 30 degrees are over all pixels together
(Fouhey et al., ICCV 2013). The DPT heads' axes, which nobody documents, are taken to be those of the files they were
trained on, NYU Depth v2's, where x points to the left; here they are turned to the truth's.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from tipsv2 import scenes
from tipsv2.analysis.heatmap import to_pixels
from tipsv2.analysis.render import paint_normals
from tipsv2.evaluation.layouts import Split
from tipsv2.evaluation.layouts.nyu import AXES
from tipsv2.evaluation.probing import probes as probing
from tipsv2.evaluation.probing.dense import Task, evaluate_task, extremes, rounded
from tipsv2.evaluation.tasks.depth import add_arguments as add_arguments
from tipsv2.evaluation.tasks.depth import predictor
from tipsv2.records import bootstrap

if TYPE_CHECKING:
    from tipsv2.network.encoder import Encoder

UNDER = (11.25, 22.5, 30.0)  # degrees
STEPS = 10  # of the histogram that the median is read from, a degree


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
    """Score an encoder on surface normals; arguments as `depth.evaluate`, with data "nyu-normals:ROOT", "navi:ROOT", or
    "scenes:val" and the like.

    Returns: {"task", "data", "model", ..., "rmse", "mean", "median", "rmse_pixels", "under_11.25", "under_22.5",
        "under_30", "interval": {"rmse": [low, high], "mean": [low, high]}}; angles in degrees, parts in [0, 1].
    Raises ValueError naming what is wrong.
    """
    said = predictor(encoder, head, "normals", features, epochs, train_limit)
    predict = None if said is None else lambda image, resolution: said(image, resolution) * AXES
    return evaluate_task(
        TASK, encoder, data, resolution, limit, out, progress, features or "final", epochs, train_limit, predict
    )  # fmt: skip


def known(truth: torch.Tensor) -> torch.Tensor:
    return torch.isfinite(truth).all(dim=-1)


def loss(outputs: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Mean angle in radians between outputs [B, 3, H, W], of any length, and the known truth [B, H, W, 3]."""
    keep = known(truth)
    cosine = F.cosine_similarity(outputs.permute(0, 2, 3, 1)[keep], truth[keep], dim=-1)
    return cosine.clamp(-1 + 1e-4, 1 - 1e-4).acos().mean()  # its slope at 1 is infinite


def guess(outputs: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
    """Outputs [3, h, w] -> unit vectors float32 [H, W, 3]: bilinear to the picture, then to length one."""
    return F.normalize(to_pixels(outputs, size), dim=0).permute(1, 2, 0).contiguous().cpu().numpy()


def angles(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Degrees float64 [N] between unit vectors [H, W, 3], where the truth is known."""
    keep = np.isfinite(truth).all(axis=-1)
    cosine = (truth[keep].astype(np.float64) * predicted[keep]).sum(axis=-1)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def score(truth: np.ndarray, predicted: np.ndarray, split: Split | None = None) -> dict[str, np.ndarray]:
    """Of the angles of an image: how many ("pixels"), their sum and sum of squares, how many are under UNDER, and how
    many lie in each tenth of a degree (to 180).
    """
    errors = angles(truth, predicted)
    return {
        "pixels": np.array(errors.size),
        "sum": errors.sum(),
        "squares": (errors**2).sum(),
        "under": (errors[:, None] < UNDER).sum(axis=0),
        "histogram": np.histogram(errors, 180 * STEPS, (0, 180))[0].astype(np.int32),
    }


def summary(scores: Mapping[str, Mapping], split: Split | None = None) -> dict:
    """The numbers of `evaluate`; the median is right to a tenth of a degree."""
    pixels, sums, squares = (
        np.array([float(one[name]) for one in scores.values()]) for name in ("pixels", "sum", "squares")
    )
    total = pixels.sum()
    counts = np.cumsum(np.sum([one["histogram"] for one in scores.values()], axis=0, dtype=np.int64))
    step = int(np.searchsorted(counts, total / 2))
    before = counts[step - 1] if step else 0
    median = (step + (total / 2 - before) / (counts[step] - before)) / STEPS
    rmse = np.sqrt(squares / pixels)
    intervals = {
        "rmse": bootstrap(len(rmse), lambda weights: float(np.average(rmse, weights=weights))),
        "mean": bootstrap(len(rmse), lambda weights: float((weights @ sums) / (weights @ pixels))),
    }
    under = np.sum([one["under"] for one in scores.values()], axis=0) / total
    numbers = {
        "rmse": rmse.mean(),
        "mean": sums.sum() / total,
        "median": median,
        "rmse_pixels": np.sqrt(squares.sum() / total),
        **{f"under_{limit:g}": part for limit, part in zip(UNDER, under, strict=True)},
    }
    return {
        **{name: round(float(value), 4) for name, value in numbers.items()},
        "interval": rounded(intervals),
    }


TASK = Task(
    name="normals",
    truth="normals",
    drawn=scenes.normals,
    recipe=lambda split: probing.Recipe(3, loss, known),
    guess=guess,
    score=score,
    summary=summary,
    pictures=partial(
        extremes,
        badness=lambda one: float(one["squares"] / one["pixels"]),
        paint=lambda image, truth, predicted: [image, paint_normals(truth), paint_normals(predicted)],
    ),
    version=2,  # NAVI's over larger distances, the DPT heads' in the truth's axes
)
