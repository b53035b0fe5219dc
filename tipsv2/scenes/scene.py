"""A scene: sprites on a procedural background, with its pixel labels and captions, deterministic from a seed.

The same seed gives the same composition at every size, so labels made at 448 px belong to the picture at 112 px.

    python -m train scenes --out scenes --count 1000 --size 224
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import overload

import numpy as np
from PIL import Image

from tipsv2.scenes import captions
from tipsv2.scenes.backgrounds import STUFF, background
from tipsv2.scenes.captions import Object
from tipsv2.scenes.looks import Look, random_look, recolour
from tipsv2.scenes.sprites import SEEN_STYLES, UNSEEN_STYLE, nouns, sprites

COUNT_WEIGHTS = (0.25, 0.3, 0.25, 0.12, 0.08)  # one to five sprites
SIDES = ((0.45, 0.9), (0.36, 0.68), (0.3, 0.56), (0.26, 0.48), (0.22, 0.42))  # by count, fraction of the picture
MENTIONED = 0.35  # a thing hidden more than this is labelled, but captions do not name it
SPLITS = {  # styles, first seed
    "val": (SEEN_STYLES, 10**12),
    "style": ((UNSEEN_STYLE,), 2 * 10**12),
    "search": (SEEN_STYLES, 25 * 10**11),
}
SPLIT_COUNT = 500
LARGEST = 1024  # pixels, the side of a scene
MEASURED = {  # first seed, how many: of train/run/monitor.py and of tipsv2/evaluation/shared/drawings.py
    "the monitor's scenes": (3 * 10**12, 10**3),
    "single drawings": (4 * 10**12, 10**7),
}


@dataclass(frozen=True)
class Scene:
    """image uint8 [S, S, 3]; labels int16 [S, S], indices into `names()`; owner uint8 [S, S], 0 where the background
    shows, else k where objects[k - 1] does; captions by role; objects back to front.
    """

    image: np.ndarray
    labels: np.ndarray
    owner: np.ndarray
    captions: dict[str, str]
    objects: tuple[Object, ...]
    regions: tuple[str, ...]


@cache
def names() -> tuple[str, ...]:
    """What a label means: the stuff, then the nouns."""
    return STUFF + tuple(noun.name for noun in nouns())


@cache
def _pyramid(style: str, noun: int, drawing: int) -> tuple[Image.Image, ...]:
    """A sprite at full, half and quarter size with premultiplied alpha, which is what bilinear sampling needs."""
    full = Image.fromarray(sprites(style)[noun][drawing], "RGBA").convert("RGBa")
    return full, full.reduce(2), full.reduce(4)


def _stamp(
    style: str, noun: int, drawing: int, side: float, angle: float, flip: bool, look: Look | None = None
) -> np.ndarray:
    """A sprite scaled to `side` pixels, rotated and flipped: float32 [L, L, 4], premultiplied, 0..255."""
    pyramid = _pyramid(style, noun, drawing)
    level = max((k for k in range(3) if pyramid[k].width >= side), default=0)
    source = pyramid[level]
    cos, sin = math.cos(angle), math.sin(angle)
    length = max(1, math.ceil(side * (abs(cos) + abs(sin)) - 1e-6))
    scale, half, mid = source.width / side, length / 2, source.width / 2
    mirror = -1 if flip else 1
    a, b, d, e = mirror * scale * cos, mirror * scale * sin, -scale * sin, scale * cos
    if look:
        matrix = np.linalg.inv(look.shape()) @ [[a, b], [d, e]]  # picture -> sprite
        length = math.ceil(source.width * np.abs(np.linalg.inv(matrix)).sum(1).max())  # its corners stay inside
        half, (a, b, d, e) = length / 2, matrix.ravel().tolist()
    matrix = (a, b, mid - (a + b) * half, d, e, mid - (d + e) * half)
    stamp = np.asarray(
        source.transform((length, length), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR), np.float32
    )
    return recolour(stamp, look) if look else stamp


def _window(center: float, length: int, size: int) -> tuple[slice, slice]:
    """Where a stamp of `length` pixels centred at `center` falls: the picture's slice and the stamp's."""
    start = round(center - length / 2)
    low, high = max(start, 0), min(start + length, size)
    return slice(low, max(low, high)), slice(low - start, max(low, high) - start)


def _place(rng: random.Random, taken: list[tuple[float, float, float]], side: float) -> tuple[float, float]:
    """A centre inside the picture, usually the freest of a few tries: things overlap now and then, not always."""
    margin = side * 0.36
    spots = [(rng.uniform(margin, 1 - margin), rng.uniform(margin, 1 - margin)) for _ in range(8)]
    if not taken or rng.random() < 0.15:
        return spots[0]
    return max(spots, key=lambda s: min(math.dist(s, t[:2]) - (side + t[2]) / 2 for t in taken))


@cache
def some_nouns(count: int = 0) -> tuple[int, ...]:
    """Indices of `count` nouns, spread evenly over the vocabulary and so over its categories; 0 means all.

    Raises ValueError if there are not so many.
    """
    known = len(nouns())
    if not 0 <= count <= known:
        raise ValueError(f"{count} nouns: choose 1 to {known}, or 0 for all.")
    return tuple(k * known // count for k in range(count)) if count else tuple(range(known))


def draw(
    seed: int,
    size: int = 224,
    styles: Sequence[str] = SEEN_STYLES,
    among: Sequence[int] | None = None,
    restyle: float = 0.0,
) -> Scene:
    """Draw scene `seed` with sprites of `styles`.

    Args:
        seed: any non-negative integer; training keeps out of those that `held_out` names.
        size: side of the square picture in pixels, 14 to 1024.
        styles: drawing styles to take sprites from, names of `sprites.STYLES`.
        among: indices of the nouns to choose from, see `some_nouns`; default all.
        restyle: how often a drawing gets another look (`looks.random_look`), 0 to 1; what stands where stays.

    Raises:
        ValueError: a size out of range.
    """
    rng, canvas, labels = _begin(seed, size)
    among = among or some_nouns()
    count = rng.choices(range(1, 6), COUNT_WEIGHTS)[0]
    planned: list[tuple] = []
    taken: list[tuple[float, float, float]] = []
    for _ in range(count):
        noun = planned[-1][0] if planned and rng.random() < 0.1 else among[rng.randrange(len(among))]
        planned.append(_plan(rng, noun, rng.choice(styles), SIDES[count - 1], taken))
    other = random.Random(f"restyle {seed}")  # its own, so that the scene is the same with other looks
    looks = [random_look(other) if other.random() < restyle else None for _ in planned]
    return _paint(rng, canvas, labels, planned, looks)


def draw_one(seed: int, noun: int, style: str, size: int = 224) -> Scene:
    """Draw a scene with one sprite of `noun` (an index into `nouns()`) in `style`; all else follows from the seed.

    Which of the noun's drawings, where, how large, how turned and the background are drawn as in `draw`. Raises
    ValueError for a size out of range.
    """
    rng, canvas, labels = _begin(seed, size)
    return _paint(rng, canvas, labels, [_plan(rng, noun, style, SIDES[0], [])], [None])


def _begin(seed: int, size: int) -> tuple[random.Random, np.ndarray, np.ndarray]:
    """The scene's random numbers, already past the background they chose, and that background with its labels."""
    if not 14 <= size <= LARGEST:
        raise ValueError(f"size={size}: a scene is drawn at 14 to {LARGEST} pixels; choose a size in that range.")
    rng = random.Random(seed)
    return rng, *background(rng, size)


