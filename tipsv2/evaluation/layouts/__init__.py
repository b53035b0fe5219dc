"""Data sets on the disk as their authors pack them: a folder tree -> samples with what a task knows of each.

    open_data("segmentation", "ade20k:/data/ADEChallengeData2016")       # the layout by name
    open_data("segmentation", "/data/ADEChallengeData2016")              # or recognised by its tree
    open_data("segmentation", "folder:/data/street")                     # own labelled pictures

One file per family of layouts; each lists its `Layout`s, and LAYOUTS is all of them. Nothing is decoded before a
sample is asked for its image or its truth.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeVar

from tipsv2.scenes.splits import SCENES

OWN = "folder"  # the layout of own labelled pictures
HELD_OUT = "held-out"  # the part a probe is judged on, of a layout without parts
LOOKED_AT = 20  # pictures by whose names a tree is recognised


_Truth = TypeVar("_Truth")


def known(truth: _Truth) -> Callable[[], _Truth]:
    """A sample's `truth` that needs no file."""
    return lambda: truth


class SampleLike(Protocol):
    """What a task asks of a `Sample`; also of what is drawn or opened only when it is asked for its image."""

    @property
    def name(self) -> str: ...
    @property
    def image(self) -> Any: ...
    @property
    def truth(self) -> Callable[[], Any]: ...


@dataclass(frozen=True)
class Sample:
    """One image and what a task knows of it."""

    name: str  # unique in its split and stable: an interrupted evaluation goes on by it
    image: Any  # what `tipsv2.images.open_image` takes
    truth: Callable[[], Any]  # by task, see Split; raises ValueError naming the file where it cannot be read


@dataclass(frozen=True)
class Split:
    """A part of a data set for one task. What a sample's `truth()` is, by task:

    segmentation     int64 [H, W], numbers of `classes`, -1 where nothing is judged
    retrieval        its captions, a tuple of str
    classification   the number of its class in `classes`; knn and probe too
    instances        the numbers of its instances in `classes`, a tuple of int (mostly one)
    depth            float32 [H, W], metres, nan where unknown
    normals          float32 [H, W, 3], unit vectors (x right, y up, z towards the camera), nan where unknown
    """

    layout: str
    part: str  # "train" | "val" | "test", as the layout calls it
    samples: Sequence[SampleLike]
    classes: tuple[str, ...] = ()
    background: int | None = None  # the class that stands for "none of the others" (VOC-21, Context-60, COCO-Object)
    root: Path | None = None  # the folder it lies in
    notes: tuple[str, ...] = ()  # sentences about what is not as one may think
    unlabelled: float | None = None  # part of the pixels that no class is given to, of own labelled pictures
    synonyms: tuple[tuple[int, str], ...] = ()  # class, another word for it; of own labelled pictures

    @property
    def origin(self) -> str:
        """Which part of which data, and where: what is kept of one tree is not for another with the same names."""
        place = f" in {self.root.resolve()}" if self.root else ""
        return f"{self.layout}:{self.part}{place}"


@dataclass(frozen=True)
class Layout:
    """A folder tree that a data set comes in."""

    name: str  # "ade20k"
    title: str  # "ADE20K-150"
    tasks: tuple[str, ...]
    part: str  # the part that is evaluated where none is named
    tree: str  # what is expected below the root, as text with a line per folder
    source: str  # where to get it
    marks: tuple[str, ...]  # paths below the root, all of which are there
    open: Callable[[str, Path, str], Split]  # (task, root, part); raises ValueError naming what is wrong
    names: tuple[str, str] | None = None  # a glob below the root, and what its files are called (a regular expression)
    fits: Callable[[Path], bool] | None = None  # how a bare root is recognised, if not by its marks and names
    held_out: str = ""  # the part a probe is judged on, if not `part`

    def recognises(self, root: Path) -> bool:
        """Is this bare root a tree of this layout? Its folders alone do not say: own pictures may lie in such, too."""
        if self.fits is not None:
            return self.fits(root)
        return self.has_marks(root) and (self.names is None or _called(root, *self.names))

    def has_marks(self, root: Path) -> bool:
        return bool(self.marks) and all((root / mark).exists() for mark in self.marks)


