"""Anybody's labelled pictures for segmentation: what `tipsv2.labelled` opens, as a split.

    python -m tipsv2 evaluate segmentation --data folder:/data/street --model opentips-nano
    python -m tipsv2 evaluate segmentation --images jpg --labels masks --names names.txt --first 1 --void 0

A probe needs a part to train on. In a folder without parts every fifth picture is judged and the others train.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path

from tipsv2.evaluation.layouts import HELD_OUT, OWN, Layout, Sample, Split
from tipsv2.labelled import ALL, is_labelled, open_labelled, parts_of
from tipsv2.labelled.place import TREE, Address, read_address

EVERY = 5  # one picture in so many is judged where a probe trains on the others


def _open(task: str, root: Path, part: str) -> Split:
    data = f"{OWN}:{root}"
    alone = parts_of(data) == (ALL,)
    opened = open_labelled(data, None if alone or part in ("", HELD_OUT) else part)
    pictures, name = opened.pictures, opened.part
    if alone and part == "train":
        pictures, name = tuple(p for k, p in enumerate(pictures) if k % EVERY), f"all but every {EVERY}th"
    elif alone and part == HELD_OUT:
        pictures, name = pictures[::EVERY], f"every {EVERY}th"
    samples = [Sample(picture.name, picture.image, partial(opened.read, picture.labels)) for picture in pictures]
    return Split(
        OWN, name, samples, opened.classes,
        notes=opened.notes, unlabelled=opened.unlabelled, synonyms=opened.synonyms,
    )  # fmt: skip


def _fits(root: Path) -> bool:
    try:
        return bool(parts_of(f"{OWN}:{root}"))
    except ValueError:
        return False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that name own labelled pictures in place of --data, or add to it."""
    own = parser.add_argument_group("own labelled pictures, in place of --data folder:PATH or beside it")
    own.add_argument("--images", type=Path, metavar="DIR", help="the pictures")
    own.add_argument("--labels", type=Path, metavar="DIR", help="their label maps, or COCO's panoptic JSON")
    own.add_argument("--names", type=Path, metavar="FILE", help="a name a line, or VALUE<tab>NAME")
    own.add_argument("--palette", type=Path, metavar="FILE", help="of label maps in colours: R G B NAME a line")
    own.add_argument("--first", type=int, metavar="N", help="the number of the first name (default: 0)")
    own.add_argument(
        "--void", type=int, metavar="N", action="append", help="a value that is not judged; may be repeated"
    )


def take_arguments(options: argparse.Namespace) -> None:
    """Put what these flags say into options.data, and take the flags away. Raises ValueError where they do not fit."""
    if "palette" not in options:  # of another task
        return
    given = {name: vars(options).pop(name) for name in ("images", "labels", "names", "palette", "first", "void")}
    given = {name: value for name, value in given.items() if value is not None}
    if not given:
        return
    if "void" in given:
        given["void"] = tuple(given["void"])
    if "images" in given or "labels" in given:
        address = Address()
    elif is_labelled(options.data):
        address = read_address(options.data)
    else:
        flags = ", ".join(f"--{name}" for name in given)
        raise ValueError(f"{flags} belongs to own labelled pictures: give --images DIR --labels DIR, or folder:PATH.")
    options.data = str(replace(address, **given))
    read_address(options.data)  # which says what is missing


LAYOUTS = (
    Layout(
        name=OWN,
        title="own labelled pictures",
        tasks=("segmentation",),
        part="",
        tree=TREE,
        source="what you have labelled",
        marks=(),
        open=_open,
        fits=_fits,
        held_out=HELD_OUT,
    ),
)
