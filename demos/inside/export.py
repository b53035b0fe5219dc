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
from demos.ui import controls
from demos.ui.controls import visitor

if TYPE_CHECKING:
    import gradio as gr

    from demos.inside.tab import Insides

PLANE = 8, 150  # inches of a map's side, pixels an inch


def take(
    tab: Insides, image, view, layer, model, features, resolution, red, green, blue, foreground, k, words, colors,
    neighbors, gap, request: gr.Request = None,
) -> Taken | None:  # fmt: skip
    """Takes what the tab's `draw` takes."""
    if image is None:
        return None
    who = visitor(request)
    seen, grid, layer = tab.patches(image, layer, model, features, resolution, who)
    encoder, size = tab.studio.encoder(model), seen.features.size
    shown = [int(each) - 1 for each in (red, green, blue)]
    k, neighbors = int(k), int(neighbors)
    told = {"view": view, "model": shown_name(encoder.info), "layer": layer, "features": features}
    told |= {"resolution": seen.resolution}
    masks = {}
    if view == "pca":
        basis, scores, picture = inside_work.principal(grid, shown, foreground)
        arrays = {"scores": scores, "explained": basis.explained}
        told |= {"explained": basis.explained, "components": [int(each) for each in (red, green, blue)]}
    elif view == "clusters":
        found = inside_work.clusters(grid, k)
        picture = inside_work.palette(len(found.shares))[found.labels]
        arrays = {"labels": found.labels, "shares": found.shares}
        told |= {"shares": found.shares}
        masks = {f"cluster {index + 1}": found.labels == index for index in range(len(found.shares))}
    elif view == "norms":
        found, picture = inside_work.norms(grid)
        arrays = {"norms": found.norms, "outliers": found.outliers}
        told |= {"median": np.median(found.norms), "limit": found.limit, "outliers": np.argwhere(found.outliers)}
        masks = {"outlier": found.outliers}
    else:
        words = controls.texts(words, "word", MAX_WORDS)
        found = tab.map(seen, grid, layer, model, features, words, neighbors, gap)
        if found is None:
            raise ValueError("The map is not drawn yet: press 'Draw the map' first.")
        by_image = colors == "pixels"
        points = inside_work.pixel_colors(seen.image, grid.shape[:2]) if by_image else inside_work.principal(grid)[2]
        picture = _scatter(*found, points, words)
        arrays = {"places": found[0], "word_places": found[1], "words": np.array(words, str)}
        told |= {"neighbors": neighbors, "gap": gap, "words": dict(zip(words, found[1], strict=True))}
    return Taken(
        view,
        {view: picture if view == "map" else _large(picture, size)},
        arrays | {"patches": grid.numpy()},
        told,
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
