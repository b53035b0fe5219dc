"""PASCAL VOC 2012 (20 classes, 21 with the background) and PASCAL Context (59, 60 with the background).

Both in the tree of the VOC development kit, Context with the label files that mmsegmentation's converter
(tools/dataset_converters/pascal_context.py) writes. 0 is the background: the variants with it judge it as a class, the
others do not judge it. 255 is the border of an object, never judged.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from tipsv2.evaluation.layouts import Layout, Split
from tipsv2.evaluation.layouts.label_files import labelled, listed, number_table, part_of
from tipsv2.prompts import CLASS_LISTS

PREPARE = "https://github.com/open-mmlab/mmsegmentation/blob/main/docs/en/user_guides/2_dataset_prepare.md"


def _open(
    name: str, names: tuple[str, ...], background: bool, lists: str, labels: str, task: str, root: Path, part: str
) -> Split:
    first = 0 if background else 1
    classes = ("background",) * background + names
    numbers = number_table({k + first: k for k in range(len(classes))}, ignored=(0, 255))
    images = listed(
        root / "ImageSets" / lists / f"{part_of(part, {'train': 'train', 'val': 'val'})}.txt", root / "JPEGImages"
    )
    samples = labelled(images, lambda name: [(root / labels / f"{name}.png", numbers)])
    return Split(name, part, samples, classes, background=0 if background else None)


def _layout(name: str, title: str, names: str, background: bool, lists: str, labels: str, source: str) -> Layout:
    return Layout(
        name=name,
        title=title,
        tasks=("segmentation",),
        part="val",
        tree=f"""\
  JPEGImages/*.jpg
  ImageSets/{lists}/train.txt, val.txt     a name per line
  {labels}/*.png     {"0 background" if background else "0 unjudged"}, 1 to {len(CLASS_LISTS[names])}, 255 unjudged""",
        source=source,
        marks=("JPEGImages", labels, f"ImageSets/{lists}/val.txt"),
        open=partial(_open, name, CLASS_LISTS[names], background, lists, labels),
        names=("JPEGImages/*", r"\d{4}_\d{6}\.jpg"),
    )


_VOC = (
    "Segmentation",
    "SegmentationClass",
    "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar (the root is VOCdevkit/VOC2012)",
)
_CONTEXT = (
    "SegmentationContext",
    "SegmentationClassContext",
    f"{PREPARE}#pascal-context (the root is VOCdevkit/VOC2010)",
)
LAYOUTS = (
    _layout("voc20", "PASCAL VOC-20", "voc20", False, *_VOC),
    _layout("voc21", "PASCAL VOC-21", "voc20", True, *_VOC),
    _layout("context59", "PASCAL Context-59", "context59", False, *_CONTEXT),
    _layout("context60", "PASCAL Context-60", "context59", True, *_CONTEXT),
)
