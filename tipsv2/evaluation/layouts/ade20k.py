"""ADE20K's scene parsing benchmark: 150 classes, 2000 pictures to evaluate on.

The label files number the classes from 1; 0 is everything else and not judged, nor is 255, as in TIPSv2's notebook
(google-deepmind/tips, pytorch/TIPS_zeroshot_segmentation.ipynb).
"""

from __future__ import annotations

from pathlib import Path

from tipsv2.evaluation.layouts import Layout, Split
from tipsv2.evaluation.layouts.label_files import labelled, number_table, part_of
from tipsv2.labelled.pictures import pictures
from tipsv2.prompts import CLASS_LISTS

CLASSES = CLASS_LISTS["ade20k150"]
NUMBERS = number_table({k + 1: k for k in range(len(CLASSES))}, ignored=(0, 255))


def _open(task: str, root: Path, part: str) -> Split:
    folder = part_of(part, {"train": "training", "val": "validation"})
    labels = root / "annotations" / folder
    samples = labelled(pictures(root / "images" / folder), lambda name: [(labels / f"{name}.png", NUMBERS)])
    return Split("ade20k", part, samples, CLASSES)


LAYOUTS = (
    Layout(
        name="ade20k",
        title="ADE20K-150",
        tasks=("segmentation",),
        part="val",
        tree="""\
  images/training/ADE_train_*.jpg          images/validation/ADE_val_*.jpg
  annotations/training/ADE_train_*.png     annotations/validation/ADE_val_*.png     0 unjudged, 1 to 150""",
        source="http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",
        marks=("images/validation", "annotations/validation"),
        open=_open,
        names=("images/validation/*", r"ADE_val_\d{8}\.jpg"),
    ),
)
