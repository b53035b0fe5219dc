"""Tables of names: the classes of an image classifier, the wider words they fall under, and other words for any name.

`python -m train foundations` writes both from WordNet: names.jsonl, a line a class (`index`, `name`, `lemmas`,
`hypernyms`: name and key, the nearest first), and beside it nouns.jsonl, a line a noun (`key`, `lemmas`, `hypernyms`:
keys), which may be missing. What a name of a label map means in WordNet is said in meanings.tsv, beside this file:
NAME<tab>sense key, for the names of COCO's panoptic classes and of CamVid.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

LARGEST = 0.42  # share of all classes that a group may hold: wider ones ("entity") say nothing
NOUNS = "nouns.jsonl"
MEANINGS = Path(__file__).with_name("meanings.tsv")


@dataclass(frozen=True)
class Entry:
    """A class or a noun: how it is called, the usual name first, and the keys of what it is a kind of."""

    words: tuple[str, ...]
    hypernyms: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """classes: by number. wider: key -> name of what classes are kinds of. nouns: key -> entry, of all of WordNet."""

    classes: tuple[Entry, ...] = ()
    wider: dict[str, str] | None = None
    nouns: dict[str, Entry] | None = None

    @cached_property
    def groups(self) -> dict[str, tuple[int, ...]]:
        """key -> the classes that are a kind of it, for what holds two classes or more and not nearly all of them."""
        members: dict[str, list[int]] = {}
        for number, entry in enumerate(self.classes):
            for key in entry.hypernyms:
                members.setdefault(key, []).append(number)
        most = LARGEST * len(self.classes)
        return {key: tuple(some) for key, some in members.items() if 2 <= len(some) <= most}

    def words_of_group(self, key: str) -> tuple[str, ...]:
        """How a wider word is called."""
        noun = (self.nouns or {}).get(key)
        return noun.words if noun else (self.wider[key],)

    def words_of(self, name: str) -> list[str]:
        """Other words for a name of a label map: its noun's, then the first word of each narrower noun; none where
        meanings.tsv does not say what it means and WordNet gives it several meanings, or none.
        """
        key = self._meanings.get(name.casefold()) or self._only_meaning.get(name.casefold())
        if not self.nouns or key not in self.nouns:
            return []
        narrower = [self.nouns[noun].words[0] for noun in self._narrower.get(key, ())]
        return [*self.nouns[key].words, *(word for word in narrower if not re.search("[A-Z]", word))]

    @cached_property
    def _meanings(self) -> dict[str, str]:
        return dict(line.split("\t") for line in MEANINGS.read_text("utf-8").splitlines())

    @cached_property
    def _only_meaning(self) -> dict[str, str]:
        meanings: dict[str, str] = {}
        for key, noun in (self.nouns or {}).items():
            for word in noun.words:
                meanings[word.casefold()] = "" if word.casefold() in meanings else key
        return meanings

    @cached_property
    def _narrower(self) -> dict[str, list[str]]:
        narrower: dict[str, list[str]] = {}
        for key, noun in self.nouns.items():
            for above in noun.hypernyms:
                narrower.setdefault(above, []).append(key)
        return narrower


def read_table(place: Path) -> Table:
    """names.jsonl, and nouns.jsonl where it lies beside. Raises ValueError for a file that is no such table."""
    classes, wider, nouns = [], {}, {}
    for line in _objects(place):
        try:
            if line["index"] != len(classes):
                raise ValueError(
                    f"'{place}', class {len(classes)}, has the index {line['index']}: make it again with python -m "
                    "train foundations."
                )
            above = {noun["key"]: noun["name"] for noun in line["hypernyms"]}
            words = dict.fromkeys([line["name"], *line["lemmas"]])
        except (KeyError, TypeError) as error:
            raise ValueError(f"'{place}' is no table of classes: line {len(classes) + 1} lacks {error}.") from error
        wider |= above
        classes.append(Entry(tuple(words), tuple(above)))
    if not classes:
        raise ValueError(f"'{place}' names no class.")
    beside = place.with_name(NOUNS)
    if beside.is_file():
        try:
            nouns = {n["key"]: Entry(tuple(n["lemmas"]), tuple(n["hypernyms"])) for n in _objects(beside)}
        except (KeyError, TypeError) as error:
            raise ValueError(f"'{beside}' is no table of nouns: a line lacks {error}.") from error
    return Table(tuple(classes), wider, nouns)


def _objects(place: Path) -> Iterator[dict]:
    try:
        for line in place.read_text("utf-8").splitlines():
            if line.strip():
                yield json.loads(line)
    except OSError as error:
        raise ValueError(f"'{place}' cannot be read ({error.strerror or error}): give a table of names.") from error
    except ValueError as error:
        raise ValueError(f"'{place}' is no table of names: every line must be an object.") from error


def read_excluded(place: Path) -> list[str]:
    """The last column of every line but a line of titles: words that no phrase may hold."""
    lines = [line.split("\t")[-1].strip() for line in _lines(place)]
    if lines and lines[0].casefold() in ("word", "words", "synonym"):
        lines = lines[1:]
    return list(dict.fromkeys(word for word in lines if word))


def said(words: list[str], excluded: list[str], most: int) -> list[str]:
    """`words` in lower case, each once, without those that hold an excluded word; the first stays; `most` in all."""
    forbidden = barring(excluded)
    lowered = list(dict.fromkeys(word.lower() for word in words))
    return [word for k, word in enumerate(lowered) if k == 0 or not forbidden(word)][:most]


def _lines(place: Path) -> list[str]:
    try:
        return [line for line in place.read_text("utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"'{place}' cannot be read ({getattr(error, 'strerror', None) or error}).") from error


def barring(exclude: Sequence[str]) -> Callable[[str], bool]:
    """Whether a text holds an excluded word."""
    if not exclude:
        return lambda text: False
    words = "|".join(re.escape(word.lower()) for word in sorted(exclude, key=len, reverse=True))
    pattern = re.compile(rf"(?<!\w)(?:{words})(?:s|es)?(?!\w)")
    return lambda text: bool(pattern.search(text.lower()))
