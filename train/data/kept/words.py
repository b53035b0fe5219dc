"""How a run on kept crops names things: every name in all its phrases, as rows of one table of sentence vectors.

A step says each name by one phrase in one frame, chosen anew, so that the bridge learns a region of the sentence
encoder's space and not a point. The vectors are computed once and kept beside the kept folders.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tipsv2.labelled.classes import read_synonyms
from train.data import sentence_vectors
from train.data.kept.folder import Kept
from train.data.kept.names import Table, read_excluded, read_table, said
from train.network.teachers import TextTeacher
from train.recipe.kept_settings import KeptCrops

FRAMES = (
    "a photo of a {}", "{}", "a photo of the {}", "a picture of a {}", "there is a {} in the scene", "itap of a {}.",
    "a bad photo of a {}.", "a photo of many {}.",
)  # fmt: skip
MOST = {"names": 9, "classes": 4, "groups": 3}  # phrases of a name
PLACE = "phrases"  # the folder beside the kept ones


class Listed:
    """A list of C names, each with its phrases as numbers of `Words.phrases`."""

    def __init__(self, bags: Sequence[Sequence[int]]):
        self.counts = torch.tensor([len(bag) for bag in bags])
        self.bags = torch.zeros(len(bags), int(self.counts.max()), dtype=torch.long)
        for k, bag in enumerate(bags):
            self.bags[k, : len(bag)] = torch.tensor(bag)

    def __len__(self) -> int:
        return len(self.counts)

    def choose(self, generator: torch.Generator, own: float) -> Tensor:
        """A row of `Words.sentences` for each name [C]: with probability `own` as it is listed, else any phrase."""
        by_itself, which, frame = torch.rand(3, len(self), generator=generator)
        place = torch.where(by_itself < own, torch.zeros(()), which * self.counts).long()
        phrase = self.bags.gather(1, place[:, None])[:, 0]
        return phrase * len(FRAMES) + (frame * len(FRAMES)).long()


@dataclass(frozen=True)
class Words:
    """lists: "0", "1", ... of the kept sets that have labels, "classes" and "groups" of the classifier.
    members [K, G]: 1 where a class is of a group. captions: by set, rows [M, 2] of its crops' captions for the two CLS.
    """

    phrases: list[str]
    captions_said: list[str]
    lists: dict[str, Listed]
    members: Tensor
    captions: dict[int, Tensor]

    @property
    def sentences(self) -> list[str]:
        """Row p * len(FRAMES) + t is phrase p in frame t; then come the captions."""
        return [frame.format(phrase) for phrase in self.phrases for frame in FRAMES] + self.captions_said

    @property
    def digest(self) -> str:
        return hashlib.sha256("\n".join(self.sentences).encode()).hexdigest()[:16]


def compose(sets: Sequence[Kept], settings: KeptCrops, captions: bool) -> Words:
    """The words for these kept sets. captions: whether their captions are said, too.

    Raises ValueError where soft names are kept and there is no table of names, or a file of words cannot be read.
    """
    table = read_table(Path(settings.names)) if settings.names else Table()
    more: dict[str, list[str]] = {}
    for name, word in read_synonyms(Path(settings.phrases)) if settings.phrases else ():
        more.setdefault(name.casefold(), []).append(word)
    excluded = read_excluded(Path(settings.exclude)) if settings.exclude else []
    phrases: dict[str, int] = {}

    def number(bag: Sequence[str]) -> list[int]:
        return [phrases.setdefault(phrase, len(phrases)) for phrase in bag]

    def bag(name: str, most: int, *words: str) -> list[int]:
        return number(said([name, *words, *more.get(name.casefold(), ())], excluded, most))

    lists = {
        str(k): Listed([bag(name, MOST["names"], *table.words_of(name)) for name in kept.names])
        for k, kept in enumerate(sets)
        if kept.names
    }
    members = torch.zeros(len(table.classes), 0)
    if any(kept.has("soft") or (kept.arrays["known"] >= 0).any() for kept in sets):
        if not table.classes:
            raise ValueError(
                "kept.names is empty, but the kept crops have names of a classifier: give its table of names, --names "
                "foundations/names.jsonl."
            )
        lists["classes"] = Listed([bag(entry.words[0], MOST["classes"], *entry.words[1:]) for entry in table.classes])
        groups = {}
        for key, classes in table.groups.items():
            words = [word for word in table.words_of_group(key) if said(["", word], excluded, 2)[1:]]
            if words:
                groups[key] = number(said(words, [], MOST["groups"])), classes
        if groups:
            lists["groups"] = Listed([numbers for numbers, _ in groups.values()])
        members = torch.zeros(len(table.classes), len(groups))
        for k, (_, classes) in enumerate(groups.values()):
            members[list(classes), k] = 1
    number_of: dict[str, int] = {}
    rows = {}
    if captions:
        start = len(phrases) * len(FRAMES)
        for k, kept in enumerate(sets):
            pairs = [_two(texts) for texts in kept.captions]
            if not any(text for pair in pairs for text in pair):
                continue
            numbers = [
                [start + number_of.setdefault(text, len(number_of)) if text else -1 for text in pair] for pair in pairs
            ]
            rows[k] = torch.tensor(numbers)
    return Words(list(phrases), list(number_of), lists, members, rows)


def vectors_of(words: Words, teacher: TextTeacher, beside: Path, show: bool = True) -> Tensor:
    """The teacher's vector of every sentence, of length one: float32 [R, W]; computed once and kept in a folder
    `beside` named by what is said.
    """
    place = beside / PLACE / words.digest
    return torch.from_numpy(sentence_vectors.teach(teacher, words.sentences, place, show=show).astype("float32"))


def _two(captions: dict[str, str]) -> tuple[str, str]:
    """The caption of the first CLS and of the second."""
    web = captions.get("web", "")
    return web, captions.get("detailed") or captions.get("short") or web
