"""What the tasks on the bundled scenes share: a split opened by its name, sizes the network takes, texts in batches.

split, count = open_split("scenes:val", 224, limit=50)
labelled = scene_split("scenes:val", 224)              # the same as a `layouts.Split` for segmentation
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, overload

import numpy as np
import torch
from tqdm.auto import tqdm

from tipsv2 import scenes
from tipsv2.collections.parts import limited
from tipsv2.evaluation.layouts import Split
from tipsv2.scenes.splits import SCENES, split_of

if TYPE_CHECKING:
    from tipsv2.network.encoder import Encoder

BATCH_SIZE = 16
TEXT_CHUNK = 32  # texts between two moves of the progress bar


def labels_of(scene: scenes.Scene) -> np.ndarray:
    """A scene's label map, int64 [S, S]."""
    return scene.labels.astype(np.int64)


@lru_cache(maxsize=1)  # a sample's picture and truth are asked for one after the other
def _drawn(draw: Callable[[], scenes.Scene]) -> scenes.Scene:
    return draw()


@dataclass(frozen=True)
class DrawnSample:
    """A scene as a `layouts.Sample`, drawn when its picture or its truth are asked for and not kept."""

    name: str
    draw: Callable[[], scenes.Scene]
    truth_of: Callable[[scenes.Scene], np.ndarray] = labels_of

    @property
    def image(self) -> np.ndarray:
        return _drawn(self.draw).image

    def truth(self) -> np.ndarray:
        return self.truth_of(_drawn(self.draw))


class DrawnSamples(Sequence[DrawnSample]):
    """Scenes as samples; none is kept."""

    def __init__(self, chosen: Sequence[scenes.Scene]):
        self._chosen = chosen

    def __len__(self) -> int:
        return len(self._chosen)

    @overload
    def __getitem__(self, index: int) -> DrawnSample: ...
    @overload
    def __getitem__(self, index: slice) -> list[DrawnSample]: ...
    def __getitem__(self, index: int | slice) -> DrawnSample | list[DrawnSample]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return DrawnSample(f"{index:04d}", partial(self._chosen.__getitem__, index))


def scene_split(data: str, size: int) -> Split:
    """ "scenes:val" or "scenes:style" -> a split for segmentation, its pictures `size` pixels a side."""
    return Split(SCENES, data.partition(":")[2], DrawnSamples(split_of(data, size)), scenes.names())


def open_split(data: str, size: int, limit: int | None = None) -> tuple[scenes.Split, int]:
    """The scenes of "scenes:val" or "scenes:style", `size` pixels a side, and how many of them to take."""
    split = split_of(data, size)
    return split, limited(len(split), limit)


def network_side(encoder: Encoder, resolution: int | None) -> int:
    """Side of the pictures in pixels: `resolution`, or the encoder's own; ValueError if it is not in whole patches."""
    side, patch = resolution or encoder.info.resolution, encoder.patch_size
    if side % patch:
        raise ValueError(
            f"resolution={side} is not a multiple of the patch size {patch}; take {max(patch, side // patch * patch)}."
        )
    return side


def to_pixels(pictures: Sequence[np.ndarray]) -> torch.Tensor:
    """Pictures uint8 [S, S, 3] of one size -> [B, 3, S, S] float32 in [0, 1], as `Encoder.encode_pixels` wants them."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255


def embed_texts(
    encoder: Encoder,
    texts: Sequence[str],
    templates: str | Sequence[str] = "none",
    progress: bool = True,
    keep: bool = False,
) -> torch.Tensor:
    """`Encoder.encode_text` with a progress bar, for eighty prompts a class or thousands of captions: [N, D]."""
    rows = []
    with tqdm(total=len(texts), unit="text", disable=not progress, desc="texts") as bar:
        for start in range(0, len(texts), TEXT_CHUNK):
            chunk = texts[start : start + TEXT_CHUNK]
            rows.append(encoder.encode_text(chunk, templates, keep))
            bar.update(len(chunk))
    return torch.cat(rows)