def _plan(
    rng: random.Random,
    noun: int,
    style: str,
    sides: tuple[float, float],
    taken: list[tuple[float, float, float]],
) -> tuple:
    """Where and how a sprite will stand: (noun, style, drawing, side, x, y, angle, flip, gain). Its place is added to
    `taken`.
    """
    side = rng.uniform(*sides)
    x, y = _place(rng, taken, side)
    taken.append((x, y, side))
    angle = rng.gauss(0, 0.18) if rng.random() < 0.9 else rng.uniform(-math.pi, math.pi)
    drawing = rng.randrange(len(nouns()[noun].codes))
    return noun, style, drawing, side, x, y, angle, rng.random() < 0.5, rng.uniform(0.8, 1.15)


def _paint(
    rng: random.Random, canvas: np.ndarray, labels: np.ndarray, planned: list[tuple], looks: list[Look | None]
) -> Scene:
    """Stamp the planned sprites on the background, label and caption the picture. Changes `canvas` and `labels`."""
    size, count = len(canvas), len(planned)
    order = sorted(range(count), key=lambda k: planned[k][5] + planned[k][3] / 2)  # what stands lower is in front
    planned, looks = [planned[k] for k in order], [looks[k] for k in order]

    grounds = labels.copy()
    owner = np.zeros((size, size), np.uint8)
    full = []
    for k, (noun, style, drawing, side, x, y, angle, flip, gain) in enumerate(planned, start=1):
        stamp = _stamp(style, noun, drawing, side * size, angle, flip, looks[k - 1])
        length = len(stamp)
        small = max(4, length // 6)
        alpha = Image.fromarray(stamp[..., 3])
        shadow = np.asarray(alpha.resize((small, small), Image.Resampling.BOX).resize((length, length)))
        rows, stamp_rows = _window(y * size + 0.05 * length, length, size)
        columns, stamp_columns = _window(x * size + 0.04 * length, length, size)
        canvas[rows, columns] *= (1 - shadow[stamp_rows, stamp_columns] * (0.38 / 255))[..., None]
        rows, stamp_rows = _window(y * size, length, size)
        columns, stamp_columns = _window(x * size, length, size)
        stamp = stamp[stamp_rows, stamp_columns]
        canvas[rows, columns] *= 1 - stamp[..., 3:] / 255
        canvas[rows, columns] += stamp[..., :3] * gain
        solid = stamp[..., 3] > 127
        labels[rows, columns][solid] = len(STUFF) + noun
        owner[rows, columns][solid] = k
        full.append(max(1, int(solid.sum())))

    shown = np.bincount(owner.ravel(), minlength=count + 1)[1:]
    objects = tuple(
        Object(
            noun=p[0],
            style=p[1],
            center=(p[4], p[5]),
            side=p[3],
            visible=float(shown[k] / full[k]),
            ground=STUFF[grounds[min(size - 1, int((p[5] + 0.4 * p[3]) * size)), min(size - 1, int(p[4] * size))]],
        )
        for k, p in enumerate(planned)
    )
    regions = tuple(STUFF[i] for i in dict.fromkeys(grounds[:, size // 2].tolist()))
    said = [o for o in objects if o.visible >= MENTIONED]
    texts = {role: getattr(captions, role)(rng, nouns(), said, regions) for role in ("web", "short", "detailed")}
    image = np.clip(canvas, 0, 255).astype(np.uint8)
    return Scene(image, labels, owner, texts, objects, regions)


class Split(Sequence[Scene]):
    """A fixed set of scenes, drawn when asked for: `split("val")[3].image`. `styles` and `nouns` say of what."""

    def __init__(self, name: str, size: int = 224):
        base, _, count = name.partition(":")
        if base not in SPLITS or (count and not count.isdigit()):
            raise ValueError(
                f"scenes:{name} is not a split; choose scenes:{' or scenes:'.join(SPLITS)}, "
                f"or of fewer nouns, for example scenes:{next(iter(SPLITS))}:60."
            )
        self.styles, self.first = SPLITS[base]
        self.nouns = some_nouns(int(count or 0))
        self.draw = partial(draw, size=size, styles=self.styles, among=self.nouns)

    def __len__(self) -> int:
        return SPLIT_COUNT

    @overload
    def __getitem__(self, index: int) -> Scene: ...
    @overload
    def __getitem__(self, index: slice) -> list[Scene]: ...
    def __getitem__(self, index: int | slice) -> Scene | list[Scene]:
        if isinstance(index, slice):
            return [self.draw(self.first + place) for place in range(*index.indices(SPLIT_COUNT))]
        if not 0 <= index < SPLIT_COUNT:
            raise IndexError(index)
        return self.draw(self.first + index)


def held_out(first: int, count: int) -> str:
    """What is measured on one of the scenes first .. first + count - 1, which training must leave alone; "" if none."""
    fixed = {f"scenes:{name}": (start, SPLIT_COUNT) for name, (_, start) in SPLITS.items()} | MEASURED
    return next((name for name, (start, many) in fixed.items() if first < start + many and start < first + count), "")


def split(name: str, size: int = 224) -> Split:
    """`val`: seen styles, compositions never trained on. `style`: the drawing style kept out of training.

    `search`: for choosing between recipes, so that val and style stay unseen by choices too. "val:60" has the same
    scenes with things of 60 nouns only.
    """
    return Split(name, size)
