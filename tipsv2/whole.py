"""Files and folders that are there whole or not at all: written under another name, then renamed.

with whole_folder(Path("models/b14")) as part:
    model.save_pretrained(part)
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_folder(place: Path) -> Iterator[Path]:
    """Write into a folder beside `place`, then put it there in one rename, in the stead of what was there.

    After an error nothing is left behind. Raises OSError with one sentence where the disk does not take it.
    """
    part = part_of(place)
    shutil.rmtree(part, ignore_errors=True)
    try:
        with _sentence(place):
            part.mkdir(parents=True)
            yield part
            shutil.rmtree(place, ignore_errors=True)
            os.replace(part, place)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def part_of(place: Path) -> Path:
    """Where `whole_folder` has a folder written before it is at its place: for processes that write it together."""
    return place.with_name(f".{place.name}.part")


@contextmanager
def whole_file(place: Path) -> Iterator[Path]:
    """As `whole_folder` for one file: yields the path to write, each process its own."""
    part = place.with_name(f".{place.name}.{os.getpid()}.part")
    try:
        with _sentence(place):
            place.parent.mkdir(parents=True, exist_ok=True)
            yield part
            os.replace(part, place)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _sentence(place: Path) -> Iterator[None]:
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:  # safetensors reports a full disk as an error of its own
        if isinstance(error, OSError) and error.errno is None:  # a sentence already
            raise
        reason = getattr(error, "strerror", None) or error
        raise OSError(
            f"'{place}' could not be written ({reason}): make room on that disk or choose another place; nothing was "
            "left there."
        ) from error
