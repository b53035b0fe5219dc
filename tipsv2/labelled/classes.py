"""What the values or colours of label maps mean: classes.tsv, a list of names, or a palette.

read_values("classes.tsv")                 # VALUE<tab>NAME a line
read_names("names.txt", first=1)           # a name a line, numbered from 1
read_palette("palette.tsv")                # 64 128 64 Animal, or #408040 Animal, or Animal,64,128,64
read_synonyms("synonyms.tsv")              # NAME<tab>another word for it a line
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tipsv2.analysis.label_maps import color_codes

TITLES = ("word", "words", "synonym", "synonyms")  # of the second column of other words for names
HIGHEST = 65535  # a label map has 16 bits at most
_RGB = r"(\d{1,3})[\s,;]+(\d{1,3})[\s,;]+(\d{1,3})"
COLOR_FIRST = re.compile(rf"(?:#([0-9a-fA-F]{{6}})|{_RGB})(?:[\s,;]+(.*))?")
NAME_FIRST = re.compile(rf"(.*?)[\s,;]+(?:#([0-9a-fA-F]{{6}})|{_RGB})")


@dataclass(frozen=True)
class ClassList:
    """Names, and the code of each in a label map: a number, or a colour as `tipsv2.analysis.label_maps.color_codes`
    has it.
    """

    names: tuple[str, ...]
    codes: tuple[int, ...]
    ignored: frozenset[int] = frozenset()  # codes that are not judged
    colors: bool = False
    source: str = ""  # the file, for sentences


def read_values(file: Path, void: Iterable[int] = ()) -> ClassList:
    """VALUE<tab>NAME a line, after a line of titles or none; a value without a name, or in `void`, is ignored.

    Raises ValueError naming the line that is something else, or what is there twice.
    """
    rows: list[tuple[int, str, int]] = []
    ignored = set(void)
    for number, line in _lines(file):
        value, tab, name = line.partition("\t")
        value = value.strip()
        if not value.isdecimal():
            if not rows and not ignored.difference(void) and tab:
                continue  # titles
            raise ValueError(f"'{file}', line {number}, is '{line.strip()[:60]}': write VALUE<tab>NAME.")
        if not tab and line.strip() != value:
            raise ValueError(f"'{file}', line {number}, is '{line.strip()[:60]}': write VALUE<tab>NAME.")
        if int(value) > HIGHEST:
            raise ValueError(f"'{file}', line {number}: {value} is more than a label map can hold, {HIGHEST}.")
        name = " ".join(name.split("\t")[0].split())
        if not name:
            ignored.add(int(value))
        else:
            rows.append((number, name, int(value)))
    return _class_list(file, [row for row in rows if row[2] not in ignored], ignored, "value", str)


def read_names(file: Path, first: int | None = None, void: Iterable[int] = ()) -> ClassList:
    """A name a line, numbered from `first` on (0 if it is None), or a file as `read_values` takes it.

    Raises ValueError naming what is there twice, or where both say what the numbers are.
    """
    lines = list(_lines(file))
    if len(lines) > 1 and all(re.match(r"\s*\d+\t", line) for _, line in lines[1:]):
        if first is not None:
            raise ValueError(f"'{file}' says the value of every name: leave first={first} out.")
        return read_values(file, void)
    ignored = set(void)
    for (before, _), (number, _) in itertools.pairwise(lines):
        if number != before + 1:  # left out, it would move all names after it
            raise ValueError(f"'{file}', line {before + 1}, is empty: write a name there, or take the line away.")
    rows = [(number, " ".join(line.split()), place) for place, (number, line) in enumerate(lines, first or 0)]
    return _class_list(file, [row for row in rows if row[2] not in ignored], ignored, "value", str)


def read_palette(file: Path) -> ClassList:
    """A colour and its name a line, in either order; a colour without a name is ignored.

    Raises ValueError naming the line that is something else, or what is there twice.
    """
    rows, ignored = [], set()
    for number, line in _lines(file):
        text = line.strip()
        if match := COLOR_FIRST.fullmatch(text):
            *color, name = match.groups()
        elif match := NAME_FIRST.fullmatch(text):
            name, *color = match.groups()
        elif number == 1 and not re.search(r"\d", text):
            continue  # titles
        else:
            raise ValueError(f"'{file}', line {number}, is '{text[:60]}': write R G B NAME or #RRGGBB NAME.")
        rgb = tuple(bytes.fromhex(color[0])) if color[0] else tuple(map(int, color[1:]))
        if max(rgb) > 255:
            raise ValueError(f"'{file}', line {number}: the colour {rgb} has more than 255.")
        code, name = int(color_codes(rgb)), " ".join((name or "").split())
        if name:
            rows.append((number, name, code))
        else:
            ignored.add(code)
    return _class_list(file, rows, ignored, "colour", color_text, colors=True)


def read_synonyms(file: Path) -> list[tuple[str, str]]:
    """NAME<tab>another word for it a line, after a line of titles or none -> (name, word) in order.

    Raises ValueError naming the file and the line that is something else.
    """
    rows = []
    for number, line in _lines(file):
        name, word = (" ".join(text.split()) for text in [*line.split("\t"), ""][:2])
        if number == 1 and name.casefold() == "name" and word.casefold() in TITLES:
            continue
        if not name or not word:
            raise ValueError(f"'{file}', line {number}, is '{line.strip()[:60]}': write NAME<tab>another word for it.")
        rows.append((name, word))
    return rows


def color_text(code: int) -> str:
    """A colour's code as people write it: "#40c080"."""
    return f"#{code:06x}"


def check_doubles(names: Iterable[str], source: str) -> None:
    """Raises ValueError where a name is there twice, in whatever case: two classes cannot be told apart by one."""
    seen = set()
    for name in names:
        if name.casefold() in seen:
            raise ValueError(f"'{source}' names '{name}' twice: give every class a name of its own.")
        seen.add(name.casefold())


def _lines(file: Path) -> list[tuple[int, str]]:
    """Lines with something in them, and their numbers."""
    try:
        text = Path(file).read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"'{file}' is not text in UTF-8: save it as such.") from None
    except OSError as error:
        raise ValueError(f"'{file}' cannot be read ({error.strerror or error}).") from error
    return [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]


def _class_list(
    file: Path,
    rows: Sequence[tuple[int, str, int]],
    ignored: Collection[int],
    what: str,
    shown: Callable[[int], str],
    colors: bool = False,
) -> ClassList:
    """rows: (line, name, code)."""
    if not rows:
        raise ValueError(f"'{file}' names no class: write a line for each.")
    seen: dict[int, str] = {}
    for number, name, code in rows:
        if code in seen:
            raise ValueError(
                f"'{file}', line {number}: the {what} {shown(code)} is both '{seen[code]}' and '{name}': keep one."
            )
        seen[code] = name
    check_doubles((name for _, name, _ in rows), str(file))
    return ClassList(
        tuple(name for _, name, _ in rows),
        tuple(code for _, _, code in rows),
        frozenset(ignored),
        colors,
        str(file),
    )
