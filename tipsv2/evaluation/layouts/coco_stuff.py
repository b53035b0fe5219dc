"""COCO-Stuff (171 classes) and COCO-Object (its 80 things and the background), on the pictures of COCO 2017.

Label files are the raw ones of COCO-Stuff (stuffthingmaps: COCO's number of the category less one, 255 unlabelled) or
what converters make of them: NAME_labelTrainIds.png by mmsegmentation (tools/dataset_converters/coco_stuff164k.py),
NAME_instanceTrainIds.png by GroupViT (convert_dataset/convert_coco_object.py). COCO-Object is made of the raw ones as
GroupViT does: whatever is no thing is background.
"""

from __future__ import annotations

from pathlib import Path

from tipsv2.evaluation.layouts import Layout, Split
from tipsv2.evaluation.layouts.label_files import labelled, number_table, part_of
from tipsv2.labelled.pictures import pictures
from tipsv2.prompts import CLASS_LISTS

STUFF = CLASS_LISTS["cocostuff171"]
THINGS = STUFF[:80]
# Numbers of the raw files that nobody annotated: street sign, hat, shoe, eye glasses, plate, mirror, window, desk,
# door, blender and hair brush (github.com/nightrome/cocostuff, labels.txt).
_UNUSED = {11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90}
_RAW = [number for number in range(182) if number not in _UNUSED]  # class -> number in a raw file

STUFF_IDS = number_table({k: k for k in range(171)})
STUFF_RAW = number_table({number: k for k, number in enumerate(_RAW)})
OBJECT_IDS = number_table({k: k for k in range(81)})
OBJECT_RAW = number_table({255: 0} | {number: k + 1 if k < 80 else 0 for k, number in enumerate(_RAW)}, ignored=())


def _open_stuff(task: str, root: Path, part: str) -> Split:
    images, labels = _folders(root, part)
    samples = labelled(
        pictures(images), lambda n: [(labels / f"{n}_labelTrainIds.png", STUFF_IDS), (labels / f"{n}.png", STUFF_RAW)]
    )
    return Split("cocostuff", part, samples, STUFF)


def _open_object(task: str, root: Path, part: str) -> Split:
    images, labels = _folders(root, part)
    samples = labelled(
        pictures(images),
        lambda n: [(labels / f"{n}_instanceTrainIds.png", OBJECT_IDS), (labels / f"{n}.png", OBJECT_RAW)],
    )
    return Split("cocoobject", part, samples, ("background", *THINGS), background=0)


def _folders(root: Path, part: str) -> tuple[Path, Path]:
    folder = part_of(part, {"train": "train2017", "val": "val2017"})
    return root / "images" / folder, root / "annotations" / folder


def _tree(converted: str, numbers: str) -> str:
    return f"""\
  images/val2017/*.jpg          images/train2017/*.jpg
  annotations/val2017/*.png     annotations/train2017/*.png     the contents of stuffthingmaps_trainval2017.zip
  annotations/val2017/*_{converted}.png     {numbers}; read instead where there"""


_SOURCE = (
    "http://images.cocodataset.org/zips/val2017.zip and "
    "http://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset/stuffthingmaps_trainval2017.zip"
)
_MARKS = ("images/val2017", "annotations/val2017")
_NAMES = ("images/val2017/*", r"\d{12}\.jpg")
LAYOUTS = (
    Layout(
        name="cocostuff",
        title="COCO-Stuff 171",
        tasks=("segmentation",),
        part="val",
        tree=_tree("labelTrainIds", "0 to 170, 255 unjudged"),
        source=_SOURCE,
        marks=_MARKS,
        open=_open_stuff,
        names=_NAMES,
    ),
    Layout(
        name="cocoobject",
        title="COCO-Object",
        tasks=("segmentation",),
        part="val",
        tree=_tree("instanceTrainIds", "0 background, 1 to 80"),
        source=_SOURCE,
        marks=_MARKS,
        open=_open_object,
        names=_NAMES,
    ),
)
