"""The page around the tabs: header, model picker, one line on who answers, and the tabs.

A tab module has TITLE and tab(page): it builds its components and says with `page.on_arrival` what to redo when a model
is ready. The page opens at once; the first model loads when the first visitor's page is up.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import gradio as gr

from demos import views
from demos.common import MODEL_WORK, WEB, sentence, visitor, warn
from demos.depth_memory import with_heads
from demos.studio import Studio
from tipsv2.catalogue import ModelInfo

SWEEP = (3600, 6 * 3600)  # every hour, files older than six are deleted from Gradio's cache


@dataclass
class Page:
    """What a tab gets. model: State with the name of the model that answers; choice: the picker (for API inputs)."""

    studio: Studio
    model: gr.State
    choice: gr.Dropdown
    heads: ModelInfo | None = None  # the model with DPT heads that was given instead of an encoder
    arrivals: list[dict] = field(default_factory=list)
    leavings: list[Callable[[str], None]] = field(default_factory=list)  # called with the visitor who leaves

    def on_arrival(self, fn, inputs, outputs) -> None:
        """Run fn, after those registered before it, whenever a model has become ready."""
        self.arrivals.append(dict(fn=fn, inputs=inputs, outputs=outputs))


def build(tabs: Sequence[str], model: str = "auto", device: str = "auto") -> gr.Blocks:
    """The page with these tab modules of demos/, opening with this model. Raises ModelError on an unknown name."""
    heads = with_heads(model) if "depth" in tabs else None
    studio = Studio("auto" if heads else model, device)
    modules = [importlib.import_module(f"demos.{name}") for name in tabs]
    with gr.Blocks(title="TIPSv2 explorer", analytics_enabled=False, delete_cache=SWEEP, fill_width=True) as blocks:
        with gr.Row(elem_classes="tips-top", equal_height=True):
            gr.HTML(header(), apply_default_css=False, js_on_load=None)
            choice = gr.Dropdown(
                studio.choices(), value=studio.first, label="Encoder", filterable=False, elem_classes="tips-model"
            )
        line = gr.HTML(loading_html(studio), apply_default_css=False, js_on_load=None, elem_classes="tips-line")
        page = Page(studio, gr.State(None), choice, heads)
        if len(modules) == 1:
            modules[0].tab(page)
        else:
            with gr.Tabs(elem_classes="tips-tabs"):
                for module in modules:
                    with gr.Tab(module.TITLE):
                        module.tab(page)

        def choose(name: str | None, current: str | None, progress=gr.Progress(track_tqdm=True)):  # noqa: B008
            return choose_model(studio, name, current)

        quiet = dict(show_progress="hidden", api_visibility="private")
        # Of the picker's events `select` comes once a choice, `input` twice.
        picked = choice.select(lambda name: loading_html(studio, name), choice, line, queue=False, **quiet)
        for moment in (blocks.load, picked.then):
            ready = moment(
                choose,
                [choice, page.model],
                [choice, page.model, line],
                show_progress="full",
                show_progress_on=line,
                api_visibility="private",
                **MODEL_WORK,
            )
            for arrival in page.arrivals:
                ready = ready.then(**arrival, **quiet, **MODEL_WORK)

        def leave(request: gr.Request) -> None:
            for forget in (studio.forget, *page.leavings):
                forget(visitor(request))

        blocks.unload(leave)
    return blocks


def choose_model(studio: Studio, name: str | None, current: str | None) -> tuple:
    """Load a model for one visitor. Returns (picker, model that answers now, status line); a failure is a toast and the
    model before it stays.
    """
    try:
        name = studio.encoder(name).info.name if name in (None, "auto") else name
        studio.encoder(name)
    except Exception as error:
        if (told := sentence(error)) is None:
            raise
        warn(told)
        return gr.update(value=current or name), current, status_html(studio, current, told)
    return gr.update(choices=studio.choices(), value=name), name, status_html(studio, name)


def loading_html(studio: Studio, model: str | None = None) -> str:
    """The line while a model loads."""
    return views.status(f"Loading {studio.info(model).title} …", [], "loading")


def status_html(studio: Studio, model: str | None, failure: str = "") -> str:
    """Which model answers, what it was trained on and at which resolution, device and dtype, in one line."""
    if model is None:
        return views.status(studio.info().title, [failure], "failed")
    encoder = studio.encoder(model)
    info = encoder.info
    dtype = str(encoder.dtype).removeprefix("torch.")
    facts = [
        f"{info.parameters} parameters" if info.parameters != "unknown" else "",
        f"trained at {info.resolution} px",
        f"{encoder.device}, {dtype}",
        info.trained_on if info.source != "folder" else "a local folder",
    ]
    return views.status(info.title, [fact for fact in facts if fact])


def header() -> str:
    mark = (WEB / "favicon.svg").read_text("utf-8")
    return (
        f'<header class="tips-head">{mark}<div><h1>TIPSv2 explorer</h1>'
        "<p>Ask an image for words and see which patches answer.</p></div></header>"
    )
