"""Procedural "stuff": nine named textures and how they divide a picture.

A texture is a bank of square tiles drawn once per process from a fixed seed and kept at several sizes, so that a scene
only crops. Everything is relative to the picture's side: the same seed gives the same composition at 112 and 448 px.
"""

from __future__ import annotations

import random
from functools import cache

import numpy as np
from PIL import Image

STUFF = ("sky", "grass", "sand", "water", "snow", "road", "brick", "wood", "night")
TILES = 8  # different tiles per texture: weather, soil, paint
TILE_SIDE = 640  # a picture of 448 px crops at full resolution with room to move
UPPER = ("sky", "sky", "sky", "night", "brick", "wood")  # what stands or hangs behind; sky is the common case
LOWER = {  # what may lie in front of it
    "sky": ("grass", "sand", "water", "snow", "road"),
    "night": ("grass", "sand", "water", "snow", "road"),
    "brick": ("grass", "road", "wood", "snow"),
    "wood": ("grass", "sand", "road"),
}
FRONT = {  # what may lie before the middle ground
    "grass": ("road", "water", "sand"),
    "sand": ("grass", "road"),
    "water": ("sand", "grass", "snow", "wood"),
    "snow": ("road", "water"),
    "road": ("grass", "snow"),
    "wood": ("grass",),
}


def _noise(rng: np.random.Generator, cells_y: int, cells_x: int, side: int) -> np.ndarray:
    """Smooth noise [side, side] in [0, 1] from a random grid, periodic so that tiles have no seam when mirrored."""
    grid = rng.random((cells_y, cells_x), dtype=np.float32)
    image = Image.fromarray(grid).resize((side, side), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(image), 0, 1)


def _fractal(rng: np.random.Generator, side: int, cells: int, octaves: int = 4, stretch: float = 1.0) -> np.ndarray:
    """Sum of octaves of `_noise`, normalised to [0, 1]; `stretch` > 1 makes it run along x."""
    total = np.zeros((side, side), np.float32)
    for octave in range(octaves):
        frequency = cells * 2**octave
        total += _noise(rng, min(frequency, side), max(2, min(int(frequency / stretch), side)), side) * 0.55**octave
    return (total - total.min()) / (np.ptp(total) + 1e-6)


def _mix(first: tuple, second: tuple, weight: np.ndarray) -> np.ndarray:
    """Blend two RGB colours (0..255) by a weight [H, W] in [0, 1]; returns [H, W, 3]."""
    start, end = np.array([first, second], np.float32)
    return start + (end - start) * weight[..., None]


def _sky(rng: np.random.Generator, side: int) -> np.ndarray:
    days = (((82, 150, 226), (190, 224, 250)), ((52, 110, 200), (140, 190, 240)), ((150, 170, 190), (214, 222, 228)),
            ((240, 150, 96), (252, 214, 160)), ((120, 180, 235), (225, 240, 252)))  # fmt: skip
    top, bottom = days[rng.integers(len(days))]
    colour = _mix(top, bottom, np.linspace(0, 1, side, dtype=np.float32)[:, None].repeat(side, 1))
    clouds = np.clip((_fractal(rng, side, 5, 5, 2.0) - rng.uniform(0.45, 0.7)) * 4, 0, 1) * rng.uniform(0.3, 0.9)
    return colour + (250 - colour) * clouds[..., None]


def _grass(rng: np.random.Generator, side: int) -> np.ndarray:
    blades = _fractal(rng, side, 40, 3, 0.35)
    patches = _fractal(rng, side, 4, 3)
    dark, light = (((38, 92, 30), (128, 182, 66)), ((60, 110, 40), (165, 190, 80)), ((24, 84, 44), (92, 164, 82)))[
        rng.integers(3)
    ]
    return _mix(dark, light, 0.65 * blades + 0.35 * patches)


def _sand(rng: np.random.Generator, side: int) -> np.ndarray:
    ripples = 0.5 + 0.5 * np.sin(
        np.linspace(0, rng.uniform(30, 70), side, dtype=np.float32)[:, None] + 5 * _fractal(rng, side, 4, 3)
    )
    grain = rng.random((side, side), dtype=np.float32)
    dark, light = (((190, 152, 98), (240, 212, 160)), ((206, 176, 128), (248, 230, 190)))[rng.integers(2)]
    return _mix(dark, light, 0.35 * ripples + 0.3 * grain + 0.35 * _fractal(rng, side, 5, 3))


