"""Behind the Compare tab: two sides that look at one image, two encoders or two kinds of features of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from demos.backend.offer import shown_name
from demos.backend.studio import Seen, Studio
from demos.ui import controls, views
from tipsv2.checkpoints import bundled
from tipsv2.checkpoints.catalogue import is_cached

if TYPE_CHECKING:
    from tipsv2.analysis.alignment import Comparison
    from tipsv2.checkpoints.catalogue import ModelInfo
    from tipsv2.network.encoder import Encoder

MAX_QUERIES = 8
FEATURES = {"values": "values", "final": "final layer"}
POINTER = 40
AXES = 8  # of each model's components that may be turned to find the three that are shown


@dataclass(frozen=True)
class Both:
    """What two sides made of one image."""

    names: tuple[str, str]
    encoders: tuple[Encoder, Encoder]
    seen: tuple[Seen, Seen]
    features: tuple[str, str]

    @property
    def grids(self) -> list:
        """The patches of A and of B, [h, w, D] each; grids and widths may differ."""
        from tipsv2.analysis.heatmap import pick_features

        return [pick_features(seen.features, kind) for seen, kind in zip(self.seen, self.features, strict=True)]

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels at which the image is drawn and everything is measured."""
        return views.display_size(*self.seen[0].image.size)

    @property
    def unfamiliar(self) -> list[ModelInfo]:
        """Of the encoders those that have never seen a picture of this kind, as far as anybody has fitted that."""
        from tipsv2.analysis.verdict import is_familiar

        pairs = zip(self.encoders, self.seen, strict=True)
        return [encoder.info for encoder, seen in pairs if not is_familiar(encoder, seen.features.values)]


def look(studio: Studio, who: str, image, models: Sequence, features: Sequence[str], resolution: float) -> Both:
    """Encode the image on both sides, unless this visitor's memory has it. resolution: 0 for each as trained."""
    if image is None:
        raise ValueError("Give an image.")
    encoders = studio.encoders(*models)
    seen = tuple(studio.encode(who, encoder, image, int(resolution or 0)) for encoder in encoders)
    names = tuple(shown_name(encoder.info) for encoder in encoders)
    if encoders[0] is encoders[1] or features[0] != features[1]:
        names = tuple(f"{name} ({FEATURES.get(kind, kind)})" for name, kind in zip(names, features, strict=True))
    return Both(names, encoders, seen, tuple(features))


def asked(queries: Sequence[str] | None) -> list[str]:
    """The queries, cleaned. Raises ValueError."""
    return controls.texts(queries, "query", MAX_QUERIES)


def measure(both: Both, queries, templates, scale, masks, size: tuple[int, int] | None = None) -> Comparison:
    """Both maps of every query, and what they are worth. masks: as in `compare_maps`; size: by default as drawn."""
    from tipsv2.analysis.alignment import compare_maps
    from tipsv2.analysis.heatmap import patch_maps

    sides = zip(both.encoders, both.seen, both.features, strict=True)
    maps = [patch_maps(seen.features, encoder.encode_text(queries, templates), kind) for encoder, seen, kind in sides]
    return compare_maps(maps[0], maps[1], queries, both.names, masks, scale, size=size or both.size)


def every_layer(both: Both, queries, templates, masks) -> tuple[np.ndarray, str, tuple[np.ndarray, np.ndarray]]:
    """-> (CKA [L of A, L of B], measure, scores of A [L, N] and of B); as `layer_cka` and `layer_scores`."""
    from tipsv2.analysis.layers import layer_cka, layer_scores

    layers, scores = [], []
    for encoder, seen, kind in zip(both.encoders, both.seen, both.features, strict=True):
        if layers and encoder is both.encoders[0]:
            layers.append(layers[0])
        else:
            by_layer = encoder.encode_layers(seen.image, resolution=seen.resolution)
            layers.append({number: replace(grids, size=both.size) for number, grids in by_layer.items()})
        measured, table = layer_scores(layers[-1], encoder.encode_text(queries, templates), masks, kind)
        scores.append(table)
    return layer_cka([tuple(layers)]), measured, tuple(scores)


def joint_colors(both: Both) -> tuple[list[np.ndarray], str]:
    """-> (a picture of the principal components per side, uint8 [h, w, 3], how their colours were made comparable)."""
    from tipsv2.analysis.projection import align, components_as_rgb, pca, project

    a, b = both.grids
    if both.encoders[0] is both.encoders[1]:
        basis = other = pca([a, b])
        share = 100 * basis.explained[:3].sum()
        note = f"One basis for both: the first three components hold {share:.0f} % of the variance of all patches."
    else:
        basis = pca([a], AXES)
        other, rest = align(basis, a, pca([b], AXES), b)
        note = (
            "The components of A, and those of B turned to meet them as well as a rotation can: "
            f"{100 * rest:.0f} % of the variance stays different."
        )
    colors = components_as_rgb([project(a, basis), project(b, other)])
    return [(color * 255 + 0.5).astype(np.uint8) for color in colors], note


def coarse(maps: np.ndarray) -> np.ndarray:
    """Maps [N, H, W] at POINTER places of the long side, for reading values under the pointer: [N, h, w]."""
    rows, columns = (min(side, max(1, round(POINTER * side / max(maps.shape[1:])))) for side in maps.shape[1:])
    ys, xs = (
        ((np.arange(count) + 0.5) * side / count).astype(int)
        for count, side in zip((rows, columns), maps.shape[1:], strict=True)
    )
    return maps[:, ys[:, None], xs[None]]


def farthest(comparison: Comparison) -> float:
    """The end of the difference's colours, one for all queries; no difference at all is white, not an error."""
    return float(np.abs(comparison.difference).max()) or 1.0


def sights(both: Both) -> str:
    """What each side saw of the image, or that there is nothing to compare."""
    if both.names[0] == both.names[1] and both.encoders[0] is both.encoders[1]:
        return views.note("Both sides are the same: choose another encoder or other features for one of them.", "warn")
    rows = (
        f"{side} sees {seen.resolution} px, {grid.shape[0]} × {grid.shape[1]} patches."
        for side, seen, grid in zip("AB", both.seen, both.grids, strict=True)
    )
    return views.note(" ".join(rows))


def opening(studio: Studio, model: str | None) -> tuple[str, str, str]:
    """-> (A, B, features of B) to open with: where nothing but the default encoder was asked for, `bundled.pair`; else
    the page's model and its `partner`.
    """
    name = studio.info(model).name
    if studio.opening == (bundled.default(),) == (name,) and (both := bundled.pair()):
        return *both, "values"
    return name, *partner(studio, model)


def partner(studio: Studio, model: str | None) -> tuple[str, str]:
    """Who stands opposite a model at first, and with which features: the other one the app was started with, else
    another encoder that is on this machine already, else itself with its final layer.
    """
    name = studio.info(model).name
    if asked_for := [other for other in studio.opening if other != name]:
        return asked_for[0], "values"
    for _, other in studio.choices():
        info = studio.info(other)
        if other != name and (info.source != "hub" or is_cached(info)):
            return other, "values"
    return name, "final"
