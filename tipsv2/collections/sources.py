"""Where rows of images with captions come from: a folder, a table, tar shards or the Hub, each one `datasets` data set.
folder:PATH is a set of labelled pictures (`tipsv2.labelled`), whose captions are written where there are none.

What is on this disk and has a row number (folders, CSV, TSV, JSONL, parquet) becomes a memory-mapped `Dataset`; what is
read from front to back (tars, the Hub) becomes an `IterableDataset` with its shards. `tipsv2.collections.pairs` gives
the rows their meaning.
"""

from __future__ import annotations

import csv
import glob
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tipsv2.collections.tar_samples import IMAGE_SUFFIXES, PROBLEM, read_samples
from tipsv2.collections.text_files import NAMES, SEPARATORS, decode, file_encoding, separator_of
from tipsv2.files import whole_file
from tipsv2.labelled.place import is_labelled, places, read_address

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset, IterableDataset

    from tipsv2.labelled.legend import Legend

TABLES = {".csv": "csv", ".tsv": "csv", ".jsonl": "json", ".parquet": "parquet"}
SPLITS = ("train", "val", "valid", "validation", "dev", "test")  # folders that `datasets` takes for these
TARS = (".tar", ".tar.gz", ".tgz")
WRITTEN = "written"  # the column of captions that label maps gave
ANNOTATIONS = r"captions_(?P<split>train|val|test)\d*\.json|dataset_(coco|flickr8k|flickr30k)\.json"
HUB_NAME = r"[\w.-]*\w/[\w.-]+"  # owner/name
HUB_TIMEOUT = 10  # seconds


@dataclass(frozen=True)
class Source:
    """Rows and how to read one: `expand` turns a row of `data` into column -> value, and never fails.

    `base` is the folder that relative paths in the rows start from; None where the rows come from the Hub.
    """

    name: str
    data: Dataset | IterableDataset
    base: Path | None
    expand: Callable[[dict], dict] = dict
    label_names: tuple[str, ...] = ()  # of a names.json beside tars, table or images: what a mask's values mean
    # a mask's file -> [H, W] places of names, -1 unlabelled
    read_labels: Callable[[Any], np.ndarray] | None = None
    notes: tuple[str, ...] = ()  # what was guessed or mended, a sentence each
    files: tuple[Path, ...] = ()  # that a stream is read from, where they are on this disk


def open_source(data: str | Path, split: str = "train", subset: str = "") -> Source:
    """The rows of `data`: see `tipsv2.collections.pairs.open_pairs`. Raises ValueError with the remedy where there are
    none.
    """
    name = str(data)
    check_place(name)
    if name.startswith("hf:"):
        return _hub(name.removeprefix("hf:"), split, subset)
    if is_labelled(name):
        return _labelled(name, split)
    path = Path(os.path.expanduser(name))
    if path.is_dir():
        return _folder(name, path, split)
    if path.is_file():
        return _files(name, [path], split)
    if glob.has_magic(name):
        paths = sorted(glob.glob(os.path.expanduser(name), recursive=True))
        return _files(name, [Path(p) for p in paths], split)
    return _hub(name, split, subset)


def check_place(data: str | Path) -> None:
    """Raises ValueError, one sentence, where `data` names nothing on this machine and can be no data set of the Hub.
    Nothing is read: for commands that would first load an encoder.
    """
    name = str(data)
    if is_labelled(name):
        places(read_address(name))
    elif not (name.startswith("hf:") or os.path.exists(os.path.expanduser(name))):
        if glob.has_magic(name):
            if next(glob.iglob(os.path.expanduser(name), recursive=True), None) is None:
                raise ValueError(
                    f"no file matches {name!r}: check the pattern, and quote it so that the shell leaves it."
                )
        elif not re.fullmatch(HUB_NAME, name):
            raise ValueError(
                f"there is no file or folder {name!r}: check the path, or write hf:owner/name for the Hub."
            )