def _water(rng: np.random.Generator, side: int) -> np.ndarray:
    waves = _fractal(rng, side, 24, 3, 5.0)
    dark, light = (((16, 76, 130), (90, 170, 210)), ((10, 92, 110), (110, 200, 200)), ((30, 60, 100), (120, 160, 190)))[
        rng.integers(3)
    ]
    glints = np.clip((waves - 0.72) * 6, 0, 1)[..., None]
    colour = _mix(dark, light, 0.75 * waves + 0.25 * _fractal(rng, side, 3, 2))
    return colour + (245 - colour) * glints * 0.7


def _snow(rng: np.random.Generator, side: int) -> np.ndarray:
    drifts = _fractal(rng, side, 4, 4, 1.6)
    sparkle = (rng.random((side, side)) > 0.995).astype(np.float32)[..., None]
    return np.clip(_mix((196, 212, 232), (252, 253, 255), drifts * 1.2) + 40 * sparkle, 0, 255)


def _road(rng: np.random.Generator, side: int) -> np.ndarray:
    grain = rng.random((side, side), dtype=np.float32)
    shade = rng.uniform(56, 110)
    colour = _mix((shade,) * 3, (shade + 46,) * 3, 0.6 * grain + 0.4 * _fractal(rng, side, 5, 3))
    if rng.random() < 0.6:  # lane marks: dashes along x
        y, height = int(rng.uniform(0.3, 0.7) * side), side // 40
        paint = np.array(((238, 238, 232), (240, 200, 70))[rng.integers(2)], np.float32)
        dashes = (np.arange(side) * 5 // side) % 2 == 0
        colour[y : y + height, dashes] = paint * rng.uniform(0.8, 1)
    return colour


def _brick(rng: np.random.Generator, side: int) -> np.ndarray:
    rows = int(rng.integers(12, 20))
    height = side / rows
    y, x = np.mgrid[0:side, 0:side].astype(np.float32)
    row = (y / height).astype(np.int32)
    column = ((x + (row % 2) * height) / (2 * height)).astype(np.int32)
    tone = rng.random((rows + 2, rows + 2), dtype=np.float32)[row, column]
    dark, light = (((130, 52, 38), (192, 98, 70)), ((150, 84, 56), (206, 140, 100)), ((96, 66, 60), (160, 120, 108)))[
        rng.integers(3)
    ]
    colour = _mix(dark, light, 0.7 * tone + 0.3 * _fractal(rng, side, 30, 2))
    joint = ((y % height) < height * 0.12) | (((x + (row % 2) * height) % (2 * height)) < height * 0.12)
    colour[joint] = np.array((196, 188, 176), np.float32) * rng.uniform(0.75, 1)
    return colour


def _wood(rng: np.random.Generator, side: int) -> np.ndarray:
    planks = int(rng.integers(5, 10))
    y = np.mgrid[0:side, 0:side][0]
    plank = y * planks // side
    tone = rng.random(planks, dtype=np.float32)[plank]
    grain = 0.5 + 0.5 * np.sin(40 * _fractal(rng, side, 14, 2, 9.0) + plank)
    dark, light = (((104, 64, 34), (178, 124, 74)), ((150, 104, 62), (216, 172, 120)), ((70, 44, 28), (130, 88, 54)))[
        rng.integers(3)
    ]
    colour = _mix(dark, light, 0.45 * tone + 0.55 * grain)
    colour[(y * planks % side) < planks * max(2, side // 120)] *= 0.5
    return colour


def _night(rng: np.random.Generator, side: int) -> np.ndarray:
    top, bottom = (((8, 10, 34), (32, 40, 84)), ((14, 8, 40), (58, 36, 92)), ((4, 12, 28), (18, 48, 72)))[
        rng.integers(3)
    ]
    colour = _mix(top, bottom, np.linspace(0, 1, side, dtype=np.float32)[:, None].repeat(side, 1))
    colour += 26 * np.clip(_fractal(rng, side, 3, 4) - 0.4, 0, 1)[..., None]
    for _ in range(140):
        y, x, radius = rng.integers(0, side - 4), rng.integers(0, side - 4), rng.integers(1, 4)
        colour[y : y + radius, x : x + radius] = rng.uniform(150, 255)
    return colour


_PAINTERS = {"sky": _sky, "grass": _grass, "sand": _sand, "water": _water, "snow": _snow,
             "road": _road, "brick": _brick, "wood": _wood, "night": _night}  # fmt: skip


@cache
def tiles(name: str, level: int) -> tuple[np.ndarray, ...]:
    """The bank of one texture at TILE_SIDE / 2**level pixels: TILES arrays uint8 [side, side, 3], read-only."""
    if level:
        side = TILE_SIDE >> level
        out = [np.asarray(Image.fromarray(t).resize((side, side), Image.Resampling.BOX)) for t in tiles(name, 0)]
    else:
        rng = np.random.default_rng([20240917, STUFF.index(name)])
        out = [np.clip(_PAINTERS[name](rng, TILE_SIDE), 0, 255).astype(np.uint8) for _ in range(TILES)]
    for tile in out:
        tile.flags.writeable = False
    return tuple(out)


def _texture(rng: random.Random, name: str, size: int) -> np.ndarray:
    """A crop [size, size, 3] of one tile: the picture's side is 0.7 of the tile's, whatever the size."""
    side = round(size / 0.7)
    level = 0
    while level < 3 and TILE_SIDE >> (level + 1) >= side:
        level += 1
    tile = tiles(name, level)[rng.randrange(TILES)]
    top, left, flip = rng.random(), rng.random(), rng.random() < 0.5
    have = tile.shape[0]
    want = round(0.7 * have)
    y, x = int(top * (have - want)), int(left * (have - want))
    crop = tile[y : y + want, x : x + want]
    if flip:
        crop = crop[:, ::-1]
    return crop if want == size else np.asarray(Image.fromarray(crop).resize((size, size), Image.Resampling.BILINEAR))


def _border(rng: random.Random, size: int, height: float) -> np.ndarray:
    """A gently waving, slightly tilted horizon: the row [size] above which the upper region lies."""
    x = np.linspace(0, 1, size, dtype=np.float32)
    wave = rng.uniform(0, 0.03) * np.sin(rng.uniform(2, 12) * x + rng.uniform(0, 6.3))
    return (height + rng.uniform(-0.08, 0.08) * (x - 0.5) + wave) * size


def background(rng: random.Random, size: int) -> tuple[np.ndarray, np.ndarray]:
    """One to three regions of stuff with light over them.

    Returns the picture float32 [size, size, 3] in 0..255 and the label map int16 [size, size] of indices into STUFF.
    """
    kind = rng.random()
    if kind < 0.25:
        regions = [rng.choice(STUFF)]
        heights: list[float] = []
    else:
        upper = rng.choice(UPPER)
        lower = rng.choice(LOWER[upper])
        regions, heights = [upper, lower], [rng.uniform(0.25, 0.7)]
        if kind > 0.75:
            regions.append(rng.choice(FRONT[lower]))
            heights = [rng.uniform(0.2, 0.42), rng.uniform(0.58, 0.82)]
    image = _texture(rng, regions[0], size)
    labels = np.full((size, size), STUFF.index(regions[0]), np.int16)
    rows = np.arange(size, dtype=np.float32)[:, None]
    for name, height in zip(regions[1:], heights, strict=True):
        below = rows >= _border(rng, size, height)[None]
        image = np.where(below[..., None], _texture(rng, name, size), image)
        labels[below] = STUFF.index(name)
    light = np.linspace(rng.uniform(0.75, 1.1), rng.uniform(0.75, 1.1), size, dtype=np.float32)
    light = light[:, None] if rng.random() < 0.5 else light[None, :]
    tint = np.array([rng.uniform(0.92, 1.08) for _ in range(3)], np.float32)
    return image * (light[..., None] * tint), labels
