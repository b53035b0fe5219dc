"""Tar shards -> samples: files of one name in a row (webdataset, img2dataset), bounded in memory whatever a tar says.

A member `a.b.jpg` may be ending b.jpg of sample a, as webdataset reads it (x.input.jpg beside x.outputs.txt), or image
a.b (beside a.b.txt): the first members of a shard tell.
"""

from __future__ import annotations

import shlex
import tarfile
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import groupby, islice
from pathlib import Path

PROBLEM = "__problem__"  # a row that cannot be used says why in this column
IMAGE_SUFFIXES = tuple("jpg jpeg webp avif png bmp tif tiff gif jp2 ppm".split())  # of one stem, the first is the image
TEXT_SUFFIXES = ("txt", "json")
MASKS = ("mask", "label", "seg")  # X.mask.png belongs to X, whatever else dots mean
PEEKED = 64  # members that a shard's way of naming is told from
APART = (
    "the files of its samples lie apart, and a tar is read from front to back: sort it with mkdir unpacked && tar -xf "
    "{tar} -C unpacked && tar --sort=name -cf {sorted} unpacked"
)
MOST_BYTES = 512 * 1024**2  # of a sample


def read_samples(shards: Sequence[str]) -> Iterator[dict]:
    """ending -> bytes of every sample, with __key__ and __url__; a problem is a row with PROBLEM.

    `datasets` has a reader of its own ("webdataset"), which ends the whole stream at one broken json, at a sample that
    lacks a file, or at a shard that is cut off; here each is one row with a problem.
    """
    for shard in shards:
        row: dict = {}
        try:
            dotted = _peek(shard)
            with tarfile.open(shard) as tar:
                for member in tar:
                    if not _in_a_sample(member):
                        continue
                    key, ending = _named(member, dotted)
                    if row and row["__key__"] != key:
                        yield row
                        row = {}
                    row |= {"__key__": key, "__url__": shard}
                    held = sum(len(value) for value in row.values() if isinstance(value, bytes))
                    if member.issparse() or held + member.size > MOST_BYTES:
                        size = "a sparse file" if member.issparse() else f"{member.size / 1e9:.1f} GB"
                        row[PROBLEM] = f"its .{ending} is {size}, which is not read from a tar"
                    elif file := tar.extractfile(member):
                        row[ending] = file.read()
                tar.fileobj.seek(tar.offset)  # tarfile takes a broken or half header for the end
                rest = tar.fileobj.read(tarfile.BLOCKSIZE)
                if rest.strip(b"\0") or 0 < len(rest) < tarfile.BLOCKSIZE:
                    raise tarfile.ReadError("not a header")
        except _Apart as error:
            row = {"__key__": "", "__url__": shard, PROBLEM: str(error)}
        except (tarfile.TarError, OSError, EOFError, zlib.error, MemoryError, OverflowError) as error:
            row = {"__key__": "", "__url__": shard}
            reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(":")
            row[PROBLEM] = f"it is truncated or damaged ({reason}): the rest of it cannot be read"
        if row:
            yield row


class _Apart(Exception):
    """The files of a sample lie apart."""


def _sorting(shard: str) -> str:
    """APART with the names of this tar: the sorted one lies in the folder where the command runs."""
    stem = Path(shard).name.partition(".")[0]
    return APART.format(tar=shlex.quote(shard), sorted=shlex.quote(f"{stem}-sorted.tar"))


def _in_a_sample(member: tarfile.TarInfo) -> bool:
    """Is the member a file of a sample?"""
    stem, _, ending = member.name.rpartition("/")[2].partition(".")
    return bool(member.isfile() and stem and ending)


def _named(member: tarfile.TarInfo, dotted: bool) -> tuple[str, str]:
    """(key of the sample, ending in lower case) of a member that is `_in_a_sample`."""
    folder, _, file = member.name.rpartition("/")
    stem, _, ending = file.partition(".")
    if dotted:
        parts = file.split(".")
        cut = 2 if len(parts) > 2 and parts[-2].lower() in MASKS else 1
        stem, ending = ".".join(parts[:-cut]), ".".join(parts[-cut:])
    return f"{folder}/{stem}" if folder else stem, ending.lower()


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members that are files of samples, up to where the tar is damaged: reading it will say so."""
    try:
        yield from (member for member in tar if _in_a_sample(member))
    except (tarfile.TarError, OSError, EOFError, zlib.error):
        return


def _peek(shard: str) -> bool:
    """Are dots part of the samples' names? Raises _Apart where an image's text is not beside it."""
    with tarfile.open(shard) as tar:
        members = _members(tar)
        first = list(islice(members, PEEKED))
        inner: dict[str, dict[str, set[str]]] = defaultdict(
            lambda: defaultdict(set)
        )  # key by the first dot -> what is between the dots -> endings
        for member in first:
            key, ending = _named(member, False)
            middle, _, suffix = ending.rpartition(".")
            inner[key][middle].add(suffix)
        dotted = any(
            middle
            and middle not in MASKS
            and endings & set(IMAGE_SUFFIXES)
            and (endings & set(TEXT_SUFFIXES) or (len(inner) == 1 and len(middles) > 2))
            for middles in inner.values()
            for middle, endings in middles.items()
        )
        runs = [key for key, _ in groupby(_named(member, dotted)[0] for member in first)]
        if len(runs) > len(set(runs)):
            raise _Apart(_sorting(shard))
        kinds = {_named(member, dotted)[1].rpartition(".")[2] for member in first}
        if len(first) < 2 or not (kinds <= set(IMAGE_SUFFIXES) or kinds <= set(TEXT_SUFFIXES)):
            return dotted
        keys = {_named(member, dotted)[0] for member in first}
        for member in members:  # headers alone, which an uncompressed tar lets one skip through
            key, ending = _named(member, dotted)
            suffix = ending.rpartition(".")[2]
            if key in keys and (suffix in TEXT_SUFFIXES) != (kinds <= set(TEXT_SUFFIXES)):
                raise _Apart(_sorting(shard))
    return dotted
