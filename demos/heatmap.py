"""Tab: phrases -> one map each over the image; a click on a patch -> what resembles it.

python -m demos.heatmap --model google/tipsv2-b14
"""

from __future__ import annotations

import gradio as gr
import numpy as np

from demos import common, views
from demos.common import MODEL_WORK, answered, toasted, visitor
from demos.page import Page
from demos.studio import Seen, Studio

TITLE = "Heatmap"
MAX_QUERIES = 12
COLORMAPS = ("viridis", "cividis", "magma", "inferno", "gray")
NO_QUERY = ("What are you looking for?", "Type a few words and press Enter, or click a patch of the image.")


class Heatmaps:
    """The handlers of this tab; they hold nothing but the studio they share with the other tabs."""

    def __init__(self, studio: Studio):
        self.studio = studio

    def compare(self, image, queries, model, mode, features, templates, temperature, resolution, who):
        """-> (Seen, queries, similarities [N, h, w]). The image is encoded only if this visitor's memory lacks it."""
        from tipsv2.heatmap import compete, pick_features, similarity

        queries = common.texts(queries, "query", MAX_QUERIES)
        encoder = self.studio.encoder(model)
        seen = self.studio.encode(who, encoder, image, resolution)
        grid = pick_features(seen.features, features)
        if not queries:
            return seen, queries, grid.new_zeros(0, *grid.shape[:2])
        maps = similarity(grid, encoder.encode_text(queries, templates))
        if mode == "competing":
            if len(queries) < 2:
                raise ValueError("Competing maps need at least two queries: add another one, or go back to cosine.")
            maps = compete(maps, temperature)
        return seen, queries, maps

    @toasted
    def draw(
        self,
        image: str | None,
        queries: list[str] | None,
        patch: list[float] | None,
        model: str | None,
        mode: str,
        features: str,
        templates: str,
        temperature: float,
        resolution: float,
        colormap: str,
        shared: bool,
        smooth: bool,
        request: gr.Request = None,
    ) -> tuple[str, str]:
        """-> (maps, resolution note). patch: (x, y) in pixels of the image, or None."""
        if image is None:
            return views.empty(*common.NO_IMAGE), ""
        who = visitor(request)
        seen, queries, maps = self.compare(
            image, queries, model, mode, features, templates, temperature, resolution, who
        )
        training = self.studio.info(model).resolution
        note = common.resolution_note(tuple(maps.shape[1:]), seen.resolution, int(resolution), training)
        cards = self._cards(seen, queries, maps, mode, colormap, shared, smooth)
        if patch is not None:
            cards.insert(0, self._patch_card(seen, patch, features, colormap, smooth))
        if not cards:
            return views.empty(*NO_QUERY), note
        return views.maps(seen.image, cards, _bar(colormap)), note

    def _cards(
        self, seen: Seen, queries, maps, mode: str, colormap: str, shared: bool, smooth: bool
    ) -> list[views.Card]:
        if not queries:
            return []
        lows, highs = maps.amin(dim=(1, 2)).tolist(), maps.amax(dim=(1, 2)).tolist()
        if mode == "competing":
            lows, highs = [0.0] * len(lows), [1.0] * len(highs)  # shares of a patch: their range is known
        elif shared:
            lows, highs = [min(lows)] * len(lows), [max(highs)] * len(highs)
        pictures = _pictures(seen, maps, lows, highs, colormap, smooth)
        return [
            views.Card(query, grid.numpy(), picture, low, high)
            for query, grid, picture, low, high in zip(queries, maps, pictures, lows, highs, strict=True)
        ]

    def _patch_card(self, seen: Seen, patch, features: str, colormap: str, smooth: bool) -> views.Card:
        from tipsv2.heatmap import patch_similarity, pick_features

        grid = pick_features(seen.features, features)
        row, column = patch_at(patch, seen.features.size, tuple(grid.shape[:2]))
        similar = patch_similarity(grid, row, column)
        low, high = similar.min().item(), similar.max().item()
        (picture,) = _pictures(seen, similar[None], [low], [high], colormap, smooth)
        return views.Card("Clicked patch", similar.numpy(), picture, low, high, (row, column))

    @toasted
    def arrive(self, model: str | None, image: str | None):
        """A model is ready: its examples and its resolutions; on an empty page, its first example.
        -> (field, image, queries, examples, resolution).
        """
        info = self.studio.info(model)
        strip = common.strip_html(self.studio, model)
        resolution = gr.update(**common.resolution_range(info.resolution))
        if image is not None or not strip:
            return gr.skip(), gr.skip(), gr.skip(), strip, resolution
        return *self.take_example(model, 0)[:3], strip, resolution

    def take_example(self, model: str | None, index: int):
        """-> (field, image, queries, no patch)."""
        example = common.pick_example(self.studio, model, index)
        path = common.keep(example.path)
        return path, path, list(example.queries), None

    @answered
    def heatmap(
        self,
        image: str,
        queries: list[str],
        model: str,
        mode: str,
        features: str,
        templates: str,
        temperature: float,
        resolution: float,
        colormap: str,
        opacity: float,
        request: gr.Request = None,
    ) -> tuple[list, list[dict]]:
        """Where in the image is each phrase? Returns one overlay per query (PNG) and, per query, peak and mean score
        and the scores of all patches.

        image: the picture. queries: up to twelve phrases. model: an encoder on offer. mode: "cosine" (each query alone)
        or "competing" (softmax over the queries, by temperature). features: "values" or "final". templates: "none",
        "tips9" or "clip80". resolution: short side in pixels. colormap, opacity: of the overlays.
        """
        from tipsv2 import render
        from tipsv2.heatmap import to_pixels

        if image is None or not queries:
            raise ValueError("Give an image and at least one query.")
        who = visitor(request)
        seen, queries, maps = self.compare(
            image, queries, model, mode, features, templates, temperature, resolution, who
        )
        pixels = to_pixels(maps, seen.features.size).numpy()
        picture = np.asarray(seen.image)
        overlays = [render.overlay(picture, each, colormap=colormap, opacity=opacity) for each in pixels]
        scores = [
            {
                "query": query,
                "peak": round(grid.max().item(), 6),
                "mean": round(grid.mean().item(), 6),
                "patches": np.round(grid.double().numpy(), 5).tolist(),
            }
            for query, grid in zip(queries, maps, strict=True)
        ]
        return list(zip(overlays, queries, strict=True)), scores


