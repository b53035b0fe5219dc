"""Tab: class names -> every pixel gets one, a table of the classes, and how far this agrees with a true mask.

python -m demos.segment
"""

from __future__ import annotations

import gradio as gr

from demos.backend import belongings
from demos.backend.studio import Studio
from demos.segment import truth as segmentation_truth
from demos.segment.api import endpoints
from demos.segment.controls import (
    NO_LIST,
    OWN_NAMES,
    background_choice,
    begin,
    choices,
    class_field,
    more,
    presets,
    truth_part,
)
from demos.segment.export import take
from demos.segment.truth import Truth
from demos.segment.views import segments
from demos.segment.work import MAX_CLASSES, SegmentationService, ask, judge, legend, rows, split
from demos.ui import chips, controls, views
from demos.ui.controls import MODEL_WORK, toasted, visitor
from demos.ui.examples import Example
from demos.ui.export_row import export_row
from demos.ui.page import Page
from demos.ui.verdicts import badge, because, unfamiliar

TITLE = "Segment"
NO_CLASS = ("Which classes?", "Write names separated by commas and press Enter, or take a list.")


class Segmentations:
    """The handlers of this tab. They share the studio with the other tabs; what they remember is the service's."""

    def __init__(self, studio: Studio):
        self.studio = studio
        self.service = SegmentationService(studio)

    @toasted
    def draw(
        self,
        image: str | None,
        model: str | None,
        truth: Truth | None,
        classes: str,
        templates: str,
        features: str,
        layer: float,
        windows: bool,
        background: str,
        threshold: float,
        words: str,
        resolution: float,
        sharp: bool = False,
        request: gr.Request = None,
    ) -> tuple[str, str, str]:
        """-> (regions with their table, resolution note, note on the truth)."""
        names, refused = chips.askable(split(classes), "class name", MAX_CLASSES)
        truth_note, alas = segmentation_truth.describe(truth, names), chips.not_asked(refused)
        if image is None:
            return views.empty(*controls.NO_IMAGE), "", truth_note
        if not names:
            return alas + views.empty(*NO_CLASS), "", truth_note
        given = (templates, features, layer, windows, background, threshold, words, resolution, sharp)
        question = ask(", ".join(names), *given)
        regions = self.service.divide(image, question, model, visitor(request))
        judged = judge(regions, truth)
        table = rows(regions, judged and judged[1])
        reasons = [because(verdict, regions.calibration) for verdict in regions.verdicts]
        said = [badge(*pair) for pair in zip(regions.verdicts, reasons, strict=True)]
        drawn = segments(regions.seen.image, regions.labels, regions.colors, table, len(regions.names), judged, said)
        unseen = "" if regions.familiar else unfamiliar([self.studio.info(model)])
        return alas + unseen + drawn, self._note(regions, model), truth_note

    def _note(self, regions, model: str | None) -> str:
        from tipsv2.network.view import count_windows

        asked, training = regions.question, self.studio.info(model).resolution
        note = controls.resolution_note(regions.grid, regions.seen.resolution, asked.resolution, training)
        if not asked.windows:
            return note
        encoder = self.studio.encoder(model)
        if regions.layer < encoder.num_layers:
            return note + views.note("Windows show the last layer only: this is the whole image at once.", "warn")
        count, (height, width) = count_windows(encoder, regions.grid), regions.grid
        if count == 1:
            advice = f"One window of {training} px holds the whole image: raise the resolution to get more."
            return note + views.note(advice, "warn")
        text = f"{regions.seen.resolution} px short side, {height} × {width} patches"
        return views.note(f"{text}, in {count} windows of {training} px.")

    @toasted
    def depth(self, model: str | None):
        """A model is ready: its layers, the last one chosen."""
        layers = self.studio.encoder(model).num_layers
        return gr.update(maximum=layers, value=layers)

    @toasted
    def arrive(self, model: str | None, image: str | None):
        """A model is ready: its examples and its resolutions; on an empty page, its first example.
        -> (field, image, classes, the example's names, truth, examples, resolution).
        """
        return controls.arrival(self.studio, model, image, lambda: self.take_example(model, 0), 5)

    def take_example(self, model: str | None, index: int):
        """-> (field, image, classes, the example's names, truth)."""
        example = controls.pick_example(self.studio, model, index)
        path, names = controls.keep(example.path), ", ".join(example.classes)
        return path, path, names, names, segmentation_truth.of_example(example)

    def belonging(self, example: Example | None, words: list[str], classes: str, own: str) -> tuple:
        """What goes with a picture that comes from another tab -> (classes, the example's names, truth). An own picture
        is cut into what was asked of it there, unless somebody has written classes here.
        """
        if example is None:
            asked = ", ".join(word.replace(",", " ") for word in words)
            return asked if asked and classes == own else gr.skip(), "", None
        names = ", ".join(example.classes)
        return names, names, segmentation_truth.of_example(example)

    @toasted
    def upload_truth(
        self, path: str | None, first: str, marked: str, classes: str, image: str | None, request: gr.Request = None
    ):
        """-> (truth, canvas). first: the number of the first class; marked: what a black-and-white mask is of."""
        if path:
            belongings.claim(visitor(request), path)
        names = split(classes)
        truth = segmentation_truth.uploaded(path, int(first), marked, names, legend(len(names)), image)
        return truth, segmentation_truth.canvas(image, truth, marked, names)

    @toasted
    def draw_truth(self, event: gr.EventData, marked: str, classes: str, truth: Truth | None, image: str | None):
        """What was drawn on the canvas -> truth."""
        return segmentation_truth.drawn(getattr(event, "png", None), marked, split(classes), truth, image)


