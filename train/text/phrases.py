"""What a text tower is taught: a large set of phrases, most of which name things that can be seen.

Names (WordNet's nouns, tables of names) alone and in the frames that people and benchmarks put around them, several
names in a sentence, dictionary definitions, captions of the bundled scenes; and names that must be exact ("emphasis")
in every frame that segmentation uses. Some are kept apart to ask afterwards: names held out, and words excluded.
"""

from __future__ import annotations

import json
import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tipsv2 import scenes
from tipsv2.prompts import TEMPLATES
from train.data.kept.names import barring
from train.text.multilingual import sentence

ROOT = "physical entity"  # in WordNet: what can be seen is a kind of it
ASKED = "a photo of a {}"  # what a name is asked in that is held out or excluded
FRAMES = (  # beside the sets of tipsv2.prompts
    "a {}", "the {}", "{}s", "some {}", ASKED, "a photo of a {}.", "a photo of {}", "a picture of the {}",
    "a picture of a {}", "an image of a {}", "there is a {} in the photo", "a close-up of a {}", "a red {}",
    "a blue {}", "a green {}", "a white {}", "a black {}", "a wooden {}", "a small {}", "a big {}", "an old {}",
    "a {} outdoors", "a {} in the background",
)  # fmt: skip
SEVERAL = (
    "{} and {}", "a {} and a {}", "a {} on a {}", "a {} next to a {}", "a {} in front of a {}", "a {} with a {}",
    "a photo of a {} and a {}", "a photo of {}, {} and {}", "{}, {}, {}", "a {} under a {}", "a {} behind a {}",
    "a {} without a {}", "{} or {}", "{} on {}", "a {} in the {}",
)  # fmt: skip
SHARES = {"name": 0.3, "framed": 0.4, "several": 0.1, "gloss": 0.1, "scene": 0.05, "emphasised": 0.05}
HELD_OUT = 2000  # names, and at most one in ten
COMMON = 2  # the framed name of rank u ** COMMON of all: names people use come oftener than species


@dataclass
class Dictionary:
    """Names, the most visible and most common first, each once, and definitions."""

    names: list[str] = field(default_factory=list)
    visible: int = 0  # how many of them, from the first on, name what can be seen
    glosses: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Phrases:
    """The phrases of a training, each once over all of it: what is taught, and what is asked at the end."""

    taught: list[str]
    emphasised: list[str]
    held_out: list[str]  # ASKED of names that no taught phrase was made from
    excluded: list[str]  # ASKED of the excluded words

    @property
    def all(self) -> list[str]:
        return [*self.taught, *self.emphasised, *self.held_out, *self.excluded]


def read_names(place: Path) -> list[str]:
    """The names of a file: lines of a .txt, the column `name` of a .tsv, `name` and `lemmas` of a .jsonl; each once.

    Raises ValueError if it cannot be read or holds none.
    """
    return _unique(name for row in _rows(place) for name in _names(row))


def read_dictionary(places: Sequence[Path], tokens: Callable[[list[str]], list[list[int]]]) -> Dictionary:
    """WordNet's nouns (nouns.jsonl of `python -m train foundations`) and files of names as one dictionary.

    tokens: the token numbers of each text. Files of names come before WordNet, in it things (whatever is a kind of
    physical entity) before ideas, and what is written with a capital last; among equals come those whose words are
    whole tokens, the lower their numbers the earlier: trained tokenizers number them by how often they are written.
    Raises ValueError, naming the place, where one cannot be read.
    """
    names: dict[str, int] = {}
    glosses: dict[str, None] = {}
    for place in places:
        rows = _rows(place)
        things = _things(rows, place)
        for row in rows:
            glosses[row.get("gloss") or ""] = None
            for name in _names(row):
                kind = 0 if things is None else 1 + (row["key"] not in things) + 2 * (name != name.lower())
                names[name] = min(names.get(name, kind), kind)
    listed = list(names)
    read = dict(zip(listed, tokens(listed), strict=True))

    def rank(name: str) -> tuple:
        return names[name], len(read[name]) - len(re.findall(r"\w+|[^\w\s]", name)), max(read[name], default=0)

    visible = sum(kind <= 1 for kind in names.values())
    return Dictionary(sorted(listed, key=rank), visible, [gloss for gloss in glosses if gloss])