def _folder(name: str, path: Path, split: str) -> Source:
    """What a folder is, in this order: saved by `datasets`; a metadata table with its images; COCO's tree; parts called
    train, test and so on, of which `split` is read; tar shards; parquet files; images, with their captions beside them
    or, where there is none at all, with the names of their folders. img2dataset's records beside its folders of files
    are passed over.
    """
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return _saved(name, path, split)
    for kind in ("csv", "jsonl", "parquet"):  # the ImageFolder convention of `datasets`
        if (path / f"metadata.{kind}").is_file():
            return _files(name, [path / f"metadata.{kind}"], split)
    if annotations := _annotations_in(path, split):
        source = _annotations(name, annotations, split)
        return replace(source, notes=(f"{name}: its captions are read from {annotations}.", *source.notes))
    if (there := sorted(p.name for p in path.iterdir() if p.is_dir())) and set(there) <= {*SPLITS}:
        if split not in there:
            raise ValueError(f"{name} has no folder {split}; it has {', '.join(there)}: set data.split to one of them.")
        if not _by_stem([p.name for p in path.iterdir()]).keys() - {"names", "README", "dataset_infos"}:
            inner = _folder(name, path / split, split)
            return replace(inner, notes=(f"{name} has the parts {', '.join(there)}: {split} is read.", *inner.notes))
    for suffixes in (TARS, (".parquet",)):
        files = sorted(p for level in ("*", "*/*") for p in path.glob(level) if p.name.endswith(suffixes))
        files = [p for p in files if not (p.parent / p.stem).is_dir()]  # img2dataset's records beside its files
        if files:
            return _files(name, files, split)
    return _images(name, path)


def _files(name: str, paths: list[Path], split: str) -> Source:
    if all(p.name.endswith(TARS) for p in paths):
        return _tars(name, paths)
    kinds = {p.suffix.lower() for p in paths}
    if kinds == {".json"} and len(paths) == 1:
        return _annotations(name, paths[0], split)
    if len(kinds) > 1 or not kinds <= TABLES.keys():
        raise ValueError(
            f"{name} is {' and '.join(sorted(kinds)) or 'a file without an ending'}: give a folder of images, a table "
            f"({', '.join(TABLES)}), captions as COCO has them (.json) or tar shards (.tar)."
        )
    return _table(name, paths, kinds.pop())


def _saved(name: str, path: Path, split: str) -> Source:
    """What `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote."""
    import datasets

    try:
        if (path / "dataset_dict.json").is_file():
            there = json.loads((path / "dataset_dict.json").read_text("utf-8"))["splits"]
            if split not in there:
                raise ValueError(f"it has no split {split!r}, but {', '.join(there)}: set data.split to one of them")
            path = path / split
        with _silence():
            data = datasets.load_from_disk(str(path))
    except Exception as error:  # of files that are missing, damaged or of another kind
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{name} cannot be read as a saved data set ({reason[:300]}).") from error
    return Source(name, data, path, label_names=_label_names(path))


def _annotations_in(path: Path, split: str) -> Path | None:
    """The file of captions in a folder that COCO or Karpathy packed; None where there is none. Raises ValueError where
    there are some, but none or several for the split.
    """
    there = sorted(
        file
        for folder in (path, path / "annotations")
        for file in (folder.iterdir() if folder.is_dir() else ())
        if re.fullmatch(ANNOTATIONS, file.name)
    )
    kinds = {file: named["split"] or split for file in there if (named := re.fullmatch(ANNOTATIONS, file.name))}
    fitting = [file for file, kind in kinds.items() if kind == split]
    if there and len(fitting) != 1:
        names = ", ".join(str(file) for file in there)
        raise ValueError(f"{path} has captions in {names}, {len(fitting)} of them for data.split={split}: give one.")
    return fitting[0] if fitting else None


