"""Behind the Train tab: an uploaded zip of images with captions, judged by its directory before a byte is unpacked.

    summary = look("photos.zip")            # ValueError, one sentence, for anything that should not be unpacked
    source = unpack("photos.zip", folder)   # what `python -m train --data` takes

Captions: NAME.txt or NAME.json beside NAME.jpg, or one table (.csv .tsv .jsonl) with a column of file names. Everything
else in the zip is left where it is. That its rows name only its own files is held where they are read: such data are
trained on with data.confined=true. Here only what is plainly another file's name is refused at once, by its letters
alone: whether there is such a file on this machine is nothing a visitor should learn.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tipsv2.collections.sources import IMAGE_SUFFIXES

MAX_FILES = 50_000
MAX_BYTES = 4_000_000_000  # unpacked
MAX_RATIO = 100  # unpacked size over packed: pictures hardly shrink, captions to a tenth
SMALL = 50_000_000  # bytes unpacked below which the ratio does not matter
MAX_DIRECTORY = 30_000_000  # bytes of the list of files, which is read as a whole
TABLES = ("csv", "tsv", "jsonl")
SIDECARS = ("txt", "json")
FAULTS = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError, ValueError)


@dataclass(frozen=True)
class Summary:
    """What a zip holds: its images, how many have a caption beside them, and the table that names them, if there is
    one.
    """

    images: int
    captioned: int
    table: str
    num_bytes: int
    entries: tuple[tuple[str, zipfile.ZipInfo], ...]  # name inside the data folder, place in the zip

    @property
    def pairs(self) -> int:
        """Pairs there may be at most: a table's rows are counted when it is read."""
        return self.images if self.table else self.captioned


def look(path: str | Path, name: str = "") -> Summary:
    """Judge a zip file. name: what the visitor calls it. Raises ValueError: one sentence on what is wrong with it."""
    name = name or Path(path).name
    try:
        with _Bounded(io.FileIO(path)) as file, zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
    except _TooLong:
        raise ValueError(_too_many(name)) from None
    except zipfile.BadZipFile:
        raise ValueError(f"{name} is damaged or no zip file: pack it again.") from None
    except OSError:
        raise ValueError(f"{name} is no longer there: upload it again.") from None
    except (NotImplementedError, ValueError):  # a version of the format, or letters, that Python does not know
        raise ValueError(f"{name} cannot be read: pack it again, as a plain zip.") from None
    return _judge(infos, name)


def unpack(path: str | Path, folder: Path, name: str = "") -> Path:
    """Write what `look` accepts under `folder`; returns the folder or table to train on. Raises ValueError."""
    name = name or Path(path).name
    summary = look(path, name)
    try:
        with zipfile.ZipFile(path) as archive:
            for place, entry in summary.entries:
                target = folder / place
                target.parent.mkdir(parents=True, exist_ok=True)
                # A zip's reader stops at the size its directory gives, which `look` has added up.
                with archive.open(entry) as packed, target.open("wb") as file:
                    while part := packed.read(1 << 20):
                        file.write(part)
    except FAULTS as error:
        message = getattr(error, "strerror", None) or str(error)  # an OSError's own text names the machine's folders
        reason = message.splitlines()[0] if message else type(error).__name__
        raise ValueError(f"{name} cannot be unpacked ({reason}): pack it again.") from None
    _refuse_outside(folder, name)
    return folder / summary.table if summary.table else folder


class _TooLong(Exception):
    """The list of files is longer than anybody needs."""


class _Bounded(io.BufferedReader):
    """`zipfile` reads the directory whole and makes an object of every entry: of a long one not a byte is read."""

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > MAX_DIRECTORY:
            raise _TooLong
        return super().read(size)


def _judge(infos: list[zipfile.ZipInfo], name: str) -> Summary:
    if len(infos) > 2 * MAX_FILES:
        raise ValueError(_too_many(name))
    kept: list[tuple[str, zipfile.ZipInfo]] = []
    for info in infos:
        place = info.filename.replace("\\", "/")
        parts = PurePosixPath(place).parts
        if place.startswith("/") or ".." in parts or any(re.match(r"[A-Za-z]:", part) for part in parts):
            raise ValueError(
                f"{name} holds '{place[:80]}', a name that points outside the folder it is unpacked into: pack it "
                "again from inside its folder."
            )
        if stat.S_ISLNK(info.external_attr >> 16):
            raise ValueError(f"{name} holds '{place[:80]}', a link: pack the files themselves.")
        if info.flag_bits & 1:
            raise ValueError(f"{name} is locked by a password: pack it again without one.")
        if info.is_dir() or any(part.startswith((".", "__MACOSX")) for part in parts):
            continue
        if _suffix(place) in (*IMAGE_SUFFIXES, *TABLES, *SIDECARS):
            kept.append(("/".join(parts), info))  # of "a//b" no "/b" is left when the folder "a" is taken off
    if len(kept) > MAX_FILES:
        raise ValueError(_too_many(name))
    total, packed = sum(info.file_size for _, info in kept), sum(info.compress_size for _, info in kept)
    if total > MAX_BYTES or total > SMALL and total > MAX_RATIO * packed:
        raise ValueError(
            f"{name} would unpack to {total / 1e9:.1f} GB from {packed / 1e6:.1f} MB: give {MAX_BYTES / 1e9:.0f} GB "
            f"at most, or packed {MAX_RATIO} times at most; larger collections go as a folder or from the Hub."
        )
    return _count(_inside(kept), total, name)


