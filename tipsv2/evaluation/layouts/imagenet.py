"""ImageNet's layout, which any classification set can take: a folder of images per class, for training and testing.

    python -m tipsv2 evaluate classification --data imagenet:/data/imagenet --model opentips-nano

The folders' names stand for the classes. What a class is called, for zero-shot prompts, says the first of: a
classnames.txt (a line per folder in alphabetical order, or FOLDER NAME), a LOC_synset_mapping.txt (Kaggle's: number
and synonyms, of which the first counts, or all of them where two classes share it), the folders' own names.
ImageNet's own synonyms leave "crane" twice; CLIP's curated names in a classnames.txt do not.

Samples come class by class in turn (the first image of every class, then the second), so that the first so many are
of as many classes as can be.
"""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from pathlib import Path

from tipsv2.collections.sources import IMAGE_SUFFIXES
from tipsv2.evaluation.layouts import Layout, Sample, Split, known
from tipsv2.evaluation.layouts.label_files import part_of
from tipsv2.labelled.annotations import Images, read_text

PARTS = ("val", "train", "test")
KAGGLE = "ILSVRC/Data/CLS-LOC"
WORDNET = re.compile(r"n\d{8}")


def open_folders(task: str, root: Path, part: str) -> Split:
    """PART/CLASS/*.jpg below the root."""
    folder = part_of(part, {name: root / name for name in PARTS if (root / name).is_dir()})
    return _split("imagenet", task, root, part, _in_folders(folder))


def open_kaggle(task: str, root: Path, part: str) -> Split:
    """Kaggle's archive: folders for training, one flat folder for validation with LOC_val_solution.csv."""
    folder = part_of(part, {name: root / KAGGLE / name for name in ("val", "train")})
    if part == "train":
        return _split("imagenet-kaggle", task, root, part, _in_folders(folder))
    path = root / "LOC_val_solution.csv"
    files: dict[str, list[str]] = {}
    images = Images(folder, path)
    for row in csv.DictReader(read_text(path).splitlines()):
        if not row.get("ImageId") or not row.get("PredictionString"):
            raise ValueError(f"'{path}' needs the columns ImageId and PredictionString in every row.")
        files.setdefault(row["PredictionString"].split()[0], []).append(images(f"{row['ImageId']}.JPEG").name)
    return _split("imagenet-kaggle", task, root, part, {name: (folder, files[name]) for name in sorted(files)})


def _in_folders(folder: Path) -> dict[str, tuple[Path, list[str]]]:
    """Folder of a class -> where its images are, and their names, in order."""
    if not folder.is_dir():
        raise ValueError(f"there is no folder '{folder}': a folder of images per class belongs there.")
    classes = {}
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.is_dir() and not entry.name.startswith("."):
            files = sorted(name for name in os.listdir(entry) if name.lower().endswith(IMAGE_SUFFIXES))
            if not files:
                raise ValueError(f"'{entry.path}' holds no image ({', '.join(IMAGE_SUFFIXES[:5])}, ...): remove it.")
            classes[entry.name] = (Path(entry.path), files)
    if not classes:
        raise ValueError(f"'{folder}' has no folders: it needs one per class, with its images.")
    return classes


def _split(layout: str, task: str, root: Path, part: str, files: dict[str, tuple[Path, list[str]]]) -> Split:
    classes = _names(root, list(files), task)
    turns = sorted((turn, number) for number, (_, names) in enumerate(files.values()) for turn in range(len(names)))
    places = list(files.items())
    samples = []
    for turn, number in turns:
        name, (folder, names) = places[number]
        samples.append(Sample(f"{part}/{name}/{names[turn]}", folder / names[turn], known(number)))
    return Split(layout, part, samples, classes)


def _names(root: Path, folders: list[str], task: str) -> tuple[str, ...]:
    """What the classes of `folders`, which are sorted, are called."""
    path = next((root / file for file in ("classnames.txt", "LOC_synset_mapping.txt") if (root / file).is_file()), None)
    if path is None:
        bare = next((folder for folder in folders if WORDNET.fullmatch(folder)), None)
        if task == "classification" and bare:
            raise ValueError(
                f"'{root}' has folders such as {bare}, but no classnames.txt or LOC_synset_mapping.txt to say what "
                f"they are: put one there."
            )
        return tuple(folder.replace("_", " ") for folder in folders)
    lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    split = [line.split(maxsplit=1) for line in lines]
    if path.name == "classnames.txt" and not {row[0] for row in split} & set(folders):
        if len(lines) != len(folders):
            raise ValueError(f"'{path}' names {len(lines)} classes, but there are {len(folders)} folders of images.")
        return tuple(lines)
    said = {row[0]: row[-1] for row in split}
    for lost, where in ((set(folders) - set(said), path), (set(said) - set(folders), "the folders of images")):
        if lost:
            more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
            raise ValueError(f"'{path}' and the folders of images do not match: {min(lost)}{more} is not in {where}.")
    if path.name == "classnames.txt":
        return tuple(said[folder] for folder in folders)
    first = Counter(said[folder].split(",")[0] for folder in folders)
    return tuple(
        said[folder] if first[said[folder].split(",")[0]] > 1 else said[folder].split(",")[0] for folder in folders
    )


_TASKS = ("classification", "knn", "probe")
_SOURCE = "https://www.kaggle.com/c/imagenet-object-localization-challenge or https://image-net.org (on request)"
LAYOUTS = (
    Layout(
        name="imagenet",
        title="ImageNet's folders",
        tasks=_TASKS,
        part="val",
        tree="  val/n01440764/ILSVRC2012_val_00000293.JPEG ...\n  train/n01440764/... (for knn and probe)\n"
        "  classnames.txt or LOC_synset_mapping.txt, unless the folders are called as the classes",
        source=_SOURCE,
        marks=("val",),
        open=open_folders,
    ),
    Layout(
        name="imagenet-kaggle",
        title="ImageNet as Kaggle packs it",
        tasks=_TASKS,
        part="val",
        tree=f"  {KAGGLE}/val/ILSVRC2012_val_00000001.JPEG ...\n  {KAGGLE}/train/n01440764/... (for knn and probe)\n"
        "  LOC_val_solution.csv\n  LOC_synset_mapping.txt",
        source=_SOURCE,
        marks=(f"{KAGGLE}/val", "LOC_val_solution.csv", "LOC_synset_mapping.txt"),
        open=open_kaggle,
    ),
)
