"""Tab: what is inside the patches, layer by layer: principal components, clusters, norms, a map of patches and words.

python -m demos.inside --model google/tipsv2-b14
"""

from __future__ import annotations

from functools import partial

import gradio as gr

from demos.backend.studio import Seen, Studio
from demos.inside import export as inside_export
from demos.inside import views as inside_views
from demos.inside import work as inside_work
from demos.inside.api import endpoints
from demos.inside.work import AXES, MAP_WORK, MAX_CLUSTERS, MAX_WORDS
from demos.ui import chips, controls, views
from demos.ui.controls import MODEL_WORK, toasted, visitor
from demos.ui.export_row import export_row
from demos.ui.page import Page

TITLE = "Inside"
VIEWS = {"pca": "PCA", "clusters": "Clusters", "map": "Map", "norms": "Norms"}


class InsideHandlers:
    """The handlers of this tab. They share the studio with the other tabs."""

    def __init__(self, studio: Studio):
        self.studio = studio
        self.projector = inside_work.Projector()

    def patches(self, image, layer, model, features, resolution, who):
        """-> (Seen, patches [h, w, D], layer number). layer: 1 to the encoder's last, which is also what 0 means."""
        from tipsv2.analysis.heatmap import pick_features

        encoder = self.studio.encoder(model)
        seen = self.studio.encode(who, encoder, image, resolution)
        layer = int(layer or 0) or encoder.num_layers
        return seen, pick_features(self.studio.layer(seen, encoder, layer), features), layer

    def map(self, seen: Seen, grid, layer, model, features, words, neighbors, gap, ask=False, progress=None):
        """-> (places of the patches [h, w, 2], places of the words [N, 2]), remembered or drawn; None if drawing would
        take long and nobody asked for it.
        """
        key = ("map", layer, features, tuple(words), int(neighbors), gap)
        places = seen.recall(key)
        if places is None and (ask or self.projector.quick(grid.shape[0] * grid.shape[1] + len(words))):
            text = self.studio.encoder(model).encode_text(words)
            places = self.projector.draw(grid, text, int(neighbors), gap, progress)
            self.studio.remember(seen, key, places)
        return places

    @toasted
    def draw(
        self,
        image: str | None,
        view: str,
        layer: float,
        model: str | None,
        features: str,
        resolution: float,
        red: int,
        green: int,
        blue: int,
        foreground: bool,
        k: float,
        words: list[str] | None,
        colors: str,
        neighbors: float,
        gap: str,
        request: gr.Request = None,
        ask: bool = False,
        progress=None,
    ) -> tuple[str, str]:
        """-> (view, resolution note). ask: draw a map even if that takes long; progress: told about it."""
        if image is None:
            return views.empty(*controls.NO_IMAGE), ""
        who = visitor(request)
        # A picture may come in before the slider has its new range: beyond the last layer it means the last.
        layer = min(int(layer or 0), self.studio.encoder(model).num_layers)
        seen, grid, layer = self.patches(image, layer, model, features, resolution, who)
        shape = tuple(grid.shape[:2])
        note = controls.resolution_note(shape, seen.resolution, int(resolution), self.studio.info(model).resolution)
        if view == "pca":
            shown = [int(number) - 1 for number in (red, green, blue)]
            basis, scores, painted = inside_work.principal(grid, shown, foreground)
            return inside_views.components(seen.image, painted, scores, basis.explained, shown), note
        if view == "clusters":
            clusters = inside_work.clusters(grid, k)
            palette = inside_work.palette(len(clusters.shares))
            return inside_views.clusters(seen.image, clusters.labels, clusters.shares, palette), note
        if view == "norms":
            return inside_views.norms(seen.image, *inside_work.norms(grid), views.color_bar("viridis")), note
        from tipsv2.analysis.heatmap import patch_maps

        words, refused = chips.askable(words, "word", MAX_WORDS)
        places = self.map(seen, grid, layer, model, features, words, neighbors, gap, ask, progress)
        if places is None:
            asking = inside_views.ask_for_map(shape[0] * shape[1], len(words), not self.projector.ready)
            return chips.not_asked(refused) + asking, note
        painted = inside_work.pixel_colors(seen.image, shape) if colors == "pixels" else inside_work.principal(grid)[2]
        encoder = self.studio.encoder(model)
        looked = self.studio.layer(seen, encoder, layer)
        cosines = patch_maps(looked, encoder.encode_text(words), features).numpy()
        drawn = inside_views.scatter(seen.image, places[0], painted, words, places[1], cosines, features == "final")
        return chips.not_asked(refused) + drawn, note

    def draw_map(self, request: gr.Request, progress=gr.Progress(), *inputs) -> tuple[str, str]:  # noqa: B008
        """As `draw` with the same inputs; draws the map whatever it takes."""
        return self.draw(*inputs, request=request, ask=True, progress=progress)

    @toasted
    def depth(self, model: str | None):
        """A model is ready: its layers, the last one chosen."""
        layers = self.studio.encoder(model).num_layers
        return gr.update(maximum=layers, value=layers)

    @toasted
    def arrive(self, model: str | None, image: str | None):
        """A model is ready: its examples and resolutions; on an empty page, its first example.
        -> (field, image, examples, resolution).
        """
        return controls.arrival(self.studio, model, image, lambda: self.take_example(model, 0)[:2], 2)

    def take_example(self, model: str | None, index: int):
        """-> (field, image, words)."""
        example = controls.pick_example(self.studio, model, index)
        path = controls.keep(example.path)
        return path, path, list(example.queries)


