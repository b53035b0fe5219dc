"""Where rows of images with captions come from: a folder, a table, tar shards or the Hub, each one `datasets` data set.
folder:PATH is a set of labelled pictures (`tipsv2.labelled`), whose captions are written where there are none.

What is on this disk and has a row number (folders, CSV, TSV, JSONL, parquet) becomes a memory-mapped `Dataset`; what is
read from front to back (tars, the Hub) becomes an `IterableDataset` with its shards. `tipsv2.pairs` gives the rows
their meaning.
"""

from __future__ import annotations

import csv
import glob
import json
import logging
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tipsv2.labelled.place import is_labelled, read_address

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset, IterableDataset

    from tipsv2.labelled.legend import Legend

IMAGE_SUFFIXES = tuple("jpg jpeg webp avif png bmp tif tiff gif jp2 ppm".split())  # of one stem, the first is the image
TABLES = {".csv": "csv", ".tsv": "csv", ".jsonl": "json", ".parquet": "parquet"}
TARS = (".tar", ".tar.gz", ".tgz")
PROBLEM = "__problem__"  # a row that cannot be used says why in this column
WRITTEN = "written"  # the column of captions that label maps gave
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
    read_labels: Callable[[Path], np.ndarray] | None = None  # a mask's file -> [H, W] places of names, -1 unlabelled
    notes: tuple[str, ...] = ()  # sentences about what is not as one may think


def open_source(data: str | Path, split: str = "train", subset: str = "") -> Source:
    """The rows of `data`: see `tipsv2.pairs.open_pairs`. Raises ValueError with the remedy where there are none."""
    name = str(data)
    if name.startswith("hf:"):
        return _hub(name.removeprefix("hf:"), split, subset)
    if is_labelled(name):
        return _labelled(name, split)
    path = Path(os.path.expanduser(name))
    if path.is_dir():
        return _folder(name, path)
    if path.is_file():
        return _files(name, [path])
    if glob.has_magic(name):
        paths = [Path(p) for p in sorted(glob.glob(os.path.expanduser(name), recursive=True))]
        if not paths:
            raise ValueError(f"no file matches {name!r}: check the pattern, and quote it so that the shell leaves it.")
        return _files(name, paths)
    if re.fullmatch(r"[\w.-]*\w/[\w.-]+", name):
        return _hub(name, split, subset)
    raise ValueError(f"there is no file or folder {name!r}: check the path, or write hf:owner/name for the Hub.")


def _folder(name: str, path: Path) -> Source:
    for kind in ("csv", "jsonl", "parquet"):  # the ImageFolder convention of `datasets`
        if (path / f"metadata.{kind}").is_file():
            return _files(name, [path / f"metadata.{kind}"])
    for suffixes in (TARS, (".parquet",)):
        files = sorted(p for level in ("*", "*/*") for p in path.glob(level) if p.name.endswith(suffixes))
        if files:
            return _files(name, files)
    return _images(name, path)


def _files(name: str, paths: list[Path]) -> Source:
    if all(p.name.endswith(TARS) for p in paths):
        return _tars(name, paths)
    kinds = {p.suffix.lower() for p in paths}
    if len(kinds) > 1 or not kinds <= TABLES.keys():
        raise ValueError(
            f"{name} is {' and '.join(sorted(kinds)) or 'a file without an ending'}: give a folder of images, a table "
            f"({', '.join(TABLES)}) or tar shards (.tar)."
        )
    return _table(name, paths, kinds.pop())


def _table(name: str, paths: list[Path], suffix: str) -> Source:
    bases = {p.resolve().parent for p in paths}
    if len(bases) > 1 and suffix != ".parquet":
        raise ValueError(f"{name} has tables in {len(bases)} folders, each with paths of its own: give one table.")
    options: dict = {}
    if suffix in (".csv", ".tsv"):
        options = _text_columns(paths[0], "\t" if suffix == ".tsv" else ",")
    base = min(bases)
    return Source(name, _load(name, TABLES[suffix], paths, options), base, label_names=_label_names(base))


