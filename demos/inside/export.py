"""What the tab Inside gives to take along: the view on the page at the image's size, its numbers, and its code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from demos.backend.offer import shown_name
from demos.export import snippets
from demos.export.files import Taken
from demos.inside import code as inside_code
from demos.inside import work as inside_work
from demos.inside.work import MAX_WORDS
from demos.ui import chips
from demos.ui.controls import visitor

if TYPE_CHECKING:
    import gradio as gr

    from demos.inside.tab import InsideHandlers

PLANE = 8, 150  # inches of a map's side, pixels an inch


def take(
    tab: InsideHandlers, image, view, layer, model, features, resolution, red, green, blue, foreground, k, words,
    colors, neighbors, gap, request: gr.Request = None,
) -> Taken | None:  # fmt: skip
    """Takes what the tab's `draw` takes."""
    if image is None:
        return None
    who = visitor(request)
    seen, grid, layer = tab.patches(image, layer, model, features, resolution, who)
    encoder, size = tab.studio.encoder(model), seen.features.size
    shown = [int(number) - 1 for number in (red, green, blue)]
    k, neighbors = int(k), int(neighbors)
    numbers = {"view": view, "model": shown_name(encoder.info), "layer": layer, "features": features}
    numbers |= {"resolution": seen.resolution}
    masks = {}
    if view == "pca":
        basis, scores, picture = inside_work.principal(grid, shown, foreground)
        arrays = {"scores": scores, "explained": basis.explained}
        numbers |= {"explained": basis.explained, "components": [int(number) for number in (red, green, blue)]}
    elif view == "clusters":
        clusters = inside_work.clusters(grid, k)
        picture = inside_work.palette(len(clusters.shares))[clusters.labels]
        arrays = {"labels": clusters.labels, "shares": clusters.shares}
        numbers |= {"shares": clusters.shares}
        masks = {f"cluster {index + 1}": clusters.labels == index for index in range(len(clusters.shares))}
    elif view == "norms":
        norms, picture = inside_work.norms(grid)
        arrays = {"norms": norms.norms, "outliers": norms.outliers}
        numbers |= {"median": np.median(norms.norms), "limit": norms.limit, "outliers": np.argwhere(norms.outliers)}
        masks = {"outlier": norms.outliers}
    else:
        words, _ = chips.askable(words, "word", MAX_WORDS)
        mapped = tab.map(seen, grid, layer, model, features, words, neighbors, gap)
        if mapped is None:
            raise ValueError("The map is not drawn yet: press 'Draw the map' first.")
        by_image = colors == "pixels"
        points = inside_work.pixel_colors(seen.image, grid.shape[:2]) if by_image else inside_work.principal(grid)[2]
        places, word_places = mapped
        picture = _scatter(places, word_places, points, words)
        arrays = {"places": places, "word_places": word_places, "words": np.array(words, str)}
        numbers |= {"neighbors": neighbors, "gap": gap, "words": dict(zip(words, word_places, strict=True))}
    return Taken(
        view,
        {view: picture if view == "map" else _large(picture, size)},
        arrays | {"patches": grid.numpy()},
        numbers,
        {name: _large(mask, size) for name, mask in masks.items()},
        inside_code.python(
            view, encoder, layer, seen.resolution, features, shown, foreground, k, words or [], neighbors, gap
        ),
        "" if view == "map" else _command(encoder, layer, seen.resolution, features, k),
        shown_name(encoder.info),
        image,
    )


def _command(encoder, layer: int, resolution: int, features: str, k: int) -> str:
    return snippets.command(
        "features",
        snippets.IMAGE,
        model=snippets.model_name(encoder.info),
        features=features,
        layer=None if layer == encoder.num_layers else layer,
        resolution=resolution,
        clusters=k,
        out="features.png",
        arrays="features.npz",
    )


def _large(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    from tipsv2.analysis.feature_picture import shown_at

    return shown_at(picture, size)


def _scatter(places: np.ndarray, word_places: np.ndarray, colors: np.ndarray, words: list[str]) -> np.ndarray:
    """The map as a picture, uint8 [H, W, 3]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    side, dots = PLANE
    figure = Figure(figsize=(side, side), dpi=dots, layout="constrained")
    canvas = FigureCanvasAgg(figure)  # not pyplot, whose figures are one global list
    plane = figure.subplots()
    plane.scatter(*places.reshape(-1, 2).T, c=colors.reshape(-1, 3) / 255, s=14)
    plane.scatter(*word_places.T, marker="s", c="black", s=30)
    for word, place in zip(words, word_places, strict=True):
        plane.annotate(word, place, xytext=(6, 4), textcoords="offset points", parse_math=False, fontweight="bold")
    plane.set_axis_off()
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
