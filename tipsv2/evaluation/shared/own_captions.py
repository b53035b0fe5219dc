"""Anybody's images with captions for retrieval: what `python -m train --data` takes, where it is no known layout.

    own = open_own("photos")                        # which column is what, which captions; nothing is read yet
    split, left_out = read_own(own, limit=100)

Captions have a role (`tipsv2.collections.pairs`), and one role is measured: short ones where there are some, else web,
else detailed. An image without any of that role is asked for by those it has, as in training. Rows that name the same
file, or hold the same bytes, are one image with several captions.

Tars and the Hub are streams: they are read once, up to the limit, and their images lie in an unnamed file on this disk
until they are needed.
"""

from __future__ import annotations

import glob
import hashlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from tipsv2.collections.pairs import FALLBACK, Pair, Pairs
from tipsv2.collections.parts import address, named_columns, open_named
from tipsv2.evaluation.layouts import SCENES, Split, is_known, names_of

PREFERRED = ("short", "web", "detailed")  # the first that the collection has is measured


@dataclass(frozen=True)
class Own:
    """A collection that is opened, and the role of the captions that are measured."""

    data: str
    pairs: Pairs
    role: str


@dataclass(frozen=True)
class OwnSample:
    """A `layouts.Sample` whose picture is opened each time it is asked for; role: of its captions."""

    name: str
    role: str
    captions: tuple[str, ...]
    open: Callable[[], Image.Image]

    @property
    def image(self) -> Image.Image:
        """Raises ImageError naming it where it cannot be opened."""
        return self.open()

    def truth(self) -> tuple[str, ...]:
        return self.captions


def is_own(task: str, data: str) -> bool:
    """Is this a collection of pairs for retrieval? A known layout is never one, whatever else its folder holds."""
    if task != "retrieval" or data.partition(":")[0] == SCENES or is_known(task, data):
        return False
    here = data.startswith("hf:") or glob.has_magic(data) or Path(data).expanduser().exists()
    return here or ("/" in data and ":" not in data)  # of the Hub, or a path that is wrong


def open_own(data: str, role: str | None = None, columns: Sequence[str] = ()) -> Own:
    """Open a collection for retrieval.

    role: "short", "web" or "detailed", default the first of them that it has.
    columns: "data.web=alt" and so on, where the columns' names do not say what they are.
    Raises ValueError, one sentence, where there are no images with captions, or none of that role.
    """
    try:
        pairs = open_named(data, named_columns(columns))
    except ValueError as error:
        if not Path(data).expanduser().is_dir():
            raise
        # Perhaps it was meant to be a benchmark, and lacks something.
        raise ValueError(
            f"{error} A data set with a tree of its own is LAYOUT:ROOT, of {names_of('retrieval')}."
        ) from None
    there = [name for name in PREFERRED if name in pairs.mapping]
    if role and role not in there:
        said = ", ".join(f"{name} (column {pairs.mapping[name]})" for name in there)
        raise ValueError(f"{data} has no {role} captions; it has {said}: choose one of these with --captions.")
    return Own(data, pairs, role or there[0])


def read_own(own: Own, limit: int | None = None) -> tuple[Split, dict[str, str]]:
    """All images that have a caption, and why others are left out: name -> sentence.

    limit: of a stream no more images than these are read; a collection with row numbers is read whole, so that what is
    kept of it is good for a larger limit, too.
    Raises ValueError where there is none, or where a stream breaks off.
    """
    pairs, stop = own.pairs, None if own.pairs.indexed else limit
    kept: dict[object, OwnSample] = {}
    left_out: dict[str, str] = {}
    names, spool = set(), _Spool()
    for row, pair in enumerate(pairs):
        role = next((role for role in FALLBACK[own.role] if pair.captions.get(role)), "")
        if pair.image is None or not role:
            left_out[pair.name] = (
                f"{pair.name}: {pair.problem or 'it has no ' + ('caption' if pair.image else 'image')}."
            )
            continue
        key = hashlib.sha256(pair.image).digest() if isinstance(pair.image, bytes) else pair.image
        if key in kept:
            texts = dict.fromkeys((*kept[key].captions, *pair.captions[role]))
            kept[key] = replace(kept[key], captions=tuple(texts))
            continue
        if stop is not None and len(kept) >= max(stop, 1):  # a limit under 1 is for `limited` to say
            break
        name = pair.name if pair.name not in names else f"{pair.name}, row {row + 1}"
        names.add(name)
        texts = tuple(dict.fromkeys(pair.captions[role]))
        kept[key] = OwnSample(name, role, texts, _picture(pairs, row, pair, spool))
    if not kept:
        why = next(iter(left_out.values()), "it is empty.")
        raise ValueError(f"{own.data} has no image with a caption: {why}")
    return Split("own", f"{own.role} of {address(own.data)}", list(kept.values())), left_out


def _picture(pairs: Pairs, row: int, pair: Pair, spool: _Spool) -> Callable[[], Image.Image]:
    """How to open a pair's image later, without holding its bytes."""
    if not isinstance(pair.image, bytes):
        return pair.open
    if pairs.indexed:
        return lambda: pairs[row].open()
    bare, read = replace(pair, image=None, mask=None), spool.add(pair.image)
    return lambda: replace(bare, image=read()).open()


class _Spool:
    """Bytes kept in an unnamed file, which goes when the last of its readers does."""

    def __init__(self) -> None:
        self._file, self._end = tempfile.TemporaryFile(), 0  # noqa: SIM115 (open as long as it has readers)

    def add(self, data: bytes) -> Callable[[], bytes]:
        """Keep them; returns what reads them again."""
        start, self._end = self._end, self._end + len(data)
        self._file.seek(start)
        self._file.write(data)

        def read() -> bytes:
            self._file.seek(start)
            return self._file.read(len(data))

        return read