def _annotations(name: str, path: Path, split: str) -> Source:
    """COCO's captions, or Karpathy's splits of COCO, Flickr30K and Flickr8K."""
    from datasets import Dataset, Features, Value

    from tipsv2.collections.caption_annotations import read_annotations

    read = read_annotations(path, split)
    kinds = Features({"image": Value("string"), "captions": [Value("string")]})
    data = Dataset.from_dict({"image": list(read.captions), "captions": list(read.captions.values())}, features=kinds)
    return Source(name, data, read.folder, label_names=_label_names(path.parent), notes=read.notes)


def _table(name: str, paths: list[Path], suffix: str) -> Source:
    bases = {p.resolve().parent for p in paths}
    if len(bases) > 1 and suffix != ".parquet":
        raise ValueError(f"{name} has tables in {len(bases)} folders, each with paths of its own: give one table.")
    options, notes = {}, []
    base = min(bases)
    if suffix != ".parquet":
        codecs = [file_encoding(p) for p in paths]
        notes += [
            f"{p} is {NAMES[c]}, not UTF-8: it is read as that."
            for p, c in zip(paths, codecs, strict=True)
            if c in NAMES
        ]
        paths = [_in_utf8(p, codec) for p, codec in zip(paths, codecs, strict=True)]
    if suffix in (".csv", ".tsv"):
        usual = "\t" if suffix == ".tsv" else ","
        separator = separator_of(paths[0], "utf-8", usual)
        if separator != usual:
            notes.append(f"{name}: its columns are parted by {SEPARATORS[separator]}.")
        options = _text_columns(paths[0], separator)
    data = _load(name, TABLES[suffix], paths, options)
    return Source(name, data, base, label_names=_label_names(base), notes=tuple(notes))


def _in_utf8(path: Path, codec: str) -> Path:
    """The file, or where it is not plain UTF-8 a copy of it in the cache of `datasets` that is."""
    if codec == "utf-8":
        return path
    import datasets

    known = path.stat()
    key = hashlib.sha256(f"{path.resolve()} {known.st_size} {known.st_mtime_ns} {codec}".encode()).hexdigest()[:16]
    copy = Path(datasets.config.HF_DATASETS_CACHE) / "utf-8" / f"{key}{path.suffix}"
    if not copy.is_file():
        with whole_file(copy) as part, path.open(encoding=codec, newline="") as read:
            with part.open("w", encoding="utf-8", newline="") as write:
                shutil.copyfileobj(read, write)
    return copy


def _text_columns(path: Path, separator: str) -> dict:
    """Every column as text: a caption may be a number, "NA" or "None"."""
    from datasets import Features, Value

    with path.open(encoding="utf-8", newline="") as file:
        header = next(csv.reader(file, delimiter=separator), [])
    if not header:
        raise ValueError(f"{path} is empty: its first line must name the columns.")
    features = Features({column: Value("string") for column in header})
    return {"sep": separator, "keep_default_na": False, "features": features, "encoding": "utf-8"}


def _load(name: str, kind: str, paths: list[Path], options: dict) -> Dataset:
    import datasets
    from datasets.exceptions import DatasetGenerationError

    files = [glob.escape(str(p.resolve())) for p in paths]
    try:
        with _silence():
            return datasets.load_dataset(kind, data_files=files, split="train", **options)
    except (DatasetGenerationError, ValueError, OSError) as error:
        if "no data" in str(error):
            raise ValueError(f"{name} is empty: it has no row.") from error
        reason = str(error.__cause__ or error).strip().splitlines()[0].rstrip(".")
        raise ValueError(f"{name} cannot be read as {kind}: {reason}.") from error


@contextmanager
def _silence() -> Iterator[None]:
    """No bars or warnings of `datasets` in the middle of a command's own output: what matters comes as a sentence."""
    import datasets

    datasets.logging.set_verbosity(logging.CRITICAL)
    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


