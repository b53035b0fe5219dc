"""Cityscapes: 19 classes, 500 pictures to evaluate on.

Label files are those of the download (labelIds) or what the authors' own script makes of them (labelTrainIds); the
numbers are those of github.com/mcordts/cityscapesScripts, helpers/labels.py.
"""

from __future__ import annotations

from pathlib import Path

from tipsv2.evaluation.layouts import Layout, Split
from tipsv2.evaluation.layouts.label_files import labelled, number_table, part_of
from tipsv2.labelled.pictures import pictures
from tipsv2.prompts import CLASS_LISTS

CLASSES = CLASS_LISTS["cityscapes19"]
_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)  # class -> number in labelIds
LABEL_IDS = number_table({number: k for k, number in enumerate(_IDS)}, {*range(34), 255} - set(_IDS))
TRAIN_IDS = number_table({k: k for k in range(19)})
IMAGE_END = "_leftImg8bit"


def _open(task: str, root: Path, part: str) -> Split:
    folder = part_of(part, {"train": "train", "val": "val"})
    cities = sorted(path for path in (root / "leftImg8bit" / folder).glob("*") if path.is_dir())
    images = {
        f"{city.name}/{name.removesuffix(IMAGE_END)}": path
        for city in cities
        for name, path in pictures(city).items()
        if name.endswith(IMAGE_END)
    }
    labels = root / "gtFine" / folder
    samples = labelled(
        images,
        lambda name: [
            (labels / f"{name}_gtFine_labelIds.png", LABEL_IDS),
            (labels / f"{name}_gtFine_labelTrainIds.png", TRAIN_IDS),
        ],
    )
    return Split("cityscapes", part, samples, CLASSES)


LAYOUTS = (
    Layout(
        name="cityscapes",
        title="Cityscapes",
        tasks=("segmentation",),
        part="val",
        tree="""\
  leftImg8bit/train/CITY/*_leftImg8bit.png     leftImg8bit/val/CITY/*_leftImg8bit.png
  gtFine/train/CITY/*_gtFine_labelIds.png      gtFine/val/CITY/*_gtFine_labelIds.png     (or _labelTrainIds.png)""",
        source="https://www.cityscapes-dataset.com/downloads/: leftImg8bit_trainvaltest.zip, gtFine_trainvaltest.zip",
        marks=("leftImg8bit/val", "gtFine/val"),
        open=_open,
        names=("leftImg8bit/val/*/*", r"[a-z]+_\d{6}_\d{6}_leftImg8bit\.png"),
    ),
)
