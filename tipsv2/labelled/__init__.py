"""Anybody's labelled pictures as one thing: folders of pictures and label maps, COCO panoptic JSON, coloured PNGs.

    data = open_labelled("folder:/data/street")       # see `tipsv2.labelled.place` for what lies where
    data.classes                                      # ("sky", "building", ...)
    data.read(data.pictures[0].labels)                # int64 [H, W], a class's place, -1 unlabelled

The one reader of such data, for evaluation (`tipsv2.evaluation.layouts.folder`) and for training
(`tipsv2.collections.sources`). Opening looks at everything that can be wrong before anything long starts, see
`tipsv2.labelled.check`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tipsv2.labelled.check import Picture, survey
from tipsv2.labelled.classes import ClassList, read_names, read_palette, read_synonyms, read_values
from tipsv2.labelled.legend import Legend
from tipsv2.labelled.panoptic import read_panoptic
from tipsv2.labelled.pictures import pictures as pictures_in
from tipsv2.labelled.place import ALL, PARTS, Address, Place, folders_of_lists, is_labelled, places, read_address

__all__ = ["ALL", "LabelledPictures", "Picture", "is_labelled", "open_labelled", "parts_of"]

LISTS = ("classes.tsv", "palette.tsv")
SYNONYMS = "synonyms.tsv"


@dataclass(frozen=True)
class LabelledPictures:
    """One part of an own set of labelled pictures."""

    name: str  # its address
    part: str  # "train", "val", "test", or "all" where it has no parts
    pictures: tuple[Picture, ...]  # by name
    legend: Legend
    synonyms: tuple[tuple[int, str], ...]  # class, another word for it
    unlabelled: float  # part of the pixels that no class is given to
    notes: tuple[str, ...]  # sentences about what is not as one may think

    @property
    def classes(self) -> tuple[str, ...]:
        return self.legend.classes.names

    def read(self, labels: Path) -> np.ndarray:
        """A label map, see `tipsv2.labelled.legend.Legend.read`."""
        return self.legend.read(labels)


def parts_of(data: str) -> tuple[str, ...]:
    """The parts that there are; ("all",) where there is one only. Raises ValueError where there is none."""
    return tuple(places(read_address(data)))


def open_labelled(data: str, part: str | None = None) -> LabelledPictures:
    """Open a part, by default that of the address, else the one to measure on: val, test, or what there is.

    Raises ValueError, one sentence, for what is missing, does not fit together, or has no name.
    """
    address = read_address(data)
    there = places(address)
    part = part or address.part or next(name for name in (*PARTS, ALL) if name in there)
    if part not in there:
        raise ValueError(f"'{data}' has no part '{part}': choose {' or '.join(there)}.")
    place = there[part]
    for folder in (place.images, place.labels):
        if not folder.is_dir():
            raise ValueError(f"there is no folder '{folder}', which '{data}' should have: check the path.")
    if place.panoptic is not None:
        legend, pictures = _panoptic(address, place, place.panoptic)
    else:
        legend, pictures = Legend(_class_list(address)), _pairs(place)
    if not pictures:
        raise ValueError(f"'{place.images}' holds no picture.")
    synonyms, left_out = _synonyms(address, legend.classes.names)
    unlabelled, notes = survey(pictures, legend)
    return LabelledPictures(str(data), part, pictures, legend, synonyms, unlabelled, (*notes, *left_out))


def _class_list(address: Address) -> ClassList:
    if address.palette:
        if address.first is not None or address.void:
            raise ValueError("first and void are of label maps with numbers: leave a colour without a name instead.")
        return read_palette(address.palette)
    if address.names:
        return read_names(address.names, address.first, address.void)
    folders = folders_of_lists(address)
    for folder in folders:
        files = [folder / name for name in LISTS if (folder / name).is_file()]
        if len(files) > 1:
            raise ValueError(f"'{folder}' has both {' and '.join(LISTS)}: keep the one that fits the label maps.")
        if files and files[0].name == LISTS[0]:
            if address.first is not None:
                raise ValueError(f"'{files[0]}' says the value of every name: leave first={address.first} out.")
            return read_values(files[0], address.void)
        if files:
            return read_palette(files[0])
    raise ValueError(
        f"'{folders[0]}' has neither classes.tsv (VALUE<tab>NAME a line) nor palette.tsv (R G B NAME a line) to say "
        "what the label maps show: write one, or name a list of names (--names FILE --first N --void N, or "
        f"{address},names=FILE,first=N,void=N)."
    )


def _pairs(place: Place) -> tuple[Picture, ...]:
    """Pictures with the label maps of their names, or of their names and one ending that all share (_mask, _L)."""
    images, labels = pictures_in(place.images), pictures_in(place.labels)
    first = next(iter(images), "")
    shared = {name[len(first) :] for name in labels if name.startswith(first)}
    ending = next(
        (candidate for candidate in sorted(shared) if all(f"{name}{candidate}" in labels for name in images)), ""
    )
    lost = [name for name in images if f"{name}{ending}" not in labels]
    _all_there(lost, len(images), place, lambda name: f"{name}.png")
    return tuple(Picture(name, image, labels[f"{name}{ending}"]) for name, image in images.items())


def _panoptic(address: Address, place: Place, file: Path) -> tuple[Legend, tuple[Picture, ...]]:
    if address.names or address.palette or address.first is not None:
        raise ValueError(f"'{file}' says what its labels are: leave the names, the palette and first out.")
    content = read_panoptic(file)
    images = pictures_in(place.images)
    stems = {label: Path(image).stem for label, image in content.images.items()}
    lost = [image for label, image in content.images.items() if stems[label] not in images]
    if lost:
        raise ValueError(
            f"'{file}' names {len(lost)} pictures that '{place.images}' lacks, such as "
            f"{', '.join(lost[:3])}: unpack them there."
        )
    there = {path.name for path in place.labels.iterdir()}
    _all_there([label for label in stems if label not in there], len(stems), place, str)
    classes = ClassList(content.names, tuple(range(len(content.names))), source=str(file))
    pictures = (Picture(stems[label], images[stems[label]], place.labels / label) for label in content.segments)
    return Legend(classes, content.segments), tuple(sorted(pictures, key=lambda picture: picture.name))


def _all_there(lost: Sequence[str], count: int, place: Place, file: Callable[[str], str]) -> None:
    if lost:
        raise ValueError(
            f"{len(lost)} of {count} pictures of '{place.images}' have no label map in '{place.labels}', such as "
            f"{', '.join(map(file, lost[:3]))}: put them there, or take the pictures away."
        )


def _synonyms(address: Address, names: Sequence[str]) -> tuple[tuple[tuple[int, str], ...], tuple[str, ...]]:
    """(class, word) of synonyms.tsv, where there is one, and a sentence about names that are no class's."""
    file = next((path for folder in folders_of_lists(address) if (path := folder / SYNONYMS).is_file()), None)
    if file is None:
        return (), ()
    place = {name.casefold(): k for k, name in enumerate(names)}
    synonyms = read_synonyms(file)
    rows = [(place[name.casefold()], word) for name, word in synonyms if name.casefold() in place]
    others = [name for name, _ in synonyms if name.casefold() not in place]
    if not others:
        return tuple(rows), ()
    shown = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
    return tuple(rows), (f"{SYNONYMS} has words for {shown}, which are none of the classes: they are left out.",)
