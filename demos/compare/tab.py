"""Tab: two encoders, or two kinds of features of one, on the same image and queries: maps, difference, scores, layers.

python -m demos.compare --model google/tipsv2-b14
"""

from __future__ import annotations

from functools import partial

import gradio as gr
import numpy as np

from demos.backend.studio import Studio
from demos.compare import charts as compare_charts
from demos.compare import export as compare_export
from demos.compare import mask as compare_mask
from demos.compare import views as compare_views
from demos.compare.api import endpoints
from demos.compare.sides import (
    MAX_QUERIES,
    coarse,
    every_layer,
    farthest,
    joint_colors,
    look,
    measure,
    opening,
    partner,
    sights,
)
from demos.compare.steps import Steps, slider
from demos.ui import chips, controls, views
from demos.ui.controls import MODEL_WORK, toasted, visitor
from demos.ui.examples import Example
from demos.ui.export_row import export_row
from demos.ui.loading import Loading
from demos.ui.page import Page
from demos.ui.verdicts import unfamiliar

TITLE = "Compare"
COLORS, SIGNED = "viridis", "RdBu_r"
RESOLUTIONS = (112, 168, 224, 336, 448, 672, 896)
UNDECIDED = "Nothing here says which side is right: no mask was given (the two sides' maps correlate {:.2f})."
NO_QUERY = ("What should both look for?", "Type a few words and press Enter.")


class Compares:
    """The handlers of this tab; they hold nothing but the studio they share with the other tabs."""

    def __init__(self, studio: Studio):
        self.studio = studio
        self.load = Loading(studio).load

    @toasted
    def draw(
        self,
        image: str | None,
        model_a: str | None,
        features_a: str,
        model_b: str | None,
        features_b: str,
        resolution: float,
        queries: list[str] | None,
        templates: str,
        mask: np.ndarray | None,
        masked: str | None,
        scale: str,
        request: gr.Request = None,
    ) -> tuple[str, str]:
        """-> (sentence, cards and table; resolution note)."""
        if image is None:
            return views.empty(*controls.NO_IMAGE), ""
        queries, refused = chips.askable(queries, "query", MAX_QUERIES)
        if not queries:
            return chips.not_asked(refused) + views.empty(*NO_QUERY), ""
        who = visitor(request)
        both = look(self.studio, who, image, (model_a, model_b), (features_a, features_b), resolution)
        masks = compare_mask.for_queries(queries, masked, mask)
        comparison = measure(both, queries, templates, scale, masks)
        low, high, most = spans = float(comparison.scaled.min()), float(comparison.scaled.max()), farthest(comparison)
        color = views.colored
        cards = [
            compare_views.PairCard(
                query,
                (color(a, COLORS, low, high), color(b, COLORS, low, high), color(signed, SIGNED, -most, most)),
                coarse(np.stack([a, b])),
                scores,
                agreement,
                None if truth is None else compare_mask.outline(truth),
            )
            for query, a, b, signed, scores, agreement, truth in zip(
                queries,
                *comparison.scaled,
                comparison.difference,
                zip(*comparison.scores, strict=True),
                comparison.agreement,
                masks,
                strict=True,
            )
        ]
        bars = views.color_bar(COLORS), views.color_bar(SIGNED)
        unseen = unfamiliar(both.unfamiliar, offer=False)
        sentence = comparison.sentence
        if unseen and all(truth is None for truth in masks):
            sentence = UNDECIDED.format(float(np.mean(comparison.agreement)))
        drawn = compare_views.pairs(both.seen[0].image, comparison.names, sentence, cards, scale, spans, bars)
        return chips.not_asked(refused) + unseen + drawn, sights(both)

    @toasted
    def paint(
        self,
        image: str | None,
        model_a: str | None,
        features_a: str,
        model_b: str | None,
        features_b: str,
        resolution: float,
        request: gr.Request = None,
    ) -> str:
        """Both sides' principal components in comparable colours."""
        if image is None:
            return ""
        who = visitor(request)
        both = look(self.studio, who, image, (model_a, model_b), (features_a, features_b), resolution)
        pictures, note = joint_colors(both)
        return compare_views.colors(both.names, pictures, both.seen[0].image.size, note)

    @toasted
    def layers(
        self,
        image: str | None,
        model_a: str | None,
        features_a: str,
        model_b: str | None,
        features_b: str,
        resolution: float,
        queries: list[str] | None,
        templates: str,
        mask: np.ndarray | None,
        masked: str | None,
        request: gr.Request = None,
    ) -> str:
        """The two charts of the layer view."""
        from tipsv2.analysis.render import colorize

        queries, _ = chips.askable(queries, "query", MAX_QUERIES)
        if image is None or not queries:
            raise ValueError("Give an image and at least one query first.")
        who = visitor(request)
        both = look(self.studio, who, image, (model_a, model_b), (features_a, features_b), resolution)
        masks = compare_mask.for_queries(queries, masked, mask)
        cka, measured, scores = every_layer(both, queries, templates, masks)
        return compare_charts.layers(
            both.names, cka, colorize(cka, COLORS, 0, 1), views.color_bar(COLORS), measured, scores, queries
        )

    def open(self, names: list[str], current_a: str | None, current_b: str | None) -> tuple:
        """Two encoders handed over by another tab -> (picker A, model A, picker B, model B)."""
        return *self.load(names[0], current_a)[:2], *self.load(names[-1], current_b)[:2]

    @toasted
    def arrive(self, model: str | None, image: str | None, model_b: str | None):
        """The page's model is ready: it becomes A, and B stays if it is another one; a page that opens takes what
        `opening` says. On an empty page, its first example.
        -> (picker A, model A, picker B, model B, features B, field, image, examples).
        """
        name, other = self.studio.info(model).name, (gr.skip(),) * 3
        if model_b is None:
            name, *pair = opening(self.studio, model)
            name = self.load(name, self.studio.info(model).name)[1]
        if model_b in (None, name):
            wanted, kind = pair if model_b is None else partner(self.studio, model)
            picker, loaded, _ = self.load(wanted, name)
            other = picker, loaded, kind if loaded == wanted else "final"
        return (
            name,
            name,
            *other,
            *controls.arrival(self.studio, model, image, lambda: self.take_example(model, 0)[:2], 2)[:-1],
        )

    def take_example(self, model: str | None, index: int):
        """-> (field, image, queries)."""
        example = controls.pick_example(self.studio, model, index)
        path = controls.keep(example.path)
        return path, path, present(example)


