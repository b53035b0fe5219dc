"""The pictures that crops are kept of: labelled folders, plain folders of photographs, the bundled scenes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tipsv2 import scenes
from tipsv2.collections.sources import IMAGE_SUFFIXES
from tipsv2.images import open_image
from tipsv2.labelled import is_labelled, open_labelled
from tipsv2.labelled.legend import Legend

FIRST_SCENE = 7 * 10**11  # neither the seeds of recipes nor those that evaluations draw
SCENES = 700  # where nobody says how many
STYLES = ("fluent", "noto", "flat", "openmoji")


@dataclass(frozen=True)
class Shown:
    """One picture and what is known of it: labels [H, W], -1 unlabelled; its class, -1 unknown; captions by role."""

    picture: Image.Image
    labels: np.ndarray | None = None
    known: int = -1
    captions: dict[str, str] | None = None  # None: written from the labels of each crop


class Labelled:
    """`folder:PATH`, see `tipsv2.labelled`; the part that is named, else train where there is one."""

    cropped = True

    def __init__(self, source: str, chosen: slice):
        from tipsv2.labelled import parts_of
        from tipsv2.labelled.place import read_address

        part = read_address(source).part or ("train" if "train" in parts_of(source) else None)
        opened = open_labelled(source, part)
        self.legend: Legend = opened.legend
        self.names, self.pictures = opened.classes, _chosen(opened.pictures, chosen)
        self.notes = opened.notes
        self.files = [picture.name for picture in self.pictures]

    def show(self, number: int, size: int) -> Shown:
        """Picture `number` of `files`."""
        picture = self.pictures[number]
        return Shown(open_image(picture.image), self.legend.read(picture.labels))


class Plain:
    """A folder of pictures; with `classes` (how many there are) their names begin with the number of what they show."""

    cropped, names, notes = True, (), ()

    def __init__(self, folder: Path, chosen: slice, classes: int = 0):
        if not folder.is_dir():
            raise ValueError(f"there is no folder '{folder}': give a folder of pictures, folder:PATH or scenes.")
        files = sorted(path for path in folder.iterdir() if path.suffix[1:].lower() in IMAGE_SUFFIXES)
        if not files:
            raise ValueError(f"'{folder}' holds no pictures.")
        self.paths = _chosen(files, chosen)
        self.files = [path.name for path in self.paths]
        self.known = [self._class_of(path, classes) for path in self.paths] if classes else [-1] * len(self.paths)

    @staticmethod
    def _class_of(path: Path, classes: int) -> int:
        match = re.match(r"(\d+)_", path.name)
        if not match or int(match[1]) >= classes:
            raise ValueError(
                f"'{path}' does not begin with the number of one of {classes} classes, as 001_n01443537_goldfish.jpg "
                "does: rename it, or leave --classes out."
            )
        return int(match[1])

    def show(self, number: int, size: int) -> Shown:
        """Picture `number` of `files`."""
        return Shown(open_image(self.paths[number]), None, self.known[number], {})


class Scenes:
    """The bundled drawings, `count` of them in all styles but the one that is measured; never cropped or mirrored,
    since their captions speak of left and right.
    """

    cropped, notes = False, ()

    def __init__(self, count: int, seed: int):
        self.names, self.first = scenes.names(), FIRST_SCENE + seed * 10**6
        self.files = [f"scene {self.first + k}" for k in range(count)]

    def show(self, number: int, size: int) -> Shown:
        """Scene `number`, `size` pixels wide."""
        scene = scenes.draw(self.first + number, size, STYLES)
        return Shown(Image.fromarray(scene.image), scene.labels.astype(np.int64), -1, dict(scene.captions))


def open_pictures(source: str, limit: int = 0, leave_out: str = "", classes: int = 0, seed: int = 0):
    """A Labelled, Plain or Scenes. limit: the first so many only.   leave_out: "2::5" leaves every fifth out, from the
    third on in the order of names.   classes: how many the numbers in file names may mean; 0 where they mean none.

    Raises ValueError where there is none.
    """
    left_out = _slice(leave_out)
    if source == "scenes":
        return Scenes(limit or SCENES, seed)
    if is_labelled(source):
        pictures = Labelled(source, left_out)
    else:
        pictures = Plain(Path(source).expanduser(), left_out, classes)
    if limit:
        pictures.files = pictures.files[:limit]
    return pictures


def _slice(text: str) -> slice:
    if not text:
        return slice(0, 0)
    if not re.fullmatch(r"\d*:\d*(:[1-9]\d*)?", text):
        raise ValueError(f"--leave-out {text} is no slice: 2::5 leaves every fifth picture out, from the third on.")
    return slice(*(int(part) if part else None for part in text.split(":")))


def _chosen(items: Sequence, left_out: slice) -> list:
    gone = set(range(len(items))[left_out])
    if len(gone) == len(items):
        raise ValueError("--leave-out leaves no picture.")
    return [item for k, item in enumerate(items) if k not in gone]
