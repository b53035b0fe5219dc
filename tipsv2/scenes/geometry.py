"""Depth and normals of a scene: made up, since drawings on a background have none, and good only to try the tasks on.

The picture is read as a ground seen by an upright camera: row v (0 the top, 1 the bottom edge) lies FAR / ((FAR/NEAR -
1) v + 1) metres away, which is how a plane recedes, its horizon a little above the picture. A drawing is a card that
stands on the ground where its square ends below, as far away all over as the ground there. What ends lower is drawn in
front, so what is in front is nearer. Walls and skies count as ground.
"""

from __future__ import annotations

import numpy as np

from tipsv2.scenes.scene import Scene

NEAR, FAR = 1.0, 8.0  # metres at the bottom and at the top edge
UP, TOWARDS = (0, 1, 0), (0, 0, 1)  # x right, y up, z towards the camera


def distance(row: np.ndarray) -> np.ndarray:
    """Of the ground at heights in the picture, 0 the top and 1 the bottom edge, in metres."""
    return FAR / ((FAR / NEAR - 1) * row + 1)


def depth(scene: Scene) -> np.ndarray:
    """float32 [S, S], metres."""
    size = len(scene.owner)
    ground = distance((np.arange(size) + 0.5) / size)
    cards = distance(np.array([0, *(thing.center[1] + thing.side / 2 for thing in scene.objects)]))
    return np.where(scene.owner > 0, cards[scene.owner], ground[:, None]).astype(np.float32)


def normals(scene: Scene) -> np.ndarray:
    """float32 [S, S, 3], unit vectors: the ground looks up, a card at the camera."""
    return np.where(scene.owner[..., None] > 0, np.array(TOWARDS, np.float32), np.array(UP, np.float32))