def _images(name: str, path: Path) -> Source:
    """Images with NAME.txt, NAME.json or both beside them; the captions stay on disk until their row is read."""
    from datasets import Dataset, Features, Value

    columns: dict[str, list[str]] = {"image": [], "txt": [], "json": [], "mask": []}
    for folder, folders, files in os.walk(path):
        folders.sort()
        for stem, kinds in sorted(_by_stem(files).items()):
            images = [kinds[suffix] for suffix in IMAGE_SUFFIXES if suffix in kinds]
            if images:
                masks = [kinds[k] for k in ("mask.png", "label.png") if k in kinds]
                masks += [i for i in images[1:] if i.lower() == f"{stem.lower()}.png"]
                endings = {"image": images[0], "txt": kinds.get("txt"), "json": kinds.get("json")}
                for column, file in (endings | {"mask": masks[0] if masks else None}).items():
                    columns[column].append(os.path.relpath(os.path.join(folder, file), path) if file else "")
    if not columns["image"]:
        tables = ", ".join(sorted(p.name for p in path.iterdir() if p.suffix in TABLES)[:3])
        hint = f"; did you mean one of {tables}?" if tables else "."
        raise ValueError(f"{name} holds no images and no tar shards{hint}")
    columns = {column: files for column, files in columns.items() if any(files)}
    notes = ()
    if not {"txt", "json"} & columns.keys() and (classes := _class_names(columns["image"])):
        columns["caption"] = classes
        some = ", ".join(dict.fromkeys(classes[:: max(1, len(classes) // 200)]))
        notes = (
            f"{name} has no captions: the names of its {len(set(classes))} folders are taken for them ({some[:100]}).",
        )
    data = Dataset.from_dict(columns, features=Features({column: Value("string") for column in columns}))

    return Source(name, data, path, partial(_with_files, path), _label_names(path), notes=tuple(notes))


def _class_names(images: list[str]) -> list[str] | None:
    """For every image the name of its folder, in words; None where the folders are not named in words."""
    names = [os.path.basename(os.path.dirname(image)) for image in images]
    words = [re.sub(r"[_\W]+", " ", name).strip() for name in names]
    # img2dataset's parts, WordNet's ids, and what says where images lie and not what they show
    numbers = re.compile(r"[\d ]*|n\d{8}|(train|val|valid|validation|dev|test|images?|pictures|photos)[ \d]*", re.I)
    return words if len(set(words)) > 1 and not any(map(numbers.fullmatch, set(words))) else None


def _with_files(folder: Path, row: dict) -> dict:
    row = {k: v for k, v in row.items() if v}
    return _flat(row, lambda file: (folder / file).read_bytes())


def _labelled(name: str, split: str) -> Source:
    """The part called `split` of labelled pictures, or all of those without parts; captions as beside any images."""
    from datasets import Dataset, Features, Value

    from tipsv2.labelled import ALL, open_labelled, parts_of

    alone = parts_of(name) == (ALL,)
    labelled = open_labelled(name, read_address(name).part or (None if alone else split))
    folder = labelled.pictures[0].image.parent
    beside = _by_stem(os.listdir(folder))
    columns: dict[str, list[str]] = {
        "image": [picture.image.name for picture in labelled.pictures],
        "mask": [os.path.abspath(picture.labels) for picture in labelled.pictures],
    }
    columns |= {k: [beside[picture.image.stem].get(k, "") for picture in labelled.pictures] for k in ("txt", "json")}
    columns = {column: files for column, files in columns.items() if any(files)}
    data = Dataset.from_dict(columns, features=Features({column: Value("string") for column in columns}))
    expand = partial(_with_written, folder, labelled.legend)
    return Source(name, data, folder, expand, labelled.classes, labelled.legend.read, labelled.notes)


def _with_written(folder: Path, legend: Legend, row: dict) -> dict:
    """As `_with_files`, and a caption written from the label map where there is no txt."""
    from tipsv2.labelled.captions import caption

    flat = _with_files(folder, row)
    if not flat.get("txt"):
        try:
            flat[WRITTEN] = caption(legend.read(Path(row["mask"])), legend.classes.names)
        except (OSError, ValueError) as error:
            flat.setdefault(PROBLEM, str(error).rstrip("."))
    return flat


def _by_stem(files: list[str]) -> dict[str, dict[str, str]]:
    """file names -> stem -> ending -> name; X.mask.png and X.label.png belong to X."""
    stems: dict[str, dict[str, str]] = {}
    for file in sorted(files):
        stem, _, suffix = file.rpartition(".")
        if (inner := stem.rpartition(".")) and suffix.lower() == "png" and inner[2].lower() in ("mask", "label"):
            stem, suffix = inner[0], f"{inner[2]}.{suffix}"
        if stem and not file.startswith("."):
            stems.setdefault(stem, {})[suffix.lower()] = file
    return stems


def _tars(name: str, paths: list[Path]) -> Source:
    from datasets import IterableDataset

    data = IterableDataset.from_generator(read_samples, gen_kwargs={"shards": [str(p) for p in paths]})
    return Source(name, data, paths[0].parent, _flat, _label_names(paths[0].parent), files=tuple(paths))


def _flat(row: dict, read: Callable | None = None) -> dict:
    """A sample's txt as its lines and its json's fields as columns, as well as those of X.what.txt and X.what.json;
    `read` fetches what a row only names.
    """
    flat = dict(row)
    try:
        texts = [k for k in row if k.endswith((".txt", ".json"))]
        for kind in (k for k in ("txt", "json", *texts) if k in row):  # a txt still counts where the json is broken
            value = read(flat.pop(kind)) if read else flat.pop(kind)
            if isinstance(value, bytes):
                value = decode(value)
            if kind.endswith("txt"):
                flat[kind] = [line for line in (value or "").splitlines() if line.strip()]
            else:
                fields = json.loads(value) if isinstance(value, str) else value or {}
                flat = (fields if isinstance(fields, dict) else {"captions": fields}) | flat
    except (OSError, ValueError, RecursionError) as error:
        flat[PROBLEM] = f"its .{kind} cannot be read ({error})"
    return flat


def _label_names(folder: Path) -> tuple[str, ...]:
    try:
        names = json.loads((folder / "names.json").read_text("utf-8"))
    except (OSError, ValueError):
        return ()
    return tuple(map(str, names)) if isinstance(names, list) else ()


def _hub(name: str, split: str, subset: str) -> Source:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        HfApi().dataset_info(name, timeout=HUB_TIMEOUT)  # `datasets` itself goes on trying for half a minute
    except RepositoryNotFoundError:
        raise ValueError(
            f"there is no folder {name!r} here and no data set of this name on the Hub that you may read: check the "
            "name, or log in (hf auth login) if it is private or gated."
        ) from None
    except Exception as error:  # offline mode, no network, a server that fails: each library raises its own
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(
            f"there is no folder {name!r} here, and the Hub cannot be reached ({reason[0]}): check the path or the "
            "connection, or download the data set first and give its folder."
        ) from None
    return repository(name, split, subset)


def repository(name: str, split: str = "train", subset: str = "") -> Source:
    """The stream of a repository of the Hub, or of a local copy of one, as `datasets.load_dataset` reads it."""
    import datasets

    try:
        with _silence():
            data = datasets.load_dataset(name, subset or None, split=split, streaming=True)
    except Exception as error:  # anything from the network, the files or a config that must be chosen
        reason = " ".join(str(error).split())
        raise ValueError(f"{name}: {reason[:300]} (set data.subset=... and data.split=... to choose)") from error
    features = data.features or {}
    useless = [c for c, kind in features.items() if isinstance(kind, datasets.Audio | datasets.Video)]
    return Source(name, data.remove_columns(useless).decode(False) if features else data, None, _flat)
