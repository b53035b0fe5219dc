"""Tab: train an encoder: choose base, recipe and data, start, watch it learn, stop, resume, and open what it made.

python -m demos.train --runs runs
"""

from __future__ import annotations

import gradio as gr

from demos.backend import owners
from demos.backend.settings import Settings
from demos.backend.studio import Studio
from demos.train import charts as train_charts
from demos.train import state as train_state
from demos.train import views as train_views
from demos.train.api import endpoints
from demos.train.setup import CHECK_WORK, FormHandlers, form
from demos.train.work import Trainer, run_request
from demos.ui import controls, views
from demos.ui.controls import toasted, visitor
from demos.ui.page import Page

TITLE = "Train"
SECONDS = 1.5  # between two looks at a run that is going on
SCENES = 4  # images whose heatmaps a run keeps at most (train/run/shown.py)
PARTS = (
    "runs", "head", "curves", "film", "scene", "stop", "resume", "delete", "open", "ask", "text", "timer", "seen",
    "key",
)  # fmt: skip


def scenes(look: train_state.Look) -> list[tuple[str, int]]:
    """The choice among the images whose heatmaps a run keeps."""
    kind = "Image" if look.own_data else "Scene"
    return [(f"{kind} {k + 1}", k) for k in range(len(train_views.queries(look)) or SCENES)]


class TrainHandlers:
    """The handlers of this tab; what they know of a run they read from its folder, every time.

    request: who asks, filled in by Gradio; it stands first and has no default, so that nobody is ever taken for
    somebody else because it was left out. key: what the visitor's browser keeps (owners.py).
    """

    def __init__(self, studio: Studio, settings: Settings):
        self.trainer = Trainer(studio, settings)
        self.jobs = self.trainer.jobs

    @toasted
    def watch(
        self, request: gr.Request, name: str | None, scene: int, seen: dict | None, visible: bool, key: str | None
    ) -> tuple:
        """A run as it is -> PARTS, each skipped where it is as this page has `seen` it; a browser without a key gets
        one.
        """
        self.trainer.refuse()
        name, scene = name if isinstance(name, str) else None, scene if isinstance(scene, int) else 0
        new = None if key else owners.new_key()
        asker = self.trainer.asker(request, key or new)
        names = self.jobs.names(asker)
        if name is None and names:
            name = names[0]
        if name is None:
            return self._nothing(new or gr.skip())
        stamp = [*self.jobs.stamp(name, asker), scene, names, visible]
        if seen and seen["stamp"] == stamp:
            return (*(gr.skip(),) * (len(PARTS) - 1), new or gr.skip())
        look, seen = self.jobs.look(name, asker), seen or {}
        film, state, log = [name, scene, len(look.samples)], [name, look.state, names], look.log
        parts = dict.fromkeys(PARTS, gr.skip())
        parts |= dict(key=new or gr.skip(), head=train_views.head(look), curves=train_charts.curves(look))
        if seen.get("film") != film:
            choices = scenes(look)
            scene = min(scene, len(choices) - 1)
            shown = gr.update(choices=choices, value=scene, visible=bool(look.samples))
            parts |= dict(film=train_views.film(look, scene), scene=shown)
        if seen.get("state") != state:
            ours = bool(look.command)
            parts |= dict(
                runs=gr.update(choices=names if name in names else [name, *names], value=name, visible=True),
                stop=gr.update(visible=look.going and ours),
                resume=gr.update(visible=look.state in ("stopped", "failed") and ours),
                delete=gr.update(visible=not look.going and look.state != "unknown"),
                open=gr.update(visible=look.state == "done"),
                ask=gr.update(visible=look.state == "done"),
            )
        if seen.get("state") != state or seen.get("log") != log:
            parts["text"] = (train_views.command(look.command) if look.command else "") + train_views.log(look)
        parts |= dict(timer=gr.Timer(active=look.going and visible))
        parts |= dict(seen=dict(stamp=stamp, film=film, state=state, log=log))
        return tuple(parts.values())

    def _nothing(self, key) -> tuple:
        parts = dict.fromkeys(PARTS, gr.update(visible=False))
        parts |= dict(runs=gr.update(choices=[], value=None, visible=False), timer=gr.Timer(active=False), seen=None)
        parts |= dict(head=views.empty(*train_views.NO_RUN), curves="", film="", text="", key=key)
        return tuple(parts.values())

    @toasted
    def start(self, request: gr.Request, key: str | None, zipped: str | None, *fields):
        """-> (run to show, name field, report of the check)."""
        asker = self.trainer.asker(request, key)
        name = self.trainer.start(run_request(*fields), zipped, asker)
        return gr.update(choices=self.jobs.names(asker), value=name, visible=True), "", ""

    @toasted
    def stop(self, request: gr.Request, name: str | None, key: str | None) -> None:
        self.trainer.stop(name, self.trainer.asker(request, key))

    @toasted
    def resume(self, request: gr.Request, name: str | None, key: str | None) -> None:
        self.trainer.resume(name, self.trainer.asker(request, key))

    @toasted
    def delete(self, request: gr.Request, name: str | None, key: str | None):
        """-> (run to show next, question hidden)."""
        asker = self.trainer.asker(request, key)
        self.trainer.delete(name, asker)
        names = self.jobs.names(asker)
        return gr.update(choices=names, value=names[0] if names else None), gr.update(visible=False)

    def compared(self, request: gr.Request, name: str | None, scene: int, key: str | None) -> tuple:
        """-> (what it started from and what it made, an image of the run, what it asks of that) for the tab Compare;
        None for the first, after a toast, where there is nothing. scene: the image whose heatmaps are shown.
        """
        try:
            asker = self.trainer.asker(request, key)
            both = self.trainer.sides(name, asker, visitor(request))
            kept = train_views.asked_of(self.jobs.look(str(name), asker), scene if isinstance(scene, int) else 0)
            if kept is None:
                return both, gr.skip(), gr.skip()
            path, words = kept
            return both, controls.keep(path, visitor(request)), words
        except ValueError as error:
            controls.warn(str(error))
            return None, gr.skip(), gr.skip()  # not what was there before: that would be opened

    def asked(self, request: gr.Request, name: str | None, scene: int, key: str | None) -> tuple:
        """The same with what it made alone, for the tab Ask."""
        both, *rest = self.compared(request, name, scene, key)
        return both and both[1:], *rest