def _inside(kept: list[tuple[str, zipfile.ZipInfo]]) -> list[tuple[str, zipfile.ZipInfo]]:
    """Without the one folder around everything that packing a folder leaves."""
    while kept and all("/" in place for place, _ in kept) and len({place.split("/", 1)[0] for place, _ in kept}) == 1:
        kept = [(place.split("/", 1)[1], info) for place, info in kept]
    return kept


def _count(kept: list[tuple[str, zipfile.ZipInfo]], total: int, name: str) -> Summary:
    stems: dict[str, set[str]] = {}
    for place, _ in kept:
        stem, _, suffix = place.rpartition(".")
        stems.setdefault(stem, set()).add(suffix.lower())
    pictured = [kinds for kinds in stems.values() if kinds & set(IMAGE_SUFFIXES)]
    captioned = sum(bool(kinds & set(SIDECARS)) for kinds in pictured)
    tables = [place for place, _ in kept if _suffix(place) in TABLES and "/" not in place]
    tables = [place for place in tables if place.startswith("metadata.")] or tables
    table = tables[0] if len(tables) == 1 and (not captioned or tables[0].startswith("metadata.")) else ""
    if not pictured:
        raise ValueError(f"{name} holds no images ({', '.join(IMAGE_SUFFIXES[:5])}, ...): pack pictures with captions.")
    if not captioned and not table:
        raise ValueError(
            f"{name} has {len(pictured)} images and no captions: put NAME.txt beside NAME.jpg, or one table such as "
            "captions.csv with the columns file_name and caption."
        )
    if max(captioned, len(pictured) if table else 0) < 2:
        raise ValueError(
            f"{name} has one image with a caption, and a pair is learned by contrast with others: give at least two."
        )
    return Summary(len(pictured), captioned, table, total, tuple(kept))


def _refuse_outside(folder: Path, name: str) -> None:
    """A table or a json that plainly names an image outside the zip is a mistake to be told of before training."""
    for path in sorted(file for file in folder.rglob("*") if file.suffix.lower().lstrip(".") in (*TABLES, "json")):
        try:
            outside = next((text for text in _texts(path) if _leaves(text, path.parent, folder)), None)
        except (ValueError, RecursionError, csv.Error, OSError):  # other readers may get further
            plain = "one object a line" if path.suffix.lower() == ".jsonl" else "as plain as can be"
            raise ValueError(f"{name}: {path.name} cannot be read: write it again, {plain}.") from None
        if outside is not None:
            raise ValueError(f"{name}: {path.name} names the file '{outside[:80]}', which is not in the zip.")


def _leaves(text: str, base: Path, folder: Path) -> bool:
    """Whether a text of a table in `base` reads as the path of an image that is not in `folder`, there or not."""
    if text.startswith("\\\\"):  # another machine
        return True
    return _suffix(text) in IMAGE_SUFFIXES and not Path(os.path.normpath(base / text)).is_relative_to(folder)


def _texts(path: Path) -> Iterator[str]:
    """Every text in a table or json. Raises what reading raises, except on a json that is none: training reads those in
    the same way, and tells.
    """
    csv.field_size_limit(10**9)  # as in tipsv2.collections.sources
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        if path.suffix.lower() in (".csv", ".tsv"):
            for row in csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ","):
                yield from row
        elif path.suffix.lower() == ".jsonl":
            for text in file:
                yield from _strings(json.loads(text)) if text.strip() else ()
        else:
            with suppress(ValueError):
                yield from _strings(json.loads(file.read()))


def _strings(value) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for entry in value.values() if isinstance(value, dict) else value:
            yield from _strings(entry)


def _suffix(place: str) -> str:
    return place.rpartition(".")[2].lower()


def _too_many(name: str) -> str:
    return f"{name} holds more than {MAX_FILES:,} files: larger collections go as a folder or from the Hub."
