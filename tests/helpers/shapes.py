"""Captioned pictures that are no scenes, to try fine-tuning on: two coloured shapes, and where one is to the other.

python tests/helpers/shapes.py photos/train 50
python tests/helpers/shapes.py photos/val 50 1000
python -m train finetune --base opentips-nano --data photos/train --out runs/mine
"""

from __future__ import annotations

import math
import random
import sys
from pathlib import Path

from PIL import Image, ImageDraw

COLORS = {
    "red": "#d02020", "green": "#20a040", "blue": "#2050d0", "yellow": "#f0d020", "orange": "#f08020",
    "purple": "#8030b0", "white": "#fafafa", "black": "#101010",
}  # fmt: skip
SHAPES = ("circle", "square", "triangle", "star", "cross")
PLACES = {"above": (0, 1), "below": (0, -1), "left of": (1, 0), "right of": (-1, 0)}  # where the other one is


def draw(seed: int, size: int = 112) -> tuple[Image.Image, str]:
    """A picture of `size` pixels and its caption, such as "a red circle above a blue square"."""
    rng = random.Random(seed)
    picture = Image.new("RGB", (4 * size, 4 * size), tuple(rng.randrange(110, 180) for _ in range(3)))
    pen = ImageDraw.Draw(picture)
    place = rng.choice(list(PLACES))
    shift = [0.24 * step for step in PLACES[place]]
    said = []
    for sign, color in zip((-1, 1), rng.sample(list(COLORS), 2), strict=True):
        shape = rng.choice(SHAPES)
        x, y = (0.5 + sign * step + rng.uniform(-0.04, 0.04) for step in shift)
        points = _outline(shape, rng.uniform(0.15, 0.22))
        pen.polygon([(4 * size * (x + a), 4 * size * (y + b)) for a, b in points], fill=COLORS[color])
        said.append(f"a {color} {shape}")
    return picture.resize((size, size), Image.Resampling.BOX), f"{said[0]} {place} {said[1]}"


def write(folder: Path, count: int, first: int = 0, size: int = 112) -> list[str]:
    """Pictures of seeds first .. first + count - 1 as NAME.png with NAME.txt beside it; returns the captions."""
    folder.mkdir(parents=True, exist_ok=True)
    captions = []
    for seed in range(first, first + count):
        picture, caption = draw(seed, size)
        picture.save(folder / f"{seed:06d}.png")
        (folder / f"{seed:06d}.txt").write_text(caption + "\n")
        captions.append(caption)
    return captions


def _outline(shape: str, radius: float) -> list[tuple[float, float]]:
    """Corners around (0, 0), in shares of the picture's side."""
    if shape == "cross":
        arm = radius / 3
        near, far = (-arm, arm), (-radius, radius)
        return [
            (near[0], far[0]), (near[1], far[0]), (near[1], near[0]), (far[1], near[0]), (far[1], near[1]),
            (near[1], near[1]), (near[1], far[1]), (near[0], far[1]), (near[0], near[1]), (far[0], near[1]),
            (far[0], near[0]), (near[0], near[0]),
        ]  # fmt: skip
    count, inner, turn = {
        "circle": (64, 1, 0), "square": (4, 1, math.pi / 4), "triangle": (3, 1, -math.pi / 2),
        "star": (10, 0.45, -math.pi / 2),
    }[shape]  # fmt: skip
    corners = []
    for k in range(count):
        angle, length = turn + 2 * math.pi * k / count, radius * (inner if k % 2 else 1)
        corners.append((length * math.cos(angle), length * math.sin(angle)))
    return corners


if __name__ == "__main__":
    write(Path(sys.argv[1]), int(sys.argv[2]), *map(int, sys.argv[3:]))
    print(f"{sys.argv[2]} pictures with captions in {sys.argv[1]}")