def _parts() -> dict:
    """The settings that belong to one view each, in columns of which one is seen."""
    numbers = list(range(1, AXES + 1))
    part = dict(min_width=0, elem_classes="tips-part")
    with gr.Column(**part) as pca:
        with gr.Row(elem_classes="tips-channels"):
            red, green, blue = (
                gr.Dropdown(numbers, value=value, label=label, filterable=False, min_width=0)
                for value, label in enumerate(inside_views.CHANNELS, 1)
            )
        foreground = gr.Checkbox(
            False, label="Foreground only", info="Leaves the background out and tells apart what remains."
        )
    with gr.Column(visible=False, **part) as clusters:
        k = gr.Slider(2, MAX_CLUSTERS, value=6, step=1, label="Clusters", elem_classes="tips-slider")
    with gr.Column(visible=False, **part) as maps:
        colors = gr.Radio([("Components", "pca"), ("Image", "pixels")], value="pca", label="Colours of the points")
        gap = gr.Radio(
            [("Patches", "bridge"), ("Words too", "keep")],
            value="bridge",
            label="Neighbours of a word",
            info="With words among them, a gap between text and images shows where the encoder leaves one.",
        )
        neighbors = gr.Slider(
            5, 50, value=15, step=1, label="Neighbours", info="Few keep what is near, many the whole.",
            elem_classes="tips-slider",
        )  # fmt: skip
    return dict(
        columns={"pca": pca, "clusters": clusters, "map": maps},
        settings=(red, green, blue, foreground, k),
        map=(colors, neighbors, gap),
    )


def tab(page: Page) -> None:
    """Build the tab inside the current Blocks."""
    handlers = InsideHandlers(page.studio)
    info = page.studio.info()
    with gr.Row(elem_classes="tips-work"):
        with gr.Column(elem_classes="tips-source"):
            field, image = controls.image_field()
            strip = controls.example_strip(page.studio)
        with gr.Column(elem_classes="tips-result") as result:
            choices = [(title, name) for name, title in VIEWS.items()]
            view = gr.Radio(choices, value="pca", show_label=False, container=False, elem_classes="tips-view")
            words = controls.chips(
                "Words on the map", "Press Enter after each; × takes one away.", controls.first_queries(page.studio)
            )
            words.visible = False
            shown = gr.HTML(
                views.empty(*controls.LOADING),
                js_on_load=controls.script("inside.js", "chips.js"),
                apply_default_css=False,
                elem_classes="tips-output",
            )
        with gr.Column(elem_classes="tips-settings"):
            # Until the encoder tells how deep it is, 1: a layer that every encoder has.
            layer = gr.Slider(1, 12, value=1, step=1, label="Layer", buttons=[], elem_classes="tips-slider")
            parts = _parts()
            features = gr.Radio(
                [("Layer's output", "final"), ("Values", "values")],
                value="final",
                label="Patch features",
                info="Values skip the layer's attention; the last layer's follow words more closely.",
            )
            resolution = controls.resolution_slider(info.resolution)
            note = gr.HTML("", apply_default_css=False, js_on_load=None, elem_classes="tips-under")
            opacity = gr.Slider(0, 1, value=1, step=0.05, label="Opacity", elem_classes="tips-slider")

    settings = [*parts["settings"], words, *parts["map"]]
    inputs = [image, view, layer, page.model, features, resolution, *settings]
    with result:
        export_row(partial(inside_export.take, handlers), inputs, masks=True)
    drawing = dict(fn=handlers.draw, inputs=inputs, outputs=[shown, note], api_visibility="private", **MODEL_WORK)
    minimal = dict(show_progress="minimal", show_progress_on=shown, trigger_mode="always_last")
    quiet = dict(api_visibility="private", show_progress="hidden")

    @toasted
    def example(event: gr.EventData, model: str | None):
        return handlers.take_example(model, controls.clicked(event, "index", int))

    def turn(chosen: str):
        mapped = gr.update(visible=chosen == "map")
        return (
            mapped,
            gr.update(visible=chosen != "map"),
            *(gr.update(visible=chosen == name) for name in parts["columns"]),
        )

    given = [
        field.upload(controls.accept_upload, field, [field, image], preprocess=False, **quiet),
        field.clear(lambda: None, None, image, **quiet),
        strip.select(example, page.model, [field, image, words], **quiet),
    ]
    for event in given:
        event.then(**drawing, **minimal)
    view.change(turn, view, [words, opacity, *parts["columns"].values()], **quiet)
    changes = [component.input for component in (view, layer, features, resolution, *parts["settings"], *parts["map"])]
    gr.on([words.change, *changes], **drawing, **minimal)
    shown.submit(
        handlers.draw_map,
        inputs,
        [shown, note],
        show_progress="full",
        show_progress_on=shown,
        trigger_mode="once",
        api_visibility="private",
        **MAP_WORK,
    )
    opacity.input(None, opacity, None, js="(v) => document.body.style.setProperty('--tips-inside', v)")
    page.workspace.share("inside", field, image, given, drawing | minimal, words=words)
    page.on_arrival(handlers.depth, page.model, layer)  # on its own: new words draw at once, with the layer of the page
    page.on_arrival(handlers.arrive, [page.model, image], [field, image, strip, resolution])
    names = "red green blue foreground clusters".split()
    page.reopening.keep(
        page,
        "inside",
        ranged=["resolution", "layer"],
        view=view,
        layer=layer,
        features=features,
        resolution=resolution,
        **dict(zip(names, parts["settings"], strict=True)),
        **dict(zip(("colors", "neighbors", "gap"), parts["map"], strict=True)),
    )
    page.on_arrival(handlers.draw, inputs, [shown, note])

    endpoints(handlers, page, [view, features], parts["settings"], [words, *parts["map"][1:]])
