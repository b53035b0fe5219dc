"""COCO's panoptic format: a JSON with the segments of every picture, and PNGs whose colours are the segments' numbers.

panoptic = read_panoptic("annotations/panoptic_val2017.json")
panoptic.names, panoptic.segments["000000000139.png"], panoptic.images["000000000139.png"]

The format is that of cocodataset.org/#format-data, section 4: a pixel's segment is R + 256 G + 256 * 256 B, 0 is
unlabelled, and "segments_info" gives the category of each segment. Several things of a category are one class here.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from tipsv2.labelled.annotations import read_json, take
from tipsv2.labelled.classes import check_doubles


@dataclass(frozen=True)
class Panoptic:
    """names: of the classes. By the name of the label picture: segments, their numbers int64 [S] and classes int64
    [S]; images, the picture's file name, without an ending where the JSON does not say it.
    """

    names: tuple[str, ...]
    segments: dict[str, tuple[np.ndarray, np.ndarray]]
    images: dict[str, str]


def read_panoptic(file: Path) -> Panoptic:
    """Read the JSON. Raises ValueError naming what is missing in it, or is there twice."""
    return _read(file, os.stat(file).st_mtime_ns)


@lru_cache(maxsize=2)  # COCO's are hundreds of megabytes, and data are opened before the model and again after it
def _read(file: Path, changed: int) -> Panoptic:
    content = read_json(file)
    categories = {take(row, "id", file): str(take(row, "name", file)) for row in take(content, "categories", file)}
    if len(categories) < len(content["categories"]):
        raise ValueError(f"'{file}' has two categories of one id: keep one of them.")
    files = {row["id"]: row["file_name"] for row in content.get("images", ()) if {"id", "file_name"} <= set(row)}
    place = {number: k for k, number in enumerate(categories)}
    segments, images = {}, {}
    for row in take(content, "annotations", file):
        label = str(take(row, "file_name", file))
        info = take(row, "segments_info", file)
        kinds = [take(segment, "category_id", file) for segment in info]
        if unknown := set(kinds) - set(place):
            raise ValueError(f"'{file}' has segments of the category {min(unknown)}, which it does not list.")
        numbers = np.array([take(segment, "id", file) for segment in info], np.int64)
        segments[label] = numbers, np.array([place[kind] for kind in kinds], np.int64)
        images[label] = str(files.get(row.get("image_id"), Path(label).stem))
    names = tuple(categories.values())
    check_doubles(names, str(file))
    plain = tuple(plain_name(name) for name in names)
    return Panoptic(plain if len({*plain}) == len(plain) else names, segments, images)


def plain_name(name: str) -> str:
    """COCO's names as people say them: "wall-other-merged" -> "wall", "floor-wood" -> "floor wood"."""
    return re.sub(r"-(other|merged|stuff)\b", "", name).replace("-", " ").strip() or name
