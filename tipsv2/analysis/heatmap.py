"""Features and text rows become maps: similarity, competition among queries, the way from patches to pixels, the peak.

`maps` asks features that are there already, as often as one likes; `heatmap` looks first. Everything else that asks
where a phrase is, in the library, the app and the training, goes through `maps` or `patch_maps`.
Sizes: N queries, h x w patches, D embedding width, H x W pixels, M windows.

    from tipsv2 import load
    from tipsv2.analysis.heatmap import heatmap, maps
    encoder = load()
    heatmap(encoder, "dog.jpg", ["a dog", "grass"])                 # [2, H, W] float32
    features = encoder.look("dog.jpg")                              # or look once,
    maps(features, encoder.encode_text(["a dog", "grass"]))         # and ask: the same maps
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from tipsv2.network.view import View

if TYPE_CHECKING:
    import numpy as np

    from tipsv2.images import ImageSource
    from tipsv2.network.encoder import Encoder
    from tipsv2.network.view import ImageFeatures, Windows

MODES = ("cosine", "competing")
FEATURES = ("values", "final")


def similarity(patches: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """Cosine of every patch with every text: patches [h, w, D], text [N, D], any lengths -> [N, h, w] in [-1, 1]."""
    patches, text = F.normalize(patches, dim=-1), F.normalize(text, dim=-1)
    return torch.einsum("hwd,nd->nhw", patches, text)


def compete(similarities: torch.Tensor, temperature: float = 0.05) -> torch.Tensor:
    """Softmax over the queries at each patch: cosines [N, h, w] -> shares [N, h, w] that add up to one over N."""
    if temperature <= 0:
        raise ValueError(f"The temperature must be above 0, not {temperature}.")
    return (similarities / temperature).softmax(dim=0)


def patch_similarity(patches: torch.Tensor, row: int, col: int, other: torch.Tensor | None = None) -> torch.Tensor:
    """Cosine of the patch (row, col) of `patches` [h, w, D] with every patch -> [h, w].

    other: [h', w', D], the patches to compare with instead, of a second image.
    """
    height, width = patches.shape[:2]
    if not (0 <= row < height and 0 <= col < width):
        raise ValueError(f"Patch ({row}, {col}) lies outside the grid of {height} rows and {width} columns.")
    return similarity(patches if other is None else other, patches[row, col][None])[0]


def to_pixels(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Maps over patches [N, h, w] -> maps over pixels [N, H, W] for size (H, W), bilinear, align_corners=False."""
    return F.interpolate(maps[None].float(), size=tuple(size), mode="bilinear", align_corners=False)[0]


def pick_features(features: ImageFeatures, kind: str) -> torch.Tensor:
    """The patches [h, w, D] of an image: its value features ("values") or its last layer ("final")."""
    if kind not in FEATURES:
        raise ValueError(f"Unknown features '{kind}': use {' or '.join(FEATURES)}.")
    return features.values if kind == "values" else features.patches


def patch_maps(
    features: ImageFeatures, text: torch.Tensor, kind: str = "values", temperature: float | None = None
) -> torch.Tensor:
    """Cosines of an image's patches with text rows [N, D] -> [N, h, w] in [-1, 1]; of windows apart [M, N, h, w].

    kind: of FEATURES.   temperature: instead of cosines the shares of `compete`, in [0, 1].
    """
    grid = pick_features(features, kind)
    text = text.to(grid.device)
    if features.windows is None:
        cosines = similarity(grid, text)
        return cosines if temperature is None else compete(cosines, temperature)
    cosines = torch.stack([similarity(window, text) for window in grid])
    return cosines if temperature is None else torch.stack([compete(window, temperature) for window in cosines])


def maps(
    features: ImageFeatures,
    text: torch.Tensor,
    kind: str = "values",
    temperature: float | None = None,
    count: int | None = None,
    size: tuple[int, int] | None = None,
) -> torch.Tensor:
    """Where in an image is each of the texts? The features of one `look` answer any number of questions.

    text: unit rows [N, D] of `Encoder.encode_text`.   kind, temperature: as in `patch_maps`.   count: only the first so
    many get a map; the others are distractors, which take their share.   size: (H, W) of the maps, by default the
    image's own.
    Returns float32 [count or N, H, W]; of windows apart the mean of their maps where they overlap.
    """
    size = features.size if size is None else size
    answers = patch_maps(features, text, kind, temperature)
    if features.windows is None:
        return to_pixels(answers[:count], size)
    return to_pixels(mean_of_windows(answers[:, :count], features.windows), size)