def compose(
    dictionary: Dictionary, emphasis: Sequence[str], exclude: Sequence[str], count: int, seed: int = 0
) -> Phrases:
    """About `count` phrases of `dictionary` and the scenes, and those of `emphasis`, all different.

    Phrases in which a word or phrase of `exclude` stands (as whole words, also with a plural s) are left out, names
    with one altogether; only definitions may hold them, as in a dictionary that does not know what will be asked.
    """
    rng = random.Random(seed)
    barred = barring(exclude)
    emphasis = [name for name in emphasis if not barred(name)]
    visible = [name for name in dictionary.names[: dictionary.visible] if not barred(name)]
    free = sorted(set(visible) - set(emphasis))
    held = set(rng.sample(free, min(HELD_OUT, len(free) // 10)))
    visible = [name for name in visible if name not in held]
    rest = [name for name in dictionary.names[dictionary.visible :] if not barred(name)]
    asked = {"held_out": _unique(ASKED.format(name) for name in sorted(held)), "excluded": _asked(exclude)}
    emphasised = _unique(frame.replace("{}", name) for name in emphasis for frame in _exact_frames(rng))
    taken = {*emphasised, *asked["held_out"], *asked["excluded"]}
    kinds = {kind: round(share * count) for kind, share in SHARES.items()}
    nouns = scenes.nouns()
    every = [*FRAMES, *TEMPLATES["tips9"], *TEMPLATES["clip80"]]

    def common(some: Sequence[str]) -> str:
        return some[int(len(some) * rng.random() ** COMMON)]

    def several(some: Sequence[str]) -> str:
        frame = rng.choice(SEVERAL)
        return frame.format(*(common(some) for _ in range(frame.count("{}"))))

    taught: dict[str, None] = {}

    def teach(texts: Iterable[str]) -> None:
        taught.update(dict.fromkeys(text for text in texts if text not in taken and not barred(text)))

    teach([*visible, *rest][: kinds["name"]])
    if visible:
        teach(rng.choice(every).replace("{}", common(visible)) for _ in range(kinds["framed"]))
        teach(several(visible) for _ in range(kinds["several"]))
    if emphasis:
        teach(several(emphasis) for _ in range(kinds["emphasised"]))
    scenery = (sentence(rng.random(), nouns, rng.choice(("web", "short", "detailed"))) for _ in range(kinds["scene"]))
    teach(scenery)
    glosses = rng.sample(dictionary.glosses, min(kinds["gloss"], len(dictionary.glosses)))
    taught.update(dict.fromkeys(gloss for gloss in glosses if gloss not in taken))
    return Phrases(list(taught), emphasised, **asked)


def _exact_frames(rng: random.Random) -> list[str]:
    """The frames of an emphasised name: those it is asked in most, and some of the many that are averaged."""
    return ["{}", ASKED, "a {}", *rng.sample(TEMPLATES["tips9"], 3), *rng.sample(TEMPLATES["clip80"], 2)]


def _asked(exclude: Sequence[str]) -> list[str]:
    return _unique(ASKED.format(word) for word in exclude)


def _unique(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def _things(rows: Sequence[dict], place: Path) -> set[str] | None:
    """The keys of a WordNet's rows that are a kind of physical entity; None for a table that is not WordNet's.

    Raises ValueError, naming the place, where such a row does not say what it is a kind of.
    """
    todo = [row.get("key") for row in rows if ROOT in row.get("lemmas", ())]
    if not todo:
        return None
    narrower = defaultdict(list)
    for number, row in enumerate(rows, 1):
        if not isinstance(row.get("key"), str) or not isinstance(row.get("hypernyms"), list):
            raise ValueError(
                f"{place}: row {number} lacks `key` or `hypernyms`, which a table with '{ROOT}' has in every row: make "
                "it again with python -m train foundations, or take that name out."
            )
        for above in row["hypernyms"]:
            narrower[above].append(row["key"])
    things: set[str] = set()
    while todo:
        key = todo.pop()
        if key not in things:
            things.add(key)
            todo += narrower[key]
    return things


def _names(row: dict) -> list[str]:
    return [row["name"], *row.get("lemmas", ())] if "name" in row else row["lemmas"]


def _rows(place: Path) -> list[dict]:
    """A file of names as rows with "name", "lemmas" or both."""
    try:
        lines = [line.strip() for line in place.read_text("utf-8").splitlines() if line.strip()]
        if place.suffix == ".jsonl":
            rows = [json.loads(line) for line in lines]
        elif place.suffix == ".tsv":
            column = lines[0].split("\t").index("name")
            rows = [{"name": line.split("\t")[column].strip()} for line in lines[1:]]
        else:
            rows = [{"name": line} for line in lines]
        names = [name for row in rows for name in _names(row)]
        if not all(isinstance(name, str) for name in names):
            raise TypeError(place)
    except OSError as error:
        raise ValueError(f"{place} cannot be read ({error.strerror}): give a file of names.") from error
    except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{place} is no list of names: give lines of a .txt, a .tsv with a column `name`, or a .jsonl with `name` "
            "or `lemmas`."
        ) from error
    if not names:
        raise ValueError(f"{place} holds no names.")
    return rows
