"""Captions of a scene at three granularities, in the roles TIPSv2 trains with (papers: web alt-text and synthetic).

web       what a page's alt-text says: short, partial, sometimes noise (CLS 1)
short     one sentence that names what can be seen (CLS 2)
detailed  counts, sizes, positions and relations (CLS 2)
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tipsv2.scenes.sprites import Noun

COUNTS = ("no", "one", "two", "three", "four", "five")
WEB = (
    "{}", "{}", "{}", "a {}", "photo of {}", "a photo of a {}", "a photo of the {}", "{} picture", "{} stock image",
    "cute {}", "my {}", "{} for sale", "itap of a {}.", "a bad photo of a {}.", "art of the {}.",
    "a {} in a video game.", "{} wallpaper hd", "{} clip art", "IMG_{number} {}", "{}.jpg", "{} - free download",
    "best {} of {year}", "the {}", "{} #{number}", "a photo of the small {}.", "a photo of the large {}.",
)  # fmt: skip
NOISE = ("untitled", "image {number}", "DSC_{number}.jpg", "click to enlarge", "photo of the day", "thumbnail {number}")
GROUND = {  # how one stands on or before a region
    "sky": "in the sky", "grass": "on the grass", "sand": "on the sand", "water": "in the water", "snow": "in the snow",
    "road": "on the road", "brick": "in front of a brick wall", "wood": "on wood", "night": "at night",
}  # fmt: skip
BACKDROP = {
    "sky": "under the sky", "night": "under the night sky", "brick": "before a brick wall",
    "wood": "before a wood wall",
}  # fmt: skip


@dataclass(frozen=True)
class Object:
    """One sprite of a scene: its noun, style, where it is and how much of it shows.

    `center` (x, y) and `side` are fractions of the picture's side, `visible` the share of its own pixels not hidden.
    """

    noun: int
    style: str
    center: tuple[float, float]
    side: float
    visible: float
    ground: str


def _one(noun: Noun, adjectives: str = "") -> str:
    words = adjectives + noun.name
    if noun.mass:  # bread, jeans
        return f"some {words}"
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _join(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def _counted(nouns: Sequence[Noun], indices: Sequence[int]) -> list[str]:
    counts = Counter(indices)
    return [_one(nouns[i]) if n == 1 else f"{COUNTS[n]} {nouns[i].plural}" for i, n in counts.items()]


def web(rng: random.Random, nouns: Sequence[Noun], objects: Sequence[Object], regions: Sequence[str]) -> str:
    """Short, partial, noisy: one or two of the things that show, or a region, or nothing useful at all."""
    number, year = rng.randrange(1000, 9999), rng.randrange(2008, 2026)
    if rng.random() < 0.02:
        return rng.choice(NOISE).format(number=number)
    if not objects or rng.random() < 0.1:
        name = rng.choice(regions)
    else:
        noun = nouns[rng.choice(objects).noun]
        name = noun.name
        if noun.keywords and rng.random() < 0.1:  # people write "puppy" where the label says "dog"
            name = rng.choice(noun.keywords)
        elif rng.random() < 0.35:
            name += " and " + (nouns[rng.choice(objects).noun].name if rng.random() < 0.6 else rng.choice(regions))
    return rng.choice(WEB).format(name, number=number, year=year)


def short(rng: random.Random, nouns: Sequence[Noun], objects: Sequence[Object], regions: Sequence[str]) -> str:
    """One plain phrase: the things, largest first, and now and then where they are."""
    if not objects:
        return f"{_join(regions)}, nothing else"
    order = sorted(objects, key=lambda o: -o.side)
    things = _join(_counted(nouns, [o.noun for o in order]))
    if rng.random() < 0.6:  # people name things more than ground; nine kinds of ground are also too easy a clue
        return things
    place = GROUND[order[0].ground]
    others = [r for r in regions if r != order[0].ground]
    if others and rng.random() < 0.5:
        return f"{things} {place} with {_join(others)} behind"
    return f"{things} {place}"


def _where(x: float, y: float) -> str:
    column = "left" if x < 0.36 else "right" if x > 0.64 else ""
    row = "top" if y < 0.36 else "bottom" if y > 0.64 else ""
    if row and column:
        return f"at the {row} {column}"
    return f"on the {column}" if column else f"at the {row}" if row else "in the middle"


def detailed(rng: random.Random, nouns: Sequence[Noun], objects: Sequence[Object], regions: Sequence[str]) -> str:
    """Every thing with size and place, one relation, counts of repeated things, often the background."""
    order = list(objects)
    rng.shuffle(order)
    parts = []
    for o in order:
        size = "large " if o.side > 0.55 else "small " if o.side < 0.33 else ""
        noun = nouns[o.noun]
        hidden = "partly hidden " if o.visible < 0.7 else ""
        parts.append(f"{_one(noun, hidden + size)} {_where(*o.center)}")
    text = _join(parts) if parts else "an empty scene"
    if len(order) > 1 and rng.random() < 0.6:
        a, b = order[0], order[1]
        dx, dy = a.center[0] - b.center[0], a.center[1] - b.center[1]
        relation = ("left of" if dx < 0 else "right of") if abs(dx) > abs(dy) else ("above" if dy < 0 else "below")
        text += f", the {nouns[a.noun].name} {relation} the {nouns[b.noun].name}"
    for i, n in Counter(o.noun for o in order).items():
        if n > 1:
            text += f", {COUNTS[n]} {nouns[i].plural} in all"
    if order and rng.random() < 0.4:
        return text
    above = BACKDROP.get(regions[0])
    if len(regions) == 1:
        return f"{text}, all {GROUND[regions[0]]}" if order else f"{text} of {regions[0]}"
    return f"{text}, {_join(regions[1:])} {above or 'below ' + regions[0]}"
