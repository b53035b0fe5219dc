"""What the export row writes: file names, PNG or a zip of them, NPZ, JSON, COCO annotations. No gradio in here."""

from __future__ import annotations

import io
import json
import re
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from demos.export.snippets import IMAGE

ORIGINAL = "Original size"  # the note in a PNG that was made smaller: width and height
LONGEST_PART = 48  # letters of one part of a file name


@dataclass(frozen=True)
class Taken:
    """What a tab hands out about the result on the page; pictures, maps and masks in the pixels of `image`."""

    name: str  # what it is, as part of file names: "heatmap"
    pictures: dict[str, np.ndarray]  # name -> uint8 [H, W, 3]; several become a zip
    arrays: dict[str, np.ndarray]  # maps, features, label maps: of numbers or strings
    scores: dict  # numbers, strings, lists and dicts of them, numpy's included; not-a-number becomes null
    masks: dict[str, np.ndarray] = field(default_factory=dict)  # category -> bool [H, W]
    python: str = ""  # against tipsv2's public functions, for demos.export.snippets.IMAGE
    command: str = ""
    model: str = ""  # the encoder's name
    image: str = ""  # the path in the tab's State, see `controls.keep`: its stem becomes part of file names


def slug(text: str) -> str:
    """What somebody typed -> part of a file name: letters, digits, _ and -; never empty, a path or a dot file."""
    return re.sub(r"[^\w-]+", "_", text).strip("_-")[:LONGEST_PART].strip("_-")


def stem(taken: Taken) -> str:
    """opentips-nano_heatmap_cat: the model, what it is, the image."""
    model, image = taken.model.rstrip("/\\").replace("\\", "/").rpartition("/")[2], Path(taken.image).stem
    return "_".join(part for part in map(slug, (model, taken.name, image)) if part) or "tipsv2"


def write(taken: Taken, kind: str, folder: Path) -> Path:
    """Write what was taken as "png", "npz", "json" or "coco" into the folder, or as "image" what it was made of.
    Returns the file. Raises ValueError.
    """
    writers = {"png": _write_pictures, "npz": _write_arrays, "json": _write_scores, "coco": _write_masks}
    writers |= {"image": _write_image}
    if kind not in writers:
        raise ValueError(f"Unknown export '{str(kind)[:20]}': use {', '.join(writers)}.")
    return writers[kind](taken, folder)


def _write_pictures(taken: Taken, folder: Path) -> Path:
    if not taken.pictures:
        raise ValueError("There is no picture to take along here yet.")
    if len(taken.pictures) == 1:
        path = folder / f"{stem(taken)}.png"
        path.write_bytes(_png(next(iter(taken.pictures.values()))))
        return path
    path = folder / f"{stem(taken)}.zip"
    with zipfile.ZipFile(path, "w") as archive:  # not deflated again
        for number, (name, picture) in enumerate(taken.pictures.items(), 1):
            archive.writestr(f"{stem(taken)}_{number:02d}_{slug(name) or 'picture'}.png", _png(picture))
    return path


def _write_arrays(taken: Taken, folder: Path) -> Path:
    if not taken.arrays:
        raise ValueError("There are no maps to take along here yet.")
    path = folder / f"{stem(taken)}.npz"
    arrays = {name: np.asarray(array) for name, array in taken.arrays.items()}
    assert all(array.dtype != object for array in arrays.values()), "would be pickled"
    np.savez_compressed(path, **arrays)
    return path


def _write_scores(taken: Taken, folder: Path) -> Path:
    path = folder / f"{stem(taken)}.json"
    path.write_text(json.dumps(_plain(taken.scores), indent=2, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")
    return path


def _write_masks(taken: Taken, folder: Path) -> Path:
    if not any(mask.any() for mask in taken.masks.values()):
        raise ValueError("There is no mask here to take along.")
    path = folder / f"{stem(taken)}_coco.json"
    path.write_text(json.dumps(coco(taken), ensure_ascii=False) + "\n", "utf-8")
    return path


def _write_image(taken: Taken, folder: Path) -> Path:
    path = folder / IMAGE
    try:
        return Path(shutil.copyfile(taken.image, path))
    except OSError:
        raise ValueError("The image is no longer there: upload it again.") from None


def original_size(path: str | Path) -> tuple[int, int] | None:
    """(width, height) that an upload had, where `demos.ui.controls.keep` has made it smaller."""
    try:
        with Image.open(path) as image:
            width, height = image.info[ORIGINAL].split()
            return int(width), int(height)
    except (OSError, KeyError):
        return None


def coco(taken: Taken) -> dict:
    """The masks as a COCO data set of one image: a category per mask, an annotation for each that is not empty. Where
    the image is smaller than its upload, "original_width" and "original_height" say what the masks are to be scaled to.
    """
    from tipsv2.analysis.rle import bounding_box, encode

    height, width = next(iter(taken.masks.values())).shape
    image = {"id": 1, "file_name": Path(taken.image or IMAGE).name, "width": width, "height": height}
    if size := original_size(taken.image):
        image |= {"original_width": size[0], "original_height": size[1]}
    annotations = [
        {
            "id": number,
            "image_id": 1,
            "category_id": number,
            "segmentation": encode(mask),
            "area": int(mask.sum()),
            "bbox": bounding_box(mask),
            "iscrowd": 0,
        }
        for number, mask in enumerate(taken.masks.values(), 1)
        if mask.any()
    ]
    return {
        "info": {"description": f"{taken.name} by {taken.model or 'TIPSv2'}"},
        "images": [image],
        "categories": [{"id": number, "name": name} for number, name in enumerate(taken.masks, 1)],
        "annotations": annotations,
    }


def _png(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(picture, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def _plain(content):
    """Numpy's numbers and arrays -> Python's, what is not finite -> null."""
    if isinstance(content, Mapping):
        return {str(key): _plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_plain(value) for value in content]
    if isinstance(content, np.ndarray | np.generic):
        return _plain(content.tolist())
    return None if isinstance(content, float) and not np.isfinite(content) else content
