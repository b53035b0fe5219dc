"""The drawings of the scenes: about 300 nouns, each in five styles, cut from one WebP atlas per style.

The nouns stand in vocabulary.py; `assets/scenes/` holds `<style>.webp` (a grid of square cells, one per noun and
drawing in the order of the vocabulary, so no index file is needed) and `names.json` (the grid, and per noun English
keywords and translations). `python -m tipsv2.scenes.build` makes these files, `assets/scenes/LICENSES.md` says where
the drawings come from. Training sees `SEEN_STYLES`, or up to four (`data.styles`); Twemoji is kept for measuring
transfer to a style never seen.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from tipsv2.scenes.vocabulary import MASS, NOUNS

_INSTALLED = Path(__file__).resolve().with_name("assets")  # where `pip install .` puts them
ASSETS = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).resolve().parents[2] / "assets" / "scenes"
STYLES = ("fluent", "noto", "twemoji", "flat", "openmoji")
SEEN_STYLES = ("fluent", "noto")  # of scenes:val
UNSEEN_STYLE = "twemoji"


@dataclass(frozen=True)
class Noun:
    """Something that can stand in a scene, with its names; `codes` and the sprites of a style have the same order."""

    name: str  # English, singular, lower case: "fire engine"
    plural: str  # "fire engines"; counted for what has no plural: "loaves of bread"
    category: str  # "animal", "food", "plant", "vehicle" or "object"
    codes: tuple[str, ...]  # 1 to 4 emoji code points, "1F415" or joined by "-", without the variation selector FE0F
    keywords: tuple[str, ...]  # English, none is the name of a noun; may be empty
    translations: dict[str, str]  # language code -> name, the same languages for every noun
    mass: bool  # one of it is "some bread", "some jeans", not "a bread"


@cache
def nouns() -> tuple[Noun, ...]:
    """All nouns in their fixed order: the index into this tuple is the noun's index everywhere."""
    texts = _names()["nouns"]
    return tuple(
        Noun(
            name=name,
            plural=plural,
            category=category,
            codes=tuple(codes.split()),
            keywords=tuple(texts[name]["keywords"]),
            translations=texts[name]["translations"],
            mass=name in MASS,
        )
        for category, rows in NOUNS.items()
        for name, plural, codes, _ in rows
    )


def chosen_styles(wanted: Sequence[str], field: str) -> tuple[str, ...]:
    """`wanted` as a tuple. Raises ValueError, naming the `field`, for an unknown style or none at all."""
    for style in wanted or ("",):
        if style not in STYLES:
            raise ValueError(f"{field}: {style!r} is no drawing style; choose from {', '.join(STYLES)}.")
    return tuple(wanted)


@cache
def sprites(style: str) -> tuple[tuple[np.ndarray, ...], ...]:
    """The drawings of one style: [noun][drawing] -> uint8 [S, S, 4] RGBA, straight alpha, read-only.

    Each drawing is centred in its cell and its longer side fills the cell but for a margin of one pixel. The first
    call for a style decodes its atlas (a fraction of a second), later calls cost nothing. ValueError for a style that
    is not in STYLES.
    """
    if style not in STYLES:
        raise ValueError(f"style is {style!r}, but the bundled drawings come in {', '.join(STYLES)}")
    size, columns = _names()["cell"], _names()["columns"]
    with Image.open(ASSETS / f"{style}.webp") as image:
        atlas = np.asarray(image)
    atlas.flags.writeable = False  # everybody shares these arrays
    pictures, cell = [], 0
    for noun in nouns():
        drawings = []
        for _ in noun.codes:
            y, x = cell // columns * size, cell % columns * size
            drawings.append(atlas[y : y + size, x : x + size])
            cell += 1
        pictures.append(tuple(drawings))
    return tuple(pictures)


@cache
def _names() -> dict:
    return json.loads((ASSETS / "names.json").read_text(encoding="utf-8"))