def patch_at(point, size: tuple[int, int], grid: tuple[int, int]) -> tuple[int, int]:
    """(x, y) in pixels of an image of size (H, W) -> (row, column) of the patch there, clamped into the grid."""
    (x, y), (height, width), (rows, columns) = point, size, grid
    row, column = int(y / height * rows), int(x / width * columns)
    return min(max(row, 0), rows - 1), min(max(column, 0), columns - 1)


def _pictures(seen: Seen, maps, lows, highs, colormap: str, smooth: bool) -> list[np.ndarray]:
    """Coloured maps: interpolated to the size drawn, or one pixel per patch (the page enlarges it with hard edges)."""
    from tipsv2.heatmap import to_pixels
    from tipsv2.render import colorize

    if smooth:
        maps = to_pixels(maps, views.display_size(*seen.image.size))
    return [
        colorize(each.numpy(), colormap, low=low, high=high) for each, low, high in zip(maps, lows, highs, strict=True)
    ]


def _bar(colormap: str) -> np.ndarray:
    from tipsv2.render import colorize

    return colorize(np.linspace(0, 1, 256, dtype=np.float32)[None], colormap, low=0, high=1)


def picked(event: gr.EventData) -> list[float]:
    """A click in the image or in a map -> (x, y) in pixels of the image."""
    x, y = event.index
    return [float(x), float(y)]