def all_layouts() -> dict[str, Layout]:
    """Every layout by its name."""
    from tipsv2.evaluation.layouts import (
        ade20k,
        captions,
        cityscapes,
        coco_stuff,
        folder,
        imagenet,
        navi,
        nyu,
        pascal,
        uned,
    )  # fmt: skip

    families = (ade20k, captions, cityscapes, coco_stuff, folder, imagenet, navi, nyu, pascal, uned)
    return {layout.name: layout for family in families for layout in family.LAYOUTS}


def open_data(task: str, data: str, part: str | None = None) -> Split:
    """The part of a data set that `task` is measured on, by default the one its authors evaluate on.

    data: "LAYOUT:ROOT", or a root whose tree says which layout it is. The bundled scenes are no folder: see
    `tipsv2.evaluation.shared.splits`.
    part: as the layout calls it, or HELD_OUT: what is measured by a layer that was trained on the part "train".
    Raises ValueError with the expected tree and where to get the data if they are not there.
    """
    layout, root = recognise(task, data)
    if part is None or (part == HELD_OUT and not layout.held_out):
        part = layout.part
    split = layout.open(task, root, part)
    if not len(split.samples):
        raise ValueError(f"'{root}' holds no sample of {layout.title} ({split.part}): the split is empty.")
    return replace(split, root=root)


def recognise(task: str, data: str) -> tuple[Layout, Path]:
    """The layout of `data`, as of `open_data`, and its root, where what the layout is known by is there; no list of
    samples is read. Raises ValueError as `open_data` does.
    """
    layouts = _of(task)
    name, colon, rest = data.partition(":")
    if colon and name in all_layouts():
        if name not in layouts:
            serves = ", ".join(all_layouts()[name].tasks)
            raise ValueError(f"{name} has no {task}: it is for {serves}. For {task} choose {_listed(layouts)}.")
        return _marked(layouts[name], Path(rest).expanduser())
    root = Path(data).expanduser()
    if not root.is_dir():
        near = difflib.get_close_matches(name, [*layouts, SCENES], 1) if colon else []
        hint = f"did you mean {near[0]}:{rest}?" if near else f"give scenes:val, or LAYOUT:ROOT of {_listed(layouts)}."
        raise ValueError(f"there is no data set '{data}': {hint}")
    fitting = _fitting(layouts, root)
    if len(fitting) != 1:
        what = f"could be {_listed({x.name: x for x in fitting})}" if fitting else "is none of the trees that are known"
        alike = [] if fitting else [layout for layout in layouts.values() if layout.has_marks(root)]
        if alike:
            what = f"has the folders of {alike[0].title}, but files of other names"
        raise ValueError(f"'{data}' {what}: say which as LAYOUT:ROOT, of {_listed(layouts)}.")
    return _marked(fitting[0], root)


def is_known(task: str, data: str) -> bool:
    """Does `data` name a layout, or is it the root of a tree that one of the task's layouts fits?"""
    name, colon, _ = data.partition(":")
    return bool(colon and name in all_layouts() or _fitting(_of(task), Path(data).expanduser()))


def names_of(task: str) -> str:
    """The layouts of a task for a sentence: "coco, docci"."""
    return _listed(_of(task))


def _of(task: str) -> dict[str, Layout]:
    return {name: layout for name, layout in all_layouts().items() if task in layout.tasks}


def _fitting(layouts: dict[str, Layout], root: Path) -> list[Layout]:
    """A known data set, or else own labelled pictures: these are recognised by very little."""
    fitting = [layout for layout in layouts.values() if layout.recognises(root)]
    return [layout for layout in fitting if layout.name != OWN] or fitting


def _called(root: Path, pattern: str, names: str) -> bool:
    """Are the first files called so? Hidden ones and those without an ending are not asked."""
    files = islice((path.name for path in root.glob(pattern) if path.suffix and path.name[0] != "."), LOOKED_AT)
    return all(re.fullmatch(names, name) for name in files)


def _marked(layout: Layout, root: Path) -> tuple[Layout, Path]:
    lost = next((mark for mark in layout.marks if not (root / mark).exists()), None)
    if lost is not None:
        raise ValueError(
            f"'{root}' lacks {lost}, which {layout.title} has. Expected below it:\n{layout.tree.rstrip()}\n"
            f"Get it from {layout.source}"
        )
    return layout, root


def _listed(layouts: dict[str, Layout]) -> str:
    return ", ".join(layouts) or "none"
