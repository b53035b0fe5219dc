"""`kept:FOLDER:CROPS,...`: which kept folders a run trains on, how many crops of each a step takes, and their weight.

    open_sets("kept:kept/coco100:8,kept/street:2:0.3")

A third number is the weight of the set's losses, 1 where there is none.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path

from train.data.kept.folder import Kept, open_kept
from train.recipe.kept_settings import PREFIX


@dataclass(frozen=True)
class KeptSet:
    """A kept folder with its crops a step and the weight of its losses."""

    kept: Kept
    crops: int
    weight: float


def open_sets(source: str) -> list[KeptSet]:
    """Raises ValueError for another form, a folder that cannot be used, or sets whose frozen parts differ."""
    sets = []
    for text in source.removeprefix(PREFIX).split(","):
        match = re.fullmatch(r"(.+?):(\d+)(?::(\d*\.?\d+))?", text.strip())
        if not match or not int(match[2]):
            raise ValueError(f"--kept {text!r} is not FOLDER:CROPS or FOLDER:CROPS:WEIGHT, such as kept/coco100:8.")
        weight = float(match[3]) if match[3] else 1.0
        if not math.isfinite(weight) or weight <= 0:
            raise ValueError(f"--kept {text!r}: a weight is above 0.")
        sets.append(KeptSet(open_kept(Path(match[1]).expanduser()), int(match[2]), weight))
    names = [kept_set.kept.name for kept_set in sets]
    if len(set(names)) < len(names):
        raise ValueError(f"--kept has two folders called {next(n for n in names if names.count(n) > 1)}: rename one.")
    first = sets[0].kept
    for kept_set in sets[1:]:
        for key in ("frozen", "blocks"):
            if kept_set.kept.meta[key] != first.meta[key]:
                raise ValueError(
                    f"'{first.folder}' and '{kept_set.kept.folder}' were kept with different frozen parts: make one of "
                    "them again, with the same --vision and --blocks."
                )
    return sets


def digest_of_sets(sets: list[KeptSet], *more: str) -> str:
    """Tells apart what runs are trained on; rows that were added later do not count."""
    about = [[kept_set.kept.meta, kept_set.kept.names, kept_set.crops, kept_set.weight] for kept_set in sets]
    return hashlib.sha256(json.dumps([about, *more], sort_keys=True).encode()).hexdigest()[:16]