def present(example: Example | None) -> list[str]:
    """The queries that both sides are asked: a peak on what the image does not show would count as a sharp one."""
    return list(example.present)[:MAX_QUERIES] if example else []


def shown_of(words: list[str], example: Example | None) -> list[str]:
    """Those of the words that both sides are asked; see `present`."""
    return [word for word in words if example is None or word not in example.absent][:MAX_QUERIES]


def _side(page: Page, side: str, features: str) -> tuple[gr.Dropdown, gr.Radio]:
    """The pickers of one side."""
    picker = page.picker(side, elem_classes=f"tips-side-{side.lower()}")
    kinds = [("Values", "values"), ("Final layer", "final")]
    return picker, gr.Radio(kinds, value=features, show_label=False, label=f"Features of {side}")


def tab(page: Page) -> None:
    """Build the tab inside the current Blocks."""
    handlers = Compares(page.studio)
    html, first = dict(apply_default_css=False), present(controls.first_example(page.studio))
    model_a, model_b, mask = gr.State(None), gr.State(None), gr.State(None)
    with gr.Row(elem_classes="tips-work"):
        with gr.Column(elem_classes="tips-source"):
            field, image = controls.image_field()
            strip = controls.example_strip(page.studio)
        with gr.Column(elem_classes="tips-result"):
            hint = "Press Enter after each; × takes one away. Both sides get the same words."
            queries = controls.chips("Look for", hint, first)
            waiting = views.empty(*controls.LOADING)
            maps = gr.HTML(
                waiting, js_on_load=controls.script("compare.js", "chips.js"), elem_classes="tips-output", **html
            )
            colors = gr.HTML("", js_on_load=None, **html)
            exports = gr.Column()
            run = gr.Button("Compare layer by layer", size="md", elem_classes="tips-run")
            layers = gr.HTML("", js_on_load=None, elem_classes="tips-output", **html)
        with gr.Column(elem_classes="tips-settings"):
            pick_a, features_a = _side(page, "A", "values")
            pick_b, features_b = _side(page, "B", "final")
            step = slider()
            resolution = gr.Dropdown(
                [("Each as trained", 0), *((f"{side} px", side) for side in RESOLUTIONS)],
                value=0,
                label="Resolution",
                filterable=False,
            )
            note = gr.HTML("", js_on_load=None, elem_classes="tips-under", **html)
            masked = gr.Dropdown(
                compare_mask.offered(first),
                value="",
                label="Mask of",
                info="Show where one query really is, and the scores say who is right.",
                filterable=False,
            )
            script = controls.script("compare-mask.js")
            drawing = gr.HTML("", js_on_load=script, visible=False, elem_classes="tips-under", **html)
            upload = gr.UploadButton(
                "Upload a mask", file_types=["image"], size="sm", visible=False, elem_classes="tips-run"
            )
            scale = gr.Radio(
                [("Deviations", "z"), ("Rank", "rank"), ("Cosine", "cosine")],
                value="z",
                label="Scale of the maps",
                info="Cosines of two encoders have different ranges; deviations from the mean and ranks compare.",
            )
            sets = [("None", "none"), ("TIPS 9", "tips9"), ("CLIP 80", "clip80")]
            templates = gr.Radio(sets, value="none", label="Prompt templates")
            opacity = gr.Slider(0, 1, value=0.7, step=0.05, label="Opacity", elem_classes="tips-slider")

    sides = [image, model_a, features_a, model_b, features_b, resolution]
    words = [queries, templates, mask, masked]
    quiet = dict(api_visibility="private", show_progress="hidden")
    busy = dict(api_visibility="private", show_progress="minimal", trigger_mode="always_last", **MODEL_WORK)
    drawn = dict(fn=handlers.draw, inputs=[*sides, *words, scale], outputs=[maps, note], show_progress_on=maps, **busy)
    painted = dict(fn=handlers.paint, inputs=sides, outputs=colors, show_progress_on=colors, **busy)

    with exports:
        export_row(partial(compare_export.take, handlers), drawn["inputs"], masks=True)

    def all_again(event) -> None:
        event.then(**drawn).then(**painted)

    def fresh(payload: dict | None, request: gr.Request):
        return *controls.accept_upload(payload, request), None

    @toasted
    def example(event: gr.EventData, model: str | None):
        return *handlers.take_example(model, controls.clicked(event, "index", int)), None

    given = [
        field.upload(fresh, field, [field, image, mask], preprocess=False, **quiet),
        field.clear(lambda: (None, None), None, [image, mask], **quiet),
        strip.select(example, page.model, [field, image, queries, mask], **quiet),
    ]
    for event in given:
        all_again(event)
    for picker, model in ((pick_a, model_a), (pick_b, model_b)):
        all_again(page.choosing(picker.select, picker, model))
    steps = Steps(page.studio)
    model_b.change(steps.track, model_b, step, queue=False, **quiet)
    all_again(step.input(steps.slide, [step, model_b], model_b, **busy))
    gr.on([component.input for component in (features_a, features_b, resolution)], **drawn).then(**painted)
    gr.on([templates.input, scale.input], **drawn)
    asked = controls.other_chips(queries)
    asked.then(**drawn)
    opacity.input(None, opacity, None, js="(v) => document.body.style.setProperty('--tips-pair', v)")

    @toasted
    def draw_mask(event: gr.EventData, image: str | None):
        return compare_mask.take(getattr(event, "png", None), image, drawn=True), ""

    asked.then(compare_mask.choices, [queries, masked], masked, trigger_mode="multiple", **quiet)
    masked.change(compare_mask.begin, [image, masked], [drawing, upload, mask], **quiet).then(**drawn)
    image.change(compare_mask.canvas, [image, masked], drawing, **quiet)
    drawing.input(draw_mask, image, [mask, layers], **quiet).then(**drawn)
    upload.upload(compare_mask.upload, [upload, image, masked], [mask, drawing, layers], **quiet).then(**drawn)

    asking = dict(api_visibility="private", show_progress="full", show_progress_on=layers, **MODEL_WORK)
    run.click(handlers.layers, [*sides, *words], layers, **asking)
    stale = [image, model_a, features_a, model_b, features_b, resolution, templates, masked]
    gr.on([component.change for component in stale], lambda: "", None, layers, queue=False, **quiet)
    asked.then(lambda: "", None, layers, queue=False, trigger_mode="multiple", **quiet)

    outputs = [pick_a, model_a, pick_b, model_b, features_b, field, image, strip]
    page.workspace.share(
        "compare",
        field,
        image,
        given,
        [drawn, painted],
        words=queries,
        fitting=shown_of,
        more=[mask],
        taken=lambda *_: (None,),
    )
    page.on_arrival(handlers.arrive, [page.model, image, model_b], outputs)
    page.reopening.keep(
        page,
        "compare",
        encoders=dict(a=model_a, b=model_b),
        arriving=["features_b"],
        a=pick_a,
        features_a=features_a,
        b=pick_b,
        features_b=features_b,
        resolution=resolution,
        scale=scale,
        templates=templates,
    )
    page.on_arrival(handlers.draw, drawn["inputs"], [maps, note])
    page.on_arrival(handlers.paint, sides, colors)
    page.on_open("compare", handlers.open, [model_a, model_b], outputs[:4], then=[drawn, painted])
    endpoints(page.studio, queries, [pick_a, features_a, pick_b, features_b], resolution, templates, scale)
