"""The Inside tab for programs: named endpoints for gradio_client, each with what it takes and returns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import gradio as gr
import numpy as np

from demos.inside import work as inside_work
from demos.inside.work import MAP_WORK, MAX_WORDS
from demos.ui import controls
from demos.ui.controls import MODEL_WORK, answered, visitor

if TYPE_CHECKING:
    from demos.inside.tab import InsideHandlers
    from demos.ui.page import Page

VIEWS = ("pca", "clusters", "norms")


class Endpoints:
    """Handlers of the API; they hold nothing but the tab's own handlers, whose memory they share."""

    def __init__(self, tab: InsideHandlers):
        self.tab = tab

    @answered
    def features(
        self,
        image: str,
        view: str,
        layer: float,
        model: str,
        features: str,
        resolution: float,
        red: int,
        green: int,
        blue: int,
        foreground: bool,
        k: float,
        request: gr.Request = None,
    ) -> tuple[np.ndarray, dict]:
        """What do the patches of one layer hold? Returns a picture as large as the image (PNG) and the numbers behind
        it, patches row by row.

        image: the picture. view: "pca" (scores along three components as colours), "clusters" (k-means of directions)
        or "norms" (lengths, and which of them are outliers). layer: 1 to the encoder's last, or 0 for the last. model:
        an encoder on offer. features: "final" (the layer's output) or "values". resolution: short side in pixels, 0
        for as trained. red, green, blue: numbers of components from 1. foreground: leave the background's patches out.
        k: clusters.
        """
        if view not in VIEWS:
            raise ValueError(f"Unknown view '{str(view)[:80]}': use {', '.join(VIEWS)}, or the endpoint /feature_map.")
        seen, grid, numbers = self._look(image, layer, model, features, resolution, visitor(request))
        if view == "pca":
            shown = [int(number) - 1 for number in (red, green, blue)]
            basis, scores, picture = inside_work.principal(grid, shown, foreground)
            numbers |= {"explained": _rounded(basis.explained), "scores": _rounded(scores[..., shown])}
        elif view == "clusters":
            clusters = inside_work.clusters(grid, k)
            picture = inside_work.palette(len(clusters.shares))[clusters.labels]
            numbers |= {"shares": _rounded(clusters.shares), "labels": clusters.labels.tolist()}
        else:
            norms, picture = inside_work.norms(grid)
            numbers |= {"norms": _rounded(norms.norms), "limit": round(norms.limit, 5)}
            numbers |= {"outliers": np.argwhere(norms.outliers).tolist()}
        return _large(picture, seen), numbers

    @answered
    def feature_map(
        self,
        image: str,
        words: list[str],
        layer: float,
        model: str,
        features: str,
        resolution: float,
        neighbors: float,
        gap: str,
        request: gr.Request = None,
    ) -> tuple[np.ndarray, dict]:
        """Which patches and words are alike? Returns their places on a plane by UMAP, of the patches row by row, and a
        picture as large as the image (PNG) that colours each patch by its components. The first call on a machine
        takes up to half a minute.

        image: the picture. words: up to 24 phrases, or none. layer: 1 to the encoder's last, or 0 for the last. model:
        an encoder on offer. features: "final" (the layer's output) or "values". resolution: short side in pixels, 0
        for as trained. neighbors: whose nearness is kept. gap: "bridge" (a word's neighbours are patches) or "keep"
        (words too).
        """
        words, who = controls.texts(words, "word", MAX_WORDS), visitor(request)
        seen, grid, numbers = self._look(image, layer, model, features, resolution, who)
        places = self.tab.map(seen, grid, numbers["layer"], model, features, words, neighbors, gap, ask=True)
        numbers |= {"patches": _rounded(places[0]), "words": dict(zip(words, _rounded(places[1]), strict=True))}
        return _large(inside_work.principal(grid)[2], seen), numbers

    def _look(self, image, layer, model, features, resolution, who):
        if image is None:
            raise ValueError("Give an image.")
        seen, grid, layer = self.tab.patches(image, layer, model, features, resolution, who)
        return seen, grid, {"layer": layer, "grid": list(grid.shape[:2])}


def endpoints(tab: InsideHandlers, page: Page, common_inputs: Sequence, settings: Sequence, mapped: Sequence) -> None:
    """Register the endpoints. common_inputs: view, features; settings: those of the views; mapped: words, neighbours,
    gap.
    """
    api = Endpoints(tab)
    (view, features), (words, *options) = common_inputs, mapped
    layer = gr.Number(0, visible=False, precision=0, label="layer")  # the slider's own value is one model's last layer
    given = [layer, page.choice, features, controls.api_resolution()]
    for handler, inputs, work in (
        (api.features, [view, *given, *settings], MODEL_WORK),
        (api.feature_map, [words, *given, *options], MAP_WORK),
    ):
        gr.Button(visible=False).click(
            handler,
            [controls.api_image(), *inputs],
            [gr.Image(visible=False, format="png", label="picture"), gr.JSON(visible=False, label="numbers")],
            api_name=handler.__name__,
            **work,
        )


def _large(picture: np.ndarray, seen) -> np.ndarray:
    from tipsv2.analysis.feature_picture import shown_at

    return shown_at(picture, seen.features.size)


def _rounded(values: np.ndarray) -> list:
    return np.round(values.astype(float), 5).tolist()
