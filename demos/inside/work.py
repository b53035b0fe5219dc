"""What the tab Inside computes of a patch grid: components, clusters, norms at once, maps when asked. No gradio here.

Sizes: h x w patches, D embedding width, N words.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np

from demos.backend import compiled
from demos.backend.turns import LEDGER, Turns

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from tipsv2.analysis.projection import Basis, Clusters, Norms

AXES = 9  # principal components on offer
MAX_CLUSTERS = 20
MAX_WORDS = 24  # on a map
# Beside the encoder's work, which it must not hold up. Several at once: their turns are short, see `Projector`.
MAP_WORK = dict(concurrency_id="map", concurrency_limit=3)
QUICK = 2.0  # seconds: a map that takes longer is drawn only when somebody asks for it


class Projector:
    """Lays out maps, and learns how long that takes here. UMAP's compiled code must not run twice at once: maps take
    turns, which end several times a second, so that a large one does not hold up a small one.
    """

    def __init__(self, turns: Turns | None = None):
        self._turns = turns or Turns(LEDGER)
        self._pace: float | None = None  # seconds that a point took on the last map

    @property
    def ready(self) -> bool:
        """Has UMAP been compiled since the start?"""
        return self._pace is not None

    def quick(self, points: int) -> bool:
        """Would a map of so many points be there in QUICK seconds?"""
        return self._pace is not None and self._pace * points < QUICK and self._turns.idle

    def draw(
        self, patches, text: torch.Tensor, neighbors: int, gap: str, progress: Callable | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """patches [h, w, D], text [N, D] -> their places [h, w, 2] and [N, 2]; see
        `tipsv2.analysis.projection.joint_map`.
        progress: called with a share and, as desc, a sentence. Raises Gone if the client leaves.
        """
        from tipsv2.analysis.projection import joint_map

        tell = (lambda share, desc: None) if progress is None else progress  # not `or`: a gr.Progress is false
        count, waited = patches.shape[0] * patches.shape[1], 0.0
        with ExitStack() as held:

            def next_turn() -> None:
                nonlocal waited
                start = time.monotonic()
                held.close()
                held.enter_context(self._turns.turn())
                waited += time.monotonic() - start

            next_turn()
            begun = 0.0
            if not self.ready:
                begun = 0.6
                compiled.prepare(tell, begun)
            expected = (self._pace or 0.005) * (count + len(text))
            start, waited = time.monotonic(), 0.0

            def tick() -> None:
                next_turn()
                passed = time.monotonic() - start - waited
                tell(begun + (1 - begun) * passed / (passed + expected / 2), desc=f"Laying out {count:,} patches")

            tell(begun, desc=f"Laying out {count:,} patches")
            places = joint_map(patches, text, int(neighbors), gap=gap, tick=tick)
            self._pace = (time.monotonic() - start - waited) / (count + len(text))
        return places


def principal(
    patches, shown: Sequence[int] = (0, 1, 2), foreground: bool = False
) -> tuple[Basis, np.ndarray, np.ndarray]:
    """-> (basis of AXES components, scores [h, w, AXES], colours of the three `shown`, uint8 [h, w, 3]).

    foreground: patches on the background's side of the first component are black, and the basis is of the others alone.
    """
    from tipsv2.analysis import projection

    basis = projection.pca([patches], AXES)
    masks = None
    if foreground:
        masks = projection.foreground([projection.project(patches, basis)])
        if masks[0].any():
            basis = projection.pca([patches], AXES, masks)
    scores = projection.project(patches, basis)
    (colors,) = projection.components_as_rgb([scores], shown, masks=masks)
    return basis, scores, (colors * 255 + 0.5).astype(np.uint8)


def clusters(patches, k: float) -> Clusters:
    from tipsv2.analysis.projection import kmeans

    if k > MAX_CLUSTERS:
        raise ValueError(f"Ask for at most {MAX_CLUSTERS} clusters, not {int(k)}.")
    return kmeans(patches, int(k))


def palette(count: int) -> np.ndarray:
    """[count, 3] uint8: a cluster has the colour of its rank by size."""
    from tipsv2.analysis.render import PALETTE

    return np.asarray(PALETTE[:count], np.uint8)


def norms(patches) -> tuple[Norms, np.ndarray]:
    """-> (Norms, picture [h, w, 3] from the shortest to the longest patch)."""
    from tipsv2.analysis.projection import patch_norms
    from tipsv2.analysis.render import colorize

    lengths = patch_norms(patches)
    return lengths, colorize(lengths.norms)


def pixel_colors(image: Image.Image, grid: tuple[int, int]) -> np.ndarray:
    """The mean colour of each patch's pixels, uint8 [h, w, 3]."""
    from PIL import Image

    return np.asarray(image.resize(grid[::-1], Image.Resampling.BOX))