def tab(page: Page) -> None:
    """Build the tab inside the current Blocks."""
    handlers = TrainHandlers(page.studio, page.settings)
    trainer, html = handlers.trainer, dict(apply_default_css=False)
    with gr.Row(elem_classes="tips-work tips-train"):
        with gr.Column(elem_classes="tips-settings"):
            form_parts = form(page, trainer)
        with gr.Column(elem_classes="tips-result"):
            if not trainer.allowed:
                _instead(form_parts, FormHandlers(trainer))
            else:
                _watched(page, handlers, form_parts, html)
    endpoints(trainer)


def _instead(form_parts, handlers: FormHandlers) -> None:
    """Where nothing can be started: why, and the command."""
    html = dict(apply_default_css=False)
    gr.HTML(train_views.explained(), js_on_load=None, **html)
    command = gr.HTML("", js_on_load=controls.script("exports.js"), **html)
    asked = dict(fn=handlers.preview, inputs=form_parts.inputs, outputs=command, show_progress="hidden")
    gr.on([field.change for field in form_parts.fields], **asked, api_visibility="private", trigger_mode="always_last")


def _watched(page: Page, handlers: TrainHandlers, form_parts, html: dict) -> None:
    """The run that is looked at, and the buttons that end it, go on with it and open what it made."""
    maybe = html | dict(elem_classes="tips-maybe")
    checked = gr.HTML("", js_on_load=None, **maybe)
    runs = gr.Dropdown([], label="Run", filterable=False, visible=False)
    runs.preprocess = lambda name: None if name is None else str(name)  # any name: the jobs know whose it is
    head = gr.HTML(views.empty(*train_views.NO_RUN), js_on_load=controls.script("train.js"), **html)
    with gr.Row(elem_classes="tips-buttons"):
        stop = gr.Button("Stop", size="md", visible=False)
        resume = gr.Button("Resume", size="md", visible=False)
        compare = gr.Button("Open in Compare", size="md", variant="primary", visible=False)
        ask = gr.Button("Open in Ask", size="md", visible=False)
        delete = gr.Button("Delete", size="md", visible=False)
    with gr.Row(elem_classes="tips-buttons tips-sure", visible=False) as sure:
        gr.HTML("<p>Delete this run with its data and its encoder?</p>", js_on_load=None, **html)
        really = gr.Button("Delete for good", size="md", variant="stop")
        keep = gr.Button("Keep it", size="md")
    curves = gr.HTML("", js_on_load=controls.script("train-curves.js"), **maybe)
    scene = gr.Radio(
        scenes(train_state.Look("", "unknown")), value=0, show_label=False, label="Scene", visible=False,
        elem_classes="tips-view",
    )  # fmt: skip
    film = gr.HTML("", js_on_load=None, **maybe)
    with gr.Accordion("Command and log", open=False):
        command_and_log = gr.HTML("", js_on_load=controls.script("exports.js"), **html)
    timer, seen, visible = gr.Timer(SECONDS, active=False), gr.State(None), gr.State(True)
    names = gr.State(None)
    # Not the secret that matters: what is kept is the visitor's own, and the page would forget it with a new secret.
    key = gr.BrowserState(None, storage_key="tipsv2-explorer-owner", secret="tipsv2-explorer")

    quiet = dict(api_visibility="private", show_progress="hidden")
    parts = [runs, head, curves, film, scene, stop, resume, delete, compare, ask, command_and_log, timer, seen, key]
    # The run's name comes as it was sent: gradio would answer one that is not in the menu with an error of its own.
    watched = dict(
        fn=handlers.watch, inputs=[runs, scene, seen, visible, key], outputs=parts, preprocess=False, **quiet
    )
    again = watched | dict(inputs=[runs, scene, gr.State(None), visible, key])  # whatever this page has seen

    def see(event: gr.EventData) -> bool:
        return bool(getattr(event, "visible", True))

    timer.tick(**watched, trigger_mode="once")
    head.select(see, None, visible, **quiet).then(**watched)
    gr.on([runs.input, scene.input], **watched)
    asked = dict(api_visibility="private", show_progress="minimal", show_progress_on=head)
    form_parts.check.click(
        FormHandlers(handlers.trainer).check,
        form_parts.inputs,
        checked,
        show_progress_on=checked,
        api_visibility="private",
        **CHECK_WORK,
    )
    form_parts.start.click(handlers.start, [key, *form_parts.inputs], [runs, form_parts.name, checked], **asked).then(
        **again
    )
    asked |= dict(preprocess=False)
    stop.click(handlers.stop, [runs, key], None, **asked).then(**again)
    resume.click(handlers.resume, [runs, key], None, **asked).then(**again)
    delete.click(lambda: gr.update(visible=True), None, sure, **quiet)
    gr.on([keep.click, runs.change], lambda: gr.update(visible=False), None, sure, queue=False, **quiet)
    deleted = really.click(handlers.delete, [runs, key], [runs, sure], **asked)
    page.refresh(deleted)
    deleted.then(**again)
    opened = [names, page.workspace.picture, page.workspace.words]
    for button, handler, there in ((compare, handlers.compared, "compare"), (ask, handlers.asked, "ask")):
        event = button.click(handler, [runs, scene, key], opened, **asked)
        page.workspace.moments.append(event)
        page.open_in(event, there, names)
    page.on_arrival(handlers.watch, again["inputs"], parts)