def tab(page: Page) -> None:
    """Build the tab inside the current Blocks."""
    handlers = Heatmaps(page.studio)
    info = page.studio.info()
    patch = gr.State(None)
    with gr.Row(elem_classes="tips-work"):
        with gr.Column(elem_classes="tips-source"):
            field, image = common.image_field()
            strip = common.example_strip(page.studio)
        with gr.Column(elem_classes="tips-result"):
            queries = common.chips(
                "Look for",
                "Press Enter after each; × takes one away. Or click a patch of the image to see what resembles it.",
            )
            maps = gr.HTML(
                views.empty(*common.LOADING),
                js_on_load=common.script("maps.js"),
                apply_default_css=False,
                elem_classes="tips-output",
            )
        with gr.Column(elem_classes="tips-settings"):
            mode = gr.Radio(
                [("Cosine", "cosine"), ("Competing", "competing")],
                value="cosine",
                label="Score",
                info="Each query alone, or a softmax that makes the queries share every patch.",
            )
            temperature = gr.Slider(
                0.005, 0.2, value=0.05, step=0.005, label="Temperature", visible=False, elem_classes="tips-slider"
            )
            features, templates = common.embedding_choices("none")
            resolution = common.resolution_slider(info.resolution)
            note = gr.HTML("", apply_default_css=False, js_on_load=None, elem_classes="tips-under")
            colormap = gr.Dropdown(COLORMAPS, value="viridis", label="Colours", filterable=False)
            opacity = gr.Slider(0, 1, value=0.7, step=0.05, label="Opacity", elem_classes="tips-slider")
            shared = gr.Checkbox(False, label="One colour range for all queries")
            smooth = gr.Checkbox(True, label="Smooth between patches")

    inputs = [image, queries, patch, page.model, mode, features, templates, temperature]
    inputs += [resolution, colormap, shared, smooth]
    drawing = dict(fn=handlers.draw, inputs=inputs, outputs=[maps, note], api_visibility="private", **MODEL_WORK)
    shown = dict(show_progress="minimal", show_progress_on=maps, trigger_mode="always_last")

    def upload(payload: dict | None):
        return *common.accept_upload(payload), None

    @toasted
    def example(event: gr.EventData, model: str | None):
        return handlers.take_example(model, event.index)

    quiet = dict(api_visibility="private", show_progress="hidden")
    field.upload(upload, field, [field, image, patch], preprocess=False, **quiet).then(**drawing, **shown)
    field.clear(lambda: (None, None), None, [image, patch], **quiet).then(**drawing, **shown)
    strip.select(example, page.model, [field, image, queries, patch], **quiet).then(**drawing, **shown)
    gr.on([field.select, maps.select], picked, None, patch, **quiet).then(**drawing, **shown)
    maps.clear(lambda: None, None, patch, **quiet).then(**drawing, **shown)
    mode.change(lambda chosen: gr.update(visible=chosen == "competing"), mode, temperature, **quiet)
    # Of the chips' events only `change` tells of every chip added and removed; it also follows an example's queries.
    changes = [each.input for each in (mode, features, templates, temperature, resolution, colormap, shared, smooth)]
    gr.on([queries.change, *changes], **drawing, **shown)
    opacity.input(None, opacity, None, js="(v) => document.body.style.setProperty('--tips-heat', v)")
    page.on_arrival(handlers.arrive, [page.model, image], [field, image, queries, strip, resolution])
    page.on_arrival(handlers.draw, inputs, [maps, note])

    gr.Button(visible=False).click(
        handlers.heatmap,
        [
            common.api_image(),
            queries,
            page.choice,
            mode,
            features,
            templates,
            temperature,
            resolution,
            colormap,
            opacity,
        ],
        [gr.Gallery(visible=False, format="png", label="overlays"), gr.JSON(visible=False, label="scores")],
        api_name="heatmap",
        **MODEL_WORK,
    )


if __name__ == "__main__":
    from demos.launch import run

    run(["heatmap"], program="python -m demos.heatmap")
