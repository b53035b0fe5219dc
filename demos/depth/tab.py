"""Tab: depth in metres, surface normals and ADE20K's classes, from the DPT heads released for TIPSv2.

python -m demos.depth --model path/to/a/folder/with/heads
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import gradio as gr

from demos.backend.heads import DepthMemory
from demos.depth import offer as depth_offer
from demos.depth import views as depth_views
from demos.depth.api import DepthOutputs, endpoints
from demos.ui import controls, views
from demos.ui.controls import MODEL_WORK, toasted, visitor
from demos.ui.examples import Example, examples
from demos.ui.export_row import export_row
from demos.ui.loading import FETCHING
from demos.ui.page import Page
from tipsv2.checkpoints.bundled import PHOTOGRAPHS
from tipsv2.images import open_image

TITLE = "Depth"
COLORMAPS = ("viridis", "cividis", "magma", "inferno", "turbo", "gray")
FARTHEST = 10  # metres: as far as the released heads were taught


class Depths:
    """The handlers of this tab; they hold nothing but the memory of heads and predictions."""

    def __init__(self, memory: DepthMemory):
        self.memory = memory

    @toasted
    def draw(
        self,
        image: str | None,
        loaded: str | None,
        chosen: str,
        trouble: str,
        resolution: float,
        span: str,
        near: float,
        far: float,
        colormap: str,
        request: gr.Request = None,
    ) -> tuple[str, str]:
        """-> (pictures, what the network saw). loaded: the heads that answer, None before any do;
        trouble: why they could not be loaded; span: "auto" or "fixed", from `near` to `far` metres.
        """
        if loaded is None:
            return depth_offer.offer(self.memory.info(chosen), self.memory.where(chosen), trouble), ""
        if image is None:
            return views.empty(*controls.NO_IMAGE), ""
        scene = self.memory.predict(visitor(request), loaded, image, int(resolution))
        low, high = depth_views.limits(scene.result.depth, span, near, far)
        note = depth_views.note(scene, self.memory.heads(loaded))
        return depth_views.scene(scene, low, high, colormap), note

    @toasted
    def pick(self, chosen: str, loaded: str | None):
        """Other heads are chosen -> (button, no trouble, what is offered if nothing is shown yet)."""
        offered = gr.skip() if loaded else depth_offer.offer(self.memory.info(chosen), self.memory.where(chosen))
        return self._button(chosen, loaded), "", offered

    def fetch(self, chosen: str, loaded: str | None, request: gr.Request = None) -> Iterator[tuple]:
        """Download these heads if they are not here -> (heads asked for, what went wrong, pictures or offer, line under
        the button), as often as there is news. Where pictures are shown they stay, and the line tells how far it is.
        """
        info = self.memory.info(chosen)
        try:
            for progress in self.memory.fetch(chosen, visitor(request)):
                if loaded:
                    yield chosen, "", gr.skip(), depth_offer.bar(progress)
                else:
                    yield chosen, "", depth_offer.offer(info, "hub", progress=progress), ""
        except Exception as error:
            if (message := controls.sentence(error)) is None:
                raise
            yield chosen, message, gr.skip(), ""
        else:
            yield chosen, "", gr.skip(), ""

    def cancel(self, request: gr.Request = None) -> None:
        """Stop the download of this visitor."""
        self.memory.downloads.cancel(visitor(request))

    def load(self, asked: str, loaded: str | None, trouble: str):
        """-> (picker, heads that answer now, trouble, button, resolution). asked, trouble: as `fetch` left them; after
        a failure those before it go on.
        """
        try:
            heads = None if trouble else self.memory.heads(asked)
        except Exception as error:
            if (trouble := controls.sentence(error)) is None:
                raise
            heads = None
        if heads is None:
            if loaded:
                controls.warn(trouble)  # the pictures stay, so it has no other place
            return asked, loaded, trouble, self._button(asked, loaded), gr.skip()
        resolution = gr.update(**resolutions(heads.info.resolution, heads.patch_size))
        picker = gr.update(choices=self.memory.choices(), value=asked)
        return picker, asked, "", self._button(asked, asked), resolution

    def _button(self, chosen: str, loaded: str | None):
        where = self.memory.where(chosen)
        if loaded != chosen and where == "loaded":
            where = "cached"  # somebody else's choice: here it takes a press, too
        return gr.update(value=depth_offer.button(self.memory.info(chosen), where), interactive=loaded != chosen)


def resolutions(training: int, patch_size: int) -> dict:
    """Range and value of the slider, in steps of two patches, which is what the heads' coarsest level takes."""
    step = 2 * patch_size
    least = max(step, training // 2 // step * step)
    return dict(minimum=least, maximum=max(training, min(4 * training, 1372 // step * step)), step=step, value=training)


def photographs() -> list[Example]:
    """The examples: photographs whatever encoder the page has, since that is what the heads were taught with."""
    return examples((PHOTOGRAPHS,))


@functools.cache
def _strip() -> str:
    return views.thumbnails([(open_image(photo.path), ", ".join(photo.queries)) for photo in photographs()])


def take_example(index: int) -> tuple[str, str]:
    """-> (field, image). Raises ValueError if there is no such example."""
    shown = photographs()
    if not 0 <= index < len(shown):
        raise ValueError("This example is gone: reload the page.")
    path = controls.keep(shown[index].path)
    return path, path


def tab(page: Page) -> None:
    """Build the tab inside the current Blocks."""
    memory = DepthMemory(page.studio.shelf, page.heads)
    handlers = Depths(memory)
    page.leavings.append(memory.forget)
    first = memory.info()
    loaded, asked, trouble = gr.State(None), gr.State(None), gr.State("")
    with gr.Row(elem_classes="tips-work"):
        with gr.Column(elem_classes="tips-source"):
            field, image = controls.image_field()
            strip = gr.HTML(_strip(), js_on_load=controls.script("examples.js"), apply_default_css=False)
        with gr.Column(elem_classes="tips-result"):
            panels = gr.HTML(
                depth_offer.offer(first, memory.where()),
                js_on_load=controls.script("depth.js"),
                apply_default_css=False,
                elem_classes="tips-output tips-panels",
            )
            taking = gr.Column(visible=False)
        with gr.Column(elem_classes="tips-settings"):
            heads = gr.Dropdown(
                memory.choices(),
                value=first.name,
                label="Heads",
                info="They have an encoder of their own, not the one chosen above. ↓ is yet to download.",
                filterable=False,
                elem_classes="tips-heads-menu",
            )
            load = gr.Button(depth_offer.button(first, memory.where()), variant="primary", elem_classes="tips-load")
            getting = gr.HTML(
                "", js_on_load=controls.script("depth.js"), apply_default_css=False, elem_classes="tips-under"
            )
            resolution = gr.Slider(
                **resolutions(first.resolution or 448, 14), label="Resolution", buttons=[], elem_classes="tips-slider"
            )
            note = gr.HTML("", apply_default_css=False, js_on_load=None, elem_classes="tips-under")
            span = gr.Radio([("Auto", "auto"), ("Fixed", "fixed")], value="auto", label="Colours of depth")
            with gr.Row(visible=False, elem_classes="tips-span") as ends:
                near = gr.Number(0, label="Nearest, m", minimum=0, min_width=0)
                far = gr.Number(FARTHEST, label="Farthest, m", minimum=0, min_width=0)
            opacity = gr.Slider(0, 1, value=0.65, step=0.05, label="Opacity of classes", elem_classes="tips-slider")
            with gr.Accordion("More", open=False, elem_classes="tips-more"):
                colormap = gr.Dropdown(COLORMAPS, value="viridis", label="Colour map of depth", filterable=False)

    seen = [resolution, span, near, far, colormap]
    inputs = [image, loaded, heads, trouble, *seen]
    quiet = dict(api_visibility="private", show_progress="hidden")
    drawing = dict(fn=handlers.draw, inputs=inputs, outputs=[panels, note], api_visibility="private")
    drawing |= dict(show_progress="minimal", show_progress_on=panels, trigger_mode="always_last", **MODEL_WORK)

    @toasted
    def example(event: gr.EventData):
        return take_example(controls.clicked(event, "index", int))

    def greet(image: str | None, loaded: str | None):
        """The first example, on a page nobody has used yet."""
        return (gr.skip(), gr.skip()) if image or loaded or not photographs() else take_example(0)

    given = [
        field.upload(controls.accept_upload, field, [field, image], preprocess=False, **quiet),
        field.clear(lambda: None, None, image, **quiet),
        strip.select(example, None, [field, image], **quiet),
    ]
    for event in given:
        event.then(**drawing)
    heads.select(handlers.pick, [heads, loaded], [load, trouble, panels], **quiet)
    pressed = gr.on(
        [load.click, panels.submit],
        handlers.fetch,
        [heads, loaded],
        [asked, trouble, panels, getting],
        trigger_mode="once",
        **quiet,
        **FETCHING,
    )
    gr.on([panels.clear, getting.clear], handlers.cancel, queue=False, **quiet)
    ready = pressed.then(
        handlers.load,
        [asked, loaded, trouble],
        [heads, loaded, trouble, load, resolution],
        show_progress="minimal",
        show_progress_on=panels,
        api_visibility="private",
        **MODEL_WORK,
    )
    ready.then(**drawing).then(lambda loaded: gr.update(visible=loaded is not None), loaded, taking, **quiet)
    span.change(lambda chosen: gr.update(visible=chosen == "fixed"), span, ends, **quiet)
    gr.on([resolution.input, span.input, near.submit, near.blur, far.submit, far.blur, colormap.input], **drawing)
    opacity.input(None, opacity, None, js="(v) => document.body.style.setProperty('--tips-classes', v)")
    page.workspace.share("depth", field, image, given, drawing)
    page.on_arrival(greet, [image, loaded], [field, image])
    page.reopening.keep(page, "depth", span=span, colormap=colormap)
    shown = [*seen, opacity]
    with taking:
        export_row(DepthOutputs(memory).take, [image, loaded, *shown], masks=True)
    endpoints(memory, heads, shown[1:])