def tab(page: Page) -> None:
    """Build the tab inside the current Blocks."""
    handlers = Segmentations(page.studio)
    truth, own = gr.State(None), gr.State("")  # what to compare with; the class names of the example shown
    html = dict(apply_default_css=False)
    with gr.Row(elem_classes="tips-work"):
        with gr.Column(elem_classes="tips-source"):
            field, image = controls.image_field()
            strip = controls.example_strip(page.studio)
        with gr.Column(elem_classes="tips-result"):
            classes, preset = class_field()
            waiting = views.empty(*controls.LOADING)
            script = controls.script("regions.js")
            regions = gr.HTML(waiting, js_on_load=script, elem_classes="tips-output", **html)
            exported = gr.Column()
        with gr.Column(elem_classes="tips-settings"):
            background, threshold, words = background_choice()
            sharp = gr.Checkbox(True, label="Sharp edges", info="Regions end where the picture's colours do.")
            opacity = gr.Slider(0, 1, value=0.65, step=0.05, label="Opacity", elem_classes="tips-slider")
            truth_note, upload, remove, first, marked, canvas = truth_part()
            templates, features, layer, windows, resolution, note = more(page.studio.info().resolution)

    asked = [classes, templates, features, layer, windows, background, threshold, words, resolution]
    inputs = [image, page.model, truth, *asked, sharp]
    with exported:
        export_row(lambda *given, request: take(handlers.service, *given, request=request), inputs, masks=True)
    drawing = dict(
        fn=handlers.draw, inputs=inputs, outputs=[regions, note, truth_note], api_visibility="private", **MODEL_WORK
    )
    shown = dict(show_progress="minimal", show_progress_on=regions, trigger_mode="always_last")
    quiet = dict(api_visibility="private", show_progress="hidden")
    choosing = dict(fn=choices, inputs=[classes, marked], outputs=marked, **quiet)

    def fresh(payload: dict | None, request: gr.Request):
        return *controls.accept_upload(payload, request), "", None

    @toasted
    def example(event: gr.EventData, model: str | None):
        return *handlers.take_example(model, controls.clicked(event, "index", int)), NO_LIST

    @toasted
    def choose(chosen: str, names: str):
        if chosen == NO_LIST:
            return gr.skip()
        if chosen == OWN_NAMES and not names:
            raise ValueError("This picture is none of the examples: it has no names of its own.")
        return names if chosen == OWN_NAMES else presets().get(chosen, "")

    pictures = [
        field.upload(fresh, field, [field, image, own, truth], preprocess=False, **quiet),
        field.clear(lambda: (None, "", None), None, [image, own, truth], **quiet),
        strip.select(example, page.model, [field, image, classes, own, truth, preset], **quiet),
    ]
    for event in pictures:
        event.then(**drawing, **shown)
    preset.select(choose, [preset, own], classes, **quiet).then(**drawing, **shown)
    background.change(
        lambda chosen: (gr.update(visible=chosen == "threshold"), gr.update(visible=chosen == "words")),
        background,
        [threshold, words],
        **quiet,
    )
    changes = [part.input for part in (templates, features, layer, windows, background, threshold, resolution, sharp)]
    gr.on([*changes, classes.submit, classes.blur, words.submit, words.blur], **drawing, **shown)
    opacity.input(None, opacity, None, js="(v) => document.body.style.setProperty('--tips-mask', v)")

    # The truth: which class can be drawn follows the list, the canvas follows class and image.
    classes.change(**choosing, trigger_mode="always_last")
    gr.on(
        [marked.change, image.change],
        begin,
        [image, truth, marked, classes],
        canvas,
        **quiet,
    )
    given = [upload, first, marked, classes, image]
    upload.upload(handlers.upload_truth, given, [truth, canvas], **quiet).then(**drawing, **shown)
    canvas.input(handlers.draw_truth, [marked, classes, truth, image], truth, **quiet).then(**drawing, **shown)
    remove.click(lambda: (None, ""), None, [truth, marked], **quiet).then(**drawing, **shown)

    page.workspace.share(
        "segment",
        field,
        image,
        pictures,
        drawing | shown,
        more=[classes, own, truth],
        taken=handlers.belonging,
        reads=[classes, own],
    )
    page.on_arrival(handlers.depth, page.model, layer)  # on its own: Gradio checks values against the range it knows
    page.on_arrival(handlers.arrive, [page.model, image], [field, image, classes, own, truth, strip, resolution])
    page.reopening.keep(
        page,
        "segment",
        ranged=["resolution", "layer"],
        usual=dict(classes=own),
        classes=classes,
        background=background,
        threshold=threshold,
        words=words,
        sharp=sharp,
        templates=templates,
        features=features,
        layer=layer,
        windows=windows,
        resolution=resolution,
    )
    page.on_arrival(handlers.draw, inputs, [regions, note, truth_note])
    endpoints(handlers, page, asked, opacity, first, sharp)
