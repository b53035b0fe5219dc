"""A drawing in another look, for training: other colours, flatter shades, other proportions, the same thing.

Two drawings of a noun are too few to tell what of them is the thing and what the artist: the recipe nano-styles trains
on four artists' and redraws some, for the sake of another's.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np

LUMINANCE = (0.299, 0.587, 0.114)  # of R, G, B (ITU-R BT.601)


@dataclass(frozen=True)
class Look:
    """hue in radians around the grey axis; saturation 0 is grey, 1 unchanged; levels of shade, 0 for all; stretch is
    width over height, shear the shift of the top in heights.
    """

    hue: float
    saturation: float
    levels: int
    stretch: float
    shear: float

    def shape(self) -> np.ndarray:
        """[2, 2]: where the drawing's points (x, y) around its centre go; areas stay."""
        root = math.sqrt(self.stretch)
        return np.array([[root, self.shear * root], [0.0, 1 / root]])

    def colours(self) -> np.ndarray:
        """[3, 3]: RGB -> RGB, rotated around the grey axis and moved from or to it; greys stay as they are."""
        axis = np.ones(3) / math.sqrt(3)
        x, y, z = axis
        cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        outer = np.outer(axis, axis)
        turn = outer + math.cos(self.hue) * (np.eye(3) - outer) + math.sin(self.hue) * cross  # Rodrigues
        grey = np.tile(LUMINANCE, (3, 1))
        return (grey + self.saturation * (np.eye(3) - grey)) @ turn


def random_look(rng: random.Random) -> Look:
    """Mostly near the drawing's own colours, now and then far from them."""
    return Look(
        hue=rng.gauss(0, 0.35) if rng.random() < 0.8 else rng.uniform(-math.pi, math.pi),
        saturation=rng.uniform(0.3, 1.5),
        levels=rng.choice((0, 3, 4, 6)),
        stretch=math.exp(rng.uniform(-0.3, 0.3)),
        shear=rng.uniform(-0.2, 0.2),
    )


def recolour(stamp: np.ndarray, look: Look) -> np.ndarray:
    """A drawing [H, W, 4], premultiplied, 0..255, in the look's colours and shades; alpha stays."""
    alpha = stamp[..., 3:]
    colours = np.clip(stamp[..., :3] @ look.colours().T.astype(np.float32), 0, alpha)
    if look.levels:
        share = colours / np.maximum(alpha, 1)  # straight colours in 0..1
        colours = np.round(share * look.levels) / look.levels * alpha
    return np.concatenate([colours, alpha], axis=-1, dtype=np.float32)
