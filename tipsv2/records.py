"""The record of an evaluation: what was measured with what, so that a number can be made again; and how sure it is."""

from __future__ import annotations

import hashlib
import json
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tipsv2.analysis.depth import Dpt
    from tipsv2.network.encoder import Encoder

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = ("torch", "transformers", "numpy", "pillow")


def versions() -> dict[str, str]:
    """Python, the libraries whose numbers enter a score, and this project's commit ("" outside a git checkout)."""
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = ""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(git, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):  # no git here
        return versions | {"commit": ""}
    return versions | {"commit": done.stdout.strip() if done.returncode == 0 else ""}


def write_record(path: Path, numbers: Mapping, encoders: Sequence[Mapping]) -> None:
    """`numbers` of a task with how they came about, as JSON. encoders: `identity` of what was measured."""
    made = {
        "command": command(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": versions(),
        "encoders": list(encoders),
    }
    path.write_text(json.dumps({**numbers, **made}, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def identity(encoder: Encoder | Dpt) -> dict[str, str]:
    """What of an encoder its numbers depend on: name, place, number type, device and a digest of its weights.

    Belongs into the settings of a `Partial`, so that an evaluation does not go on with another encoder, or with the
    same folder's weights of a later step.
    """
    return {
        "name": encoder.info.name,
        "location": str(encoder.info.location),
        "dtype": encoder.precision,
        "device": encoder.device.type,
        "weights": encoder.digest,
    }


def command() -> str:
    """The command line that is running, as one would type it."""
    words = list(sys.argv)
    if words and words[0].endswith("__main__.py"):
        words[:1] = ["python", "-m", Path(words[0]).parent.name]
    return shlex.join(words)


def fingerprint(names: Iterable[str], classes: Sequence[str] = ()) -> str:
    """16 hex digits that change with the samples, their order or the classes of a data set, not with its place."""
    digest = hashlib.sha256()
    for text in (*classes, "\0", *names):
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()[:16]


def bootstrap(
    count: int,
    statistic: Callable[[np.ndarray], float],
    draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    centred: bool = False,
) -> tuple[float, float]:
    """The interval that a statistic of `count` samples falls in for `level` of the resamplings (percentile bootstrap,
    Efron 1979).

    statistic: from weights int64 [count], how often each sample was drawn, to the number.
    centred: move the interval so that the resamplings' mean is the statistic of the samples themselves. For statistics
        that every resampling lowers: it misses a third of what is in one sample only, so that an mIoU with many rare
        classes would lie outside its own interval.
    Returns (low, high); (nan, nan) where there are fewer than two samples.
    """
    if count < 2:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    drawn = [statistic(np.bincount(rng.integers(count, size=count), minlength=count)) for _ in range(draws)]
    low, high = np.nanquantile(drawn, ((1 - level) / 2, (1 + level) / 2))
    move = statistic(np.ones(count, np.int64)) - np.nanmean(drawn) if centred else 0.0
    return float(low + move), float(high + move)
