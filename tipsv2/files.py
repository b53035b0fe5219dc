"""Files and folders that are there whole or not at all: written under another name, then renamed.

with whole_folder(Path("models/b14")) as part:
    model.save_pretrained(part)
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_folder(place: Path) -> Iterator[Path]:
    """Write into a folder beside `place`, then put it there. What was there moves aside until the new folder has its
    name: whenever the process is killed, one of the two is complete, and `recover` gives it its name back.

    After an error what was there stays, and nothing else is left behind. Raises OSError with one sentence where the
    disk does not take it.
    """
    part = part_of(place)
    recover(place)
    shutil.rmtree(part, ignore_errors=True)
    try:
        with _sentence(place):
            part.mkdir(parents=True)
            yield part
            _exchange(part, place)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        recover(place)
        shutil.rmtree(_aside(place), ignore_errors=True)


def recover(place: Path) -> None:
    """Undo half of an exchange: where a writer was killed between its two renames, the earlier folder has its name
    again. Deletes nothing, so that whoever looks for a folder may call it.
    """
    if place.name and not os.path.isdir(place) and os.path.isdir(_aside(place)):
        try:
            os.rename(_aside(place), place)
        except OSError:
            if not os.path.isdir(place):  # else somebody was quicker
                raise


def _aside(place: Path) -> Path:
    return place.with_name(f".{place.name}.before")


def _exchange(part: Path, place: Path) -> None:
    while True:
        if place.exists():
            shutil.rmtree(_aside(place), ignore_errors=True)
            os.rename(place, _aside(place))
        try:
            os.rename(part, place)
            return
        except OSError as error:  # a reader has just recovered what was moved aside: once more
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise


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
