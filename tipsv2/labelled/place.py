"""Where an own set of labelled pictures lies: `folder:PATH` with further fields -> folders of pictures and of labels.

read_address("folder:/data/street")
read_address("folder:/data/street/val,names=/data/names.txt,first=0,void=11")
read_address("folder:,images=/data/jpg,labels=/data/masks,palette=/data/palette.tsv")
places(address)                        # {"train": Place(...), "val": Place(...)}, or {"all": Place(...)}
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

PREFIX = "folder"
PARTS = ("val", "test", "train")  # in the order in which one is measured where none is named
ALL = "all"  # the part of a folder without parts
TREE = """\
  images/*.jpg      or images/train, images/val, or train/images, val/images (then labels likewise)
  labels/*.png      of the same names and sizes, a number a pixel
  classes.tsv       VALUE<tab>NAME a line; a value without a name is not judged
or, for labels in colours, palette.tsv in place of classes.tsv: R G B NAME or #RRGGBB NAME a line
or, as COCO packs it: annotations/panoptic_*.json, annotations/panoptic_*/*.png, and images/ or val2017/, train2017/
  synonyms.tsv      may be there: NAME<tab>another word for it, measured beside the names"""


@dataclass(frozen=True)
class Address:
    """`folder:PATH,field=value,...`, taken apart. images, labels: in place of what lies below the path."""

    root: Path | None = None
    images: Path | None = None
    labels: Path | None = None  # a folder, or COCO's panoptic JSON
    names: Path | None = None  # a name a line, or as classes.tsv
    palette: Path | None = None
    first: int | None = None  # the number of the first of `names`
    void: tuple[int, ...] = ()  # values that are not judged
    part: str | None = None

    def __str__(self) -> str:
        text = f"{PREFIX}:{self.root or ''}"
        for name in FIELDS:
            value = getattr(self, name)
            for part in value if isinstance(value, tuple) else (value,):
                text += "" if part is None else f",{name}={part}"
        return text


FIELDS = tuple(field.name for field in fields(Address) if field.name != "root")


@dataclass(frozen=True)
class Place:
    """One part: where its pictures and label maps are. panoptic: COCO's JSON that goes with the latter."""

    images: Path
    labels: Path
    panoptic: Path | None = None


def is_labelled(data: object) -> bool:
    """Is this the address of an own set of labelled pictures?"""
    return str(data).partition(":")[0] == PREFIX


def read_address(data: str) -> Address:
    """Take an address apart. Raises ValueError for numbers that are none, or where no folder is named."""
    root, *pieces = re.split(rf",({'|'.join(FIELDS)})=", str(data).removeprefix(f"{PREFIX}:"))
    values: dict = {"root": _path(root) if root else None, "void": ()}
    for name, value in zip(pieces[::2], pieces[1::2], strict=True):
        if name in ("first", "void"):
            if not re.fullmatch(r"\d+", value):
                raise ValueError(f"{name}={value} in '{data}' must be a number that a label map can hold, from 0 on.")
            values[name] = (*values["void"], int(value)) if name == "void" else int(value)
        else:
            values[name] = value if name == "part" else _path(value)
    address = Address(**values)
    if address.root is None and not (address.images and address.labels):
        raise ValueError(f"'{data}' names no folder: write folder:PATH, or give both the images and the labels.")
    if (address.images is None) != (address.labels is None):
        raise ValueError(f"'{data}' names the images or the labels only: give both, or a folder that has both.")
    if address.names and address.palette:
        raise ValueError(f"'{data}' has both a list of names and a palette: give the one that fits the label maps.")
    return address


def absolute(data: str) -> str:
    """The address so that it is found from other folders, too."""
    address = read_address(data)
    paths = {name: getattr(address, name) for name in ("root", "images", "labels", "names", "palette")}
    there: dict[str, Any] = {name: Path(os.path.abspath(path)) for name, path in paths.items() if path}
    return str(replace(address, **there))


def places(address: Address) -> dict[str, Place]:
    """The parts that there are. Raises ValueError, with the tree that is expected, where there is none."""
    if address.images and address.labels:
        if address.labels.suffix.lower() == ".json":
            return {ALL: Place(address.images, _beside(address.labels), address.labels)}
        return {ALL: Place(address.images, address.labels)}
    root = address.root
    if root is None or not root.is_dir():
        raise ValueError(f"there is no folder '{root}': check the path.")
    parts = _coco(root) or _plain(root)
    if not parts:
        raise ValueError(
            f"'{root}' lacks images/ or labels/: name them, images=DIR and labels=DIR, or have below it:\n{TREE}"
        )
    return parts


def folders_of_lists(address: Address) -> list[Path]:
    """Where classes.tsv, palette.tsv and synonyms.tsv are looked for: in the folder, and above one that is a part."""
    if address.root is None:
        return list(dict.fromkeys(path.parent for path in (address.labels, address.images) if path))
    return [address.root, *([address.root.parent] if address.root.name in PARTS else [])]


def _path(text: str) -> Path:
    return Path(os.path.expanduser(text))


def _plain(root: Path) -> dict[str, Place]:
    outer = {part: Place(root / part / "images", root / part / "labels") for part in PARTS}
    inner = {part: Place(root / "images" / part, root / "labels" / part) for part in PARTS}
    for tree in (outer, inner, {ALL: Place(root / "images", root / "labels")}):
        there = {part: place for part, place in tree.items() if place.images.is_dir() and place.labels.is_dir()}
        if there:
            return there
    return {}


def _coco(root: Path) -> dict[str, Place]:
    files = sorted(file for folder in (root, root / "annotations") for file in folder.glob("panoptic*.json"))
    parts: dict[str, Place] = {}
    for file in files:
        name = file.stem.removeprefix("panoptic").strip("_")  # "val2017"
        part = next((part for part in PARTS if part in name), ALL)
        images = [root / name, root / "images" / name, root / "images" / part, root / "images"]
        there = next((folder for folder in images if folder.is_dir() and folder != root), None)
        if there is None:
            raise ValueError(f"'{root}' has {file.name}, but no folder images/ with its pictures: unpack them there.")
        labels = _beside(file)
        if not labels.is_dir():
            inner = root / "labels" / part
            labels = inner if inner.is_dir() else root / "labels"
        if part in parts:
            other = parts[part].panoptic or parts[part].labels
            raise ValueError(
                f"'{root}' has {other.name} and {file.name}: keep one, or give images=DIR and labels=FILE."
            )
        parts[part] = Place(there, labels, file)
    return parts


def _beside(file: Path) -> Path:
    """The folder of PNGs that belongs to a panoptic JSON is called as it is; else labels/ beside it."""
    own = file.with_suffix("")
    return own if own.is_dir() or not (file.parent / "labels").is_dir() else file.parent / "labels"
