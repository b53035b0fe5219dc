"""Captions in one JSON file: COCO's (captions_train2017.json) and Karpathy's (dataset_coco.json and the like).

read = read_annotations(Path("annotations/captions_train2017.json"), "train")
read.captions["000000000009.jpg"], read.folder
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

TRAINED_ON = ("train", "restval")  # of Karpathy's splits of COCO, as everybody since
TRIED = 5  # images, of which one must be where they are looked for


@dataclass(frozen=True)
class Annotations:
    """folder: what the names of the images start from."""

    captions: dict[str, list[str]]
    folder: Path
    notes: tuple[str, ...]


def read_annotations(path: Path, split: str) -> Annotations:
    """split: of Karpathy's parts; "train" is train and restval. Raises ValueError, one sentence: another kind of JSON,
    no such split, or images that are not near the file.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
        images = content["images"]
        if "annotations" in content:
            captions, notes = _coco(images, content["annotations"]), tuple[str, ...]()
        else:
            captions, notes = _karpathy(path, images, split)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if type(error) is ValueError:
            raise
        reason = f"no {error}" if isinstance(error, KeyError) else type(error).__name__
        raise ValueError(
            f"{path} does not hold captions as COCO's or Karpathy's files do ({reason}): give such a file, a table or "
            "a folder of images with captions beside them."
        ) from error
    if not captions:
        raise ValueError(f"{path} names no image.")
    return Annotations(captions, _folder(path, captions), notes)


def _coco(images: list[dict], annotations: list[dict]) -> dict[str, list[str]]:
    names = {image["id"]: image["file_name"] for image in images}
    captions: dict[str, list[str]] = {name: [] for name in names.values()}
    for row in annotations:
        captions[names[row["image_id"]]].append(str(row["caption"]))
    return captions


def _karpathy(path: Path, images: list[dict], split: str) -> tuple[dict[str, list[str]], tuple[str, ...]]:
    there = dict.fromkeys(image["split"] for image in images)
    wanted = [name for name in (TRAINED_ON if split == "train" else (split,)) if name in there]
    if not wanted:
        raise ValueError(f"{path} has no split {split!r}; it has {', '.join(there)}: set data.split to one of them.")
    captions = {
        "/".join(filter(None, (image.get("filepath"), image["filename"]))): [s["raw"] for s in image["sentences"]]
        for image in images
        if image["split"] in wanted
    }
    return captions, (f"{path}: of its splits {', '.join(there)}, {' and '.join(wanted)} is read.",)


def _folder(path: Path, captions: dict[str, list[str]]) -> Path:
    """Where the images are: beside the file or beside its folder, there or in a folder of the usual names."""
    part = path.stem.rpartition("_")[2]  # captions_train2017 -> train2017; dataset_flickr30k -> flickr30k
    inner = ("", "images", part, f"images/{part}", f"{part}-images", f"{part}_images")
    tried = [base / name for base in (path.parent, path.parent.parent) for name in inner]
    some = list(captions)[:TRIED]
    for folder in tried:
        if any((folder / name).is_file() for name in some):
            return folder
    raise ValueError(
        f"{path} names images such as {some[0]}, and none is near it: put them into {path.parent / part} or "
        f"{path.parent.parent / part}."
    )