def _text_columns(path: Path, separator: str) -> dict:
    """Every column as text: a caption may be a number, "NA" or "None"."""
    from datasets import Features, Value

    csv.field_size_limit(10**9)
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        header = next(csv.reader(file, delimiter=separator), [])
    if not header:
        raise ValueError(f"{path} is empty: its first line must name the columns.")
    features = Features({column: Value("string") for column in header})
    return {"sep": separator, "keep_default_na": False, "features": features, "encoding": "utf-8-sig"}


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
                found = {"image": images[0], "txt": kinds.get("txt"), "json": kinds.get("json")}
                for column, file in (found | {"mask": masks[0] if masks else None}).items():
                    columns[column].append(os.path.relpath(os.path.join(folder, file), path) if file else "")
    if not columns["image"]:
        tables = ", ".join(sorted(p.name for p in path.iterdir() if p.suffix in TABLES)[:3])
        hint = f"; did you mean one of {tables}?" if tables else "."
        raise ValueError(f"{name} holds no images and no tar shards{hint}")
    columns = {column: files for column, files in columns.items() if any(files)}
    data = Dataset.from_dict(columns, features=Features({column: Value("string") for column in columns}))

    return Source(name, data, path, partial(_with_files, path), _label_names(path))


def _with_files(folder: Path, row: dict) -> dict:
    return _flat({k: v for k, v in row.items() if v}, lambda file: (folder / file).read_bytes())


def _labelled(name: str, split: str) -> Source:
    """The part called `split` of labelled pictures, or all of those without parts; captions as beside any images."""
    from datasets import Dataset, Features, Value

    from tipsv2.labelled import ALL, open_labelled, parts_of

    alone = parts_of(name) == (ALL,)
    found = open_labelled(name, read_address(name).part or (None if alone else split))
    folder = found.pictures[0].image.parent
    beside = _by_stem(os.listdir(folder))
    columns: dict[str, list[str]] = {
        "image": [picture.image.name for picture in found.pictures],
        "mask": [os.path.abspath(picture.labels) for picture in found.pictures],
    }
    columns |= {k: [beside[picture.image.stem].get(k, "") for picture in found.pictures] for k in ("txt", "json")}
    columns = {column: files for column, files in columns.items() if any(files)}
    data = Dataset.from_dict(columns, features=Features({column: Value("string") for column in columns}))
    expand = partial(_with_written, folder, found.legend)
    return Source(name, data, folder, expand, found.classes, found.legend.read, found.notes)


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

    data = IterableDataset.from_generator(_tar_rows, gen_kwargs={"shards": [str(p) for p in paths]})
    return Source(name, data, paths[0].parent, _flat, _label_names(paths[0].parent))


def _tar_rows(shards: list[str]) -> Iterator[dict]:
    """Files of one stem in a row are a sample (img2dataset, webdataset): ending -> bytes, and __key__ and __url__.

    `datasets` has a reader of its own ("webdataset"), which ends the whole stream at one broken json, at a sample that
    lacks a file, or at a shard that is cut off; here each is one row with a problem.
    """
    for shard in shards:
        row: dict = {}
        try:
            with tarfile.open(shard) as tar:
                for member in tar:
                    folder, _, file = member.name.rpartition("/")
                    stem, _, suffix = file.partition(".")
                    if not (member.isfile() and stem and suffix):
                        continue
                    key = f"{folder}/{stem}" if folder else stem
                    if row and row["__key__"] != key:
                        yield row
                        row = {}
                    row |= {"__key__": key, "__url__": shard, suffix.lower(): tar.extractfile(member).read()}
                tar.fileobj.seek(tar.offset)  # tarfile takes a broken or half header for the end
                rest = tar.fileobj.read(tarfile.BLOCKSIZE)
                if rest.strip(b"\0") or 0 < len(rest) < tarfile.BLOCKSIZE:
                    raise tarfile.ReadError("not a header")
        except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
            row = {"__key__": "", "__url__": shard}
            reason = str(error).splitlines()[0].rstrip(":")
            row[PROBLEM] = f"it is truncated or damaged ({reason}): the rest of it cannot be read"
        if row:
            yield row


def _flat(row: dict, read: Callable | None = None) -> dict:
    """A sample's txt as its lines and its json's fields as columns; `read` fetches what a row only names."""
    flat = dict(row)
    try:
        for kind in (k for k in ("txt", "json") if k in row):  # a txt still counts where the json is broken
            value = read(flat.pop(kind)) if read else flat.pop(kind)
            if isinstance(value, bytes):
                value = value.decode("utf-8", "replace")
            if kind == "txt":
                flat["txt"] = [line for line in (value or "").splitlines() if line.strip()]
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