def mean_of_windows(
    cosines: torch.Tensor,
    windows: Windows,
    first: int = 0,
    last: int | None = None,
    softmax: bool = False,
) -> torch.Tensor:
    """Maps of windows apart [M, N, h, w], made pixels, and their mean where they overlap: rows `first` to `last` of the
    resized picture, by default all of them [N, last - first, W].

    softmax: over N at every pixel before the mean, without a temperature, as TIPSv2's notebook does. A few rows at a
    time stay in a CPU's cache from cosine to mean.
    """
    (height, width), last = windows.window, windows.size[0] if last is None else last
    total = cosines.new_zeros(cosines.shape[1], last - first, windows.size[1])
    count = total.new_zeros(last - first, windows.size[1])
    down, right = (_bilinear(*sides).to(total.device) for sides in zip(cosines.shape[2:], (height, width), strict=True))
    for grid, (top, left) in zip(cosines, windows.corners, strict=True):
        start, stop = max(first, top), min(last, top + height)
        if start < stop:
            part = down[start - top : stop - top] @ grid @ right.T
            place = (slice(start - first, stop - first), slice(left, left + width))
            own = total[(slice(None), *place)]
            if softmax:
                part = part.exp_()  # no cosine is too large for it
                own.addcdiv_(part, part.sum(dim=0))
            else:
                own += part
            count[place] += 1
    return total.div_(count)


@cache
def _bilinear(samples: int, pixels: int) -> torch.Tensor:
    """[pixels, samples]: what every pixel of a line takes of every sample, as F.interpolate does it."""
    return F.interpolate(torch.eye(samples)[None], size=pixels, mode="linear", align_corners=False)[0].T.contiguous()


@dataclass(frozen=True)
class Peak:
    """Where a map is highest: the patch with the highest score, whatever the size at which the map is drawn."""

    score: float
    row: int  # of the patch
    column: int
    grid: tuple[int, int]  # (h, w)

    def at(self, size: tuple[int, int]) -> tuple[int, int]:
        """(x, y): the pixel in the middle of that patch, in a picture of size (H, W)."""
        (height, width), (rows, columns) = size, self.grid
        return int((self.column + 0.5) * width / columns), int((self.row + 0.5) * height / rows)


def peak(scores: torch.Tensor | np.ndarray) -> Peak:
    """The peak of one map over patches [h, w]; of equals the first."""
    row, column = divmod(int(scores.argmax()), scores.shape[1])
    return Peak(float(scores[row, column]), row, column, tuple(scores.shape))


def heatmap(
    encoder: Encoder,
    image: ImageSource,
    queries: Sequence[str],
    mode: str = "cosine",
    features: str | int = "values",
    templates: str | Sequence[str] = "none",
    resolution: int | None = None,
    temperature: float = 0.05,
    distractors: Sequence[str] = (),
) -> np.ndarray:
    """Where in the image is each phrase?

    image: anything `tipsv2.images.open_image` takes.   queries: N phrases.
    mode: "cosine" (each query alone, [-1, 1]) or "competing" (softmax over the queries at each patch, [0, 1]).
    features: "values" (last block with attention replaced by its values: better aligned), "final" (last layer), or the
        number of a layer from 1, whose output goes through the final LayerNorm.
    templates, resolution: as in Encoder.encode_text and Encoder.encode_image.   temperature: of "competing".
    distractors: further phrases that take their share in "competing" and get no map.
    Returns float32 [N, H, W] in the pixels of the image that came in. Raises ValueError on unknown names or no queries.
    """
    text, share = query_rows(encoder, queries, mode, templates, temperature, distractors)
    layer, kind = layer_and_kind(features)
    return maps(encoder.look(image, View(resolution), layer), text, kind, share, len(queries)).numpy()


def query_rows(
    encoder: Encoder,
    queries: Sequence[str],
    mode: str = "cosine",
    templates: str | Sequence[str] = "none",
    temperature: float = 0.05,
    distractors: Sequence[str] = (),
) -> tuple[torch.Tensor, float | None]:
    """Phrases -> (their rows [N, D], the distractors' after them; the temperature as `maps` takes it), arguments and
    errors as in `heatmap`.
    """
    if mode not in MODES:
        raise ValueError(f"Unknown mode '{mode}': use {' or '.join(MODES)}.")
    if not len(queries):
        raise ValueError("Give at least one phrase to look for.")
    if mode == "competing" and len(queries) + len(distractors) < 2:
        raise ValueError("Competing maps need at least two queries: add another phrase or use the mode 'cosine'.")
    text = encoder.encode_text(queries, templates)
    if mode == "cosine":
        return text, None
    return torch.cat([text, encoder.encode_text(distractors, templates)]) if len(distractors) else text, temperature


def layer_and_kind(features: str | int) -> tuple[int | None, str]:
    """What to `look` for and what to ask: the number of a layer means its patches, any other name the last layer's."""
    return (features, "final") if isinstance(features, int) else (None, features)
