"""What the tab Inside remembers of each visitor's image: patch grids of all layers, maps already drawn. No gradio here.

One image per visitor, dropped together with the studio's own memory of it, so that leaving the page forgets both.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from demos.backend.studio import Seen

if TYPE_CHECKING:
    import numpy as np
    import torch

    from tipsv2.network.encoder import Encoder

KEEP_BYTES = 500_000_000  # of layers, all visitors together: the 12 layers of b14 at 448 px are 38 MB
KEEP_MAPS = 8  # per visitor
HALF = 2  # bytes a number: layers are kept in float16, whose rounding no picture shows


@dataclass
class Kept:
    """What is remembered of one image."""

    seen: weakref.ref[Seen]
    layers: dict[int, dict[str, torch.Tensor]] = field(default_factory=dict)  # number -> "final" and "values" [h, w, D]
    maps: OrderedDict[tuple, tuple[np.ndarray, np.ndarray]] = field(default_factory=OrderedDict)

    @property
    def num_bytes(self) -> int:
        return sum(grid.numel() * HALF for grids in self.layers.values() for grid in grids.values())


class LayerMemory:
    """Safe to share between threads."""

    def __init__(self):
        self._kept: OrderedDict[str, Kept] = OrderedDict()  # by visitor, oldest use first
        self._lock = threading.RLock()  # a collected image may call `_drop` in the thread that holds it

    def grid(self, visitor: str, seen: Seen, encoder: Encoder, layer: int, features: str) -> torch.Tensor:
        """Patches [h, w, D] float32 of a layer (1 to the encoder's last), "final" or "values".

        The first question about another layer than the last costs one pass through the encoder for all of them, or for
        that one where all would not fit into KEEP_BYTES. Raises ValueError on a layer or features that do not exist.
        """
        from tipsv2.analysis.heatmap import pick_features

        if layer == encoder.num_layers:
            return pick_features(seen.features, features)
        kept = self._of(visitor, seen)
        if layer not in kept.layers:
            grid = seen.features.patches
            fits = 2 * HALF * grid.numel() * encoder.num_layers <= KEEP_BYTES
            asked = range(1, encoder.num_layers) if fits and 1 <= layer < encoder.num_layers else [layer]
            found = encoder.encode_layers(seen.image, asked, seen.resolution)
            grids = {k: {"final": each.patches.half(), "values": each.values.half()} for k, each in found.items()}
            with self._lock:
                kept.layers = kept.layers | grids if fits else grids
                self._trim(visitor)
        if features not in kept.layers[layer]:
            raise ValueError(f"Unknown features '{features}': use values or final.")
        return kept.layers[layer][features].float()

    def map(self, visitor: str, seen: Seen, key: tuple) -> tuple[np.ndarray, np.ndarray] | None:
        """The map drawn before under this key, if it is still there."""
        with self._lock:
            return self._of(visitor, seen).maps.get(key)

    def keep_map(self, visitor: str, seen: Seen, key: tuple, found: tuple[np.ndarray, np.ndarray]) -> None:
        with self._lock:
            maps = self._of(visitor, seen).maps
            maps[key] = found
            while len(maps) > KEEP_MAPS:
                maps.popitem(last=False)

    def _of(self, visitor: str, seen: Seen) -> Kept:
        with self._lock:
            kept = self._kept.get(visitor)
            if kept is None or kept.seen() is not seen:
                kept = self._kept[visitor] = Kept(weakref.ref(seen, lambda gone: self._drop(visitor, gone)))
            self._kept.move_to_end(visitor)
            return kept

    def _trim(self, visitor: str) -> None:
        while sum(kept.num_bytes for kept in self._kept.values()) > KEEP_BYTES and next(iter(self._kept)) != visitor:
            self._kept.popitem(last=False)

    def _drop(self, visitor: str, gone: weakref.ref[Seen]) -> None:
        with self._lock:
            if visitor in self._kept and self._kept[visitor].seen is gone:
                del self._kept[visitor]
