"""Small own sets of labelled pictures, of every kind that `tipsv2.labelled` reads: three pictures of 28 x 42 pixels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

NAMES = ("sky", "grass", "dog")
VALUES = (3, 7, 250)  # of NAMES in a label picture
COLORS = ((10, 200, 30), (10, 200, 31), (255, 255, 255))
SIZE = (42, 28)  # rows, columns: no side is a square's

# What the pictures show, a class a block of 14 x 14 pixels, -1 unlabelled.
BLOCKS = np.array([[[0, 0], [1, 2], [1, -1]], [[0, 0], [0, 0], [1, 1]], [[2, -1], [2, 1], [1, 1]]])
STEMS = ("a", "b", "c")


def truth(number: int) -> np.ndarray:
    """The label map of a picture, int64 [42, 28]."""
    return BLOCKS[number].repeat(14, axis=0).repeat(14, axis=1)


def save(path: Path, array) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def numbers(root: Path, part: str = "", unlabelled: int = 0, stems=STEMS, dtype=np.uint8) -> Path:
    """images/, labels/ and classes.tsv."""
    base = root / part
    for number, stem in enumerate(stems):
        save(base / f"images/{stem}.png", picture(number % 3))
        codes = np.append(VALUES, unlabelled)[truth(number % 3)]
        save(base / f"labels/{stem}.png", codes.astype(dtype))
    rows = [f"{value}\t{name}" for value, name in zip(VALUES, NAMES, strict=True)]
    (root / "classes.tsv").write_text("\n".join(["value\tname", *rows, f"{unlabelled}\t"]) + "\n")
    return root


def picture(number: int) -> np.ndarray:
    """Uint8 [42, 28, 3]: a grey level a class."""
    return np.repeat((np.maximum(truth(number), 0) * 80 + 40).astype(np.uint8)[..., None], 3, axis=2)


def colors(root: Path) -> Path:
    """images/, coloured labels/ and palette.tsv; black has no name."""
    for number, stem in enumerate(STEMS):
        save(root / f"images/{stem}.png", picture(number))
        save(root / f"labels/{stem}.png", np.array([*COLORS, (0, 0, 0)], np.uint8)[truth(number)])
    lines = [f"{r} {g} {b}\t{name}" for (r, g, b), name in zip(COLORS, NAMES, strict=True)]
    (root / "palette.tsv").write_text("\n".join(["red green blue\tname", *lines, "#000000"]))
    return root


def panoptic(root: Path) -> Path:
    """val2017/ and annotations/panoptic_val2017*, as COCO packs them; the dog of picture c is two segments."""
    annotations = []
    for number, stem in enumerate(STEMS):
        save(root / f"val2017/{stem}.png", picture(number))
        labels = truth(number)
        ids = np.where(labels < 0, 0, 70_000 * number + 300 + labels)
        if stem == "c":
            ids[:14, :14] = 999
        rgb = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1)
        save(root / f"annotations/panoptic_val2017/{stem}.png", rgb.astype(np.uint8))
        info = [{"id": int(k), "category_id": 200 - (2 if k == 999 else int(k) % 10)} for k in np.unique(ids[ids > 0])]
        annotations.append({"image_id": number, "file_name": f"{stem}.png", "segments_info": info})
    categories = [
        {"id": 200, "name": "sky-other-merged", "isthing": 0},
        {"id": 199, "name": "grass-merged", "isthing": 0},
        {"id": 198, "name": "dog", "isthing": 1},
    ]
    images = [{"id": number, "file_name": f"{stem}.png"} for number, stem in enumerate(STEMS)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations/panoptic_val2017.json").write_text(json.dumps(content))
    return root
