"""The page around the tabs: header, model picker, one line on who answers, and the tabs.

A tab module has TITLE and tab(page): it builds its components and says with `page.on_arrival` what to redo when a model
is ready. The page opens at once; the first model loads when the first visitor's page is up.

What else a tab may ask of the page:
    page.settings                      what the flags said: runs, training, memory, public (demos/backend/settings.py)
    page.studio.add(folder) -> name    an encoder's folder, or a run's model/, is on offer to all tabs from now on
    page.studio.remove(name)           it no longer is; nothing on the disk is touched
    page.picker("A")                   a menu of encoders that always lists what is on offer
    page.refresh(event)                after this event the menus of this page are up to date; other open pages' are
                                       as soon as somebody opens a menu
    page.open_in(event, "compare", names)      after this event show that tab with the encoders in names, a State with
                                       a list of names (None or empty: stay); compare takes two, other tabs the first
    page.choosing(event, menu, model)  download and load what is in a menu of the tab's own; the event to go on from
    page.workspace.share("ask", ...)   picture and words given in one tab are there in the others (ui/workspace.py)
    page.reopening.keep(page, "ask", ...)      these controls are in the page's link (ui/reopening.py)
    page.leavings.append(forget)       forget(visitor) is called when somebody closes the page
    page.on_open("compare", fn, inputs, outputs)   how a tab with menus of its own does that: fn(names, *inputs)
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import gradio as gr

from demos.backend import belongings
from demos.backend.heads import apart
from demos.backend.settings import Settings
from demos.backend.studio import Studio
from demos.server.gate import Guarded
from demos.ui.controls import MODEL_WORK, WEB, visitor
from demos.ui.loading import FETCHING, Loading, loading_html
from demos.ui.reopening import AGAIN, Reopening
from demos.ui.workspace import Workspace
from tipsv2.checkpoints.bundled import S14
from tipsv2.checkpoints.catalogue import ModelInfo

SWEEP = (3600, 6 * 3600)  # every hour, files older than six that did not go with a visitor are deleted
DEFAULTS = Settings()
ORIGINS = {
    "paper and project page": "https://gdm-tipsv2.github.io/",
    "official demo": "https://huggingface.co/spaces/google/TIPSv2",
    "model cards": "https://huggingface.co/google/tipsv2-b14",
}
PHOTOGRAPHS = "tips-photographs"  # the hidden button behind those of `demos.ui.verdicts.unfamiliar`
PASS_ON = f"""
document.addEventListener("click", (event) => {{
  if (event.target.closest(".tips-unseen button")) document.getElementById("{PHOTOGRAPHS}").click();
}});
"""
# "multiple": a choice made while the one before it is still downloading is not dropped, which is gradio's default.
QUIET = dict(show_progress="hidden", api_visibility="private", trigger_mode="multiple")


@dataclass
class Page:
    """What a tab gets. model: State with the name of the model that answers; choice: the picker (for API inputs)."""

    studio: Studio
    model: gr.State
    choice: gr.Dropdown
    settings: Settings
    line: gr.HTML
    cancel: gr.Button
    arrivals: list[dict] = field(default_factory=list)
    pickers: list[gr.Dropdown] = field(default_factory=list)
    openings: dict[str, dict] = field(default_factory=dict)
    handed: list[tuple] = field(default_factory=list)  # (event, tab, names)
    stale: list = field(default_factory=list)  # events after which the menus are asked anew
    heads: Sequence[ModelInfo] = ()  # models with DPT heads among those the app was started with
    leavings: list[Callable[[str], None]] = field(default_factory=list)  # called with the visitor who leaves
    workspace: Workspace = field(default_factory=Workspace)
    tabs: Sequence[str] = ()

    def __post_init__(self):
        self.loading = Loading(self.studio)
        self.reopening = Reopening(self.studio, self.workspace, self.tabs)

    def on_arrival(self, fn, inputs, outputs) -> None:
        """Run fn, after those registered before it, whenever a model has become ready."""
        self.arrivals.append(dict(fn=fn, inputs=inputs, outputs=outputs))

    def picker(self, label: str, **options) -> gr.Dropdown:
        """A menu of the encoders on offer, kept up to date."""
        self.pickers.append(picker(self.studio, label, **options))
        return self.pickers[-1]

    def choosing(self, moment, menu: gr.Dropdown, model: gr.State):
        """At this moment (an event such as `menu.select`) bring the encoder in the menu onto this machine and load it.
        model: State with the name of the one that answers, which stays on a failure. Returns the event to go on from.
        """
        wanted, failed = gr.State(None), gr.State(None)

        def fetch(name: str | None, request: gr.Request):
            yield from self.loading.fetch(name, str(menu._id), request)

        fetched = moment(fetch, menu, [self.line, self.cancel, wanted, failed], **QUIET, **FETCHING)
        shown = QUIET | dict(show_progress="minimal", show_progress_on=self.line)
        loaded = fetched.then(self.loading.load, [wanted, model, failed], [menu, model, failed], **shown, **MODEL_WORK)
        announced = loaded.then(self.loading.status, [self.model, failed, wanted], self.line, queue=False, **QUIET)
        self.refresh(announced)
        return announced

    def refresh(self, event) -> None:
        """Bring the menus of this page up to date after the event (what `.click` and the like return)."""
        self.stale.append(event)

    def on_open(self, tab: str, fn, inputs: list, outputs: list, then: Sequence[dict] = ()) -> None:
        """Run fn(names, *inputs) when `open_in` shows this tab, a module of demos/, with the encoders of these names,
        and then the events `then`; without it the first encoder becomes the page's model.
        """
        self.openings[tab] = dict(fn=fn, inputs=inputs, outputs=outputs, then=then)

    def open_in(self, event, tab: str, names: gr.State) -> None:
        """After the event show this tab with the encoders whose names are in the State; stay if there are none."""
        self.handed.append((event, tab, names))


def picker(studio: Studio, label: str, **options) -> gr.Dropdown:
    """A menu of the encoders on offer now. A client may name one that has come since: the studio knows which there
    are, and refuses in a sentence.
    """
    classes = [options.pop("elem_classes", ""), "tips-menu"]
    shown = dict(value=studio.first, label=label, filterable=False, elem_classes=classes) | options
    menu = gr.Dropdown(studio.choices(), **shown)
    menu.preprocess = lambda name: None if name is None else str(name)
    menu.api_info = lambda: {"type": "string", "description": "name of an encoder on offer"}
    return menu


def build(
    tabs: Sequence[str], model: str | Sequence[str] = "auto", device: str = "auto", settings: Settings = DEFAULTS
) -> gr.Blocks:
    """The page with these tab modules of demos/, opening with this model or these; `warm_up()` of what comes back loads
    them before the first visitor. Raises ModelError on an unknown name.
    """
    models = [model] if isinstance(model, str) else model
    models, heads = apart(models) if "depth" in tabs else (models, ())
    studio = Studio(models, device, settings.runs, settings.memory)
    modules = {name: importlib.import_module(f"demos.{name}.tab") for name in tabs}
    options = dict(title="TIPSv2 explorer", analytics_enabled=False, delete_cache=SWEEP, fill_width=True)
    with Guarded(**options, apart=not settings.public) as blocks:
        with gr.Row(elem_classes="tips-top", equal_height=True):
            gr.HTML(header(), apply_default_css=False, js_on_load=AGAIN + PASS_ON)
            choice = picker(studio, "Encoder", elem_classes="tips-model")
        with gr.Row(elem_classes="tips-who"):
            line = gr.HTML(loading_html(studio), apply_default_css=False, js_on_load=None, elem_classes="tips-line")
            small = dict(size="sm", min_width=80, scale=0, elem_classes="tips-cancel")
            cancel = gr.Button("Cancel", visible=False, **small)
            copied = gr.Button("Copy link", **small)
            photographs = gr.Button(S14, visible="hidden", elem_id=PHOTOGRAPHS)
        page = Page(studio, gr.State(None), choice, settings, line, cancel, pickers=[choice], heads=heads, tabs=tabs)
        cancel.click(page.loading.cancel, None, None, queue=False, **QUIET)
        _endpoints(page)  # before anything listens to the page's own `load`, which would have taken that name
        shown = None
        if len(modules) == 1:
            modules[tabs[0]].tab(page)
        else:
            with gr.Tabs(elem_classes="tips-tabs") as shown:
                for name, module in modules.items():
                    with gr.Tab(module.TITLE, id=name, render_children=True) as opened:
                        module.tab(page)
                    page.workspace.follow(name, opened.select)
                    here = opened.select(lambda name=name: name, None, page.reopening.tab, queue=False, **QUIET)
                    page.workspace.moments.append(here)

        def answer(moment) -> None:
            """Load the model in the picker, then whatever the tabs do about it."""
            ready = page.choosing(moment, choice, page.model)
            for arrival in page.arrivals:
                ready = ready.then(**arrival, **QUIET, **MODEL_WORK)
            page.reopening.follow(page, ready.then)

        # Of the picker's events `select` comes once a choice, `input` twice.
        picked = choice.select(lambda name: loading_html(studio, name), choice, line, queue=False, **QUIET)
        answer(page.reopening.bind(page, blocks, shown, copied).then)
        answer(picked.then)
        answer(photographs.click(lambda: (S14, loading_html(studio, S14)), None, [choice, line], **QUIET).then)
        for event, tab, names in page.handed:
            _hand_over(page, shown, event, tab, names, answer)
        _keep_menus(page, blocks)

        def forget(who: str) -> None:
            for let_go in (studio.forget, page.loading.forget, *page.leavings):
                let_go(who)

        def leave(request: gr.Request) -> None:
            who = visitor(request)
            forget(who)
            blocks.presence.gone(who)
            belongings.depart(blocks, who, program="gradio_client" in request.headers.get("user-agent", ""))

        def silent(who: str) -> None:
            forget(who)
            belongings.forget_session(blocks, who)
            belongings.depart(blocks, who, program=False)  # a program without a heartbeat may fetch its files later

        blocks.presence.leave = silent
        blocks.unload(leave)
    blocks.warm_up = studio.warm_up
    return blocks


def _keep_menus(page: Page, blocks: gr.Blocks) -> None:
    """Every menu lists what is on offer: on load, after `page.refresh`, and when one is opened.

    One that lists it already is left alone, so that no click into an open list is lost: renewing it closes it.
    """
    built = [(label, name) for label, name in page.choice.choices]  # what a page lists that has just come
    listed = gr.State(built)
    outputs = [listed, *page.pickers]

    def menus(listed, request: gr.Request):
        choices = page.studio.choices(visitor(request))
        if choices == listed:
            return [gr.skip()] * len(outputs)
        return [choices, *[gr.update(choices=choices)] * len(page.pickers)]

    asked = dict(fn=menus, inputs=listed, outputs=outputs, queue=False, **QUIET)
    gr.on([blocks.load, *(picker.focus for picker in page.pickers)], **asked)
    for event in page.stale:
        event.then(**asked)


def _hand_over(page: Page, shown: gr.Tabs | None, event, tab: str, names: gr.State, answer) -> None:
    """After the event show the tab, then have it take the encoders in names."""
    if shown is not None:
        event = event.then(lambda given: gr.update(selected=tab) if given else gr.skip(), names, shown, **QUIET)
    opening = page.openings.get(tab)
    if opening is None:

        def choose(given, request: gr.Request):  # with the list: what is opened may be newer than this page's
            return gr.update(choices=page.studio.choices(visitor(request)), value=given[0]) if given else gr.skip()

        event = event.then(choose, names, page.choice, **QUIET)
        answer(event.then)
    else:
        fn, inputs, outputs = opening["fn"], opening["inputs"], opening["outputs"]
        event = event.then(
            lambda given, *rest: fn(given, *rest) if given else [gr.skip()] * len(outputs),
            [names, *inputs],
            outputs,
            **QUIET,
            **MODEL_WORK,
        )
        for step in opening["then"]:
            event = event.then(**step)


def _endpoints(page: Page) -> None:
    """The encoders on offer, and getting one, for programs."""
    hidden = dict(visible=False)
    listed = dict(api_name="models", queue=False)
    gr.Button(**hidden).click(page.loading.models, None, gr.JSON(**hidden, label="models"), **listed)
    asked = dict(api_name="load", **FETCHING)
    gr.Button(**hidden).click(page.loading.get, page.choice, gr.JSON(**hidden, label="model"), **asked)


def header() -> str:
    mark = (WEB / "favicon.svg").read_text("utf-8")
    return (
        f'<header class="tips-head">{mark}<div><h1>TIPSv2 explorer</h1>'
        f"<p>Ask an image for words and see which patches answer.</p><p>{_origins()}</p></div></header>"
    )


def _origins() -> str:
    """Whose work this is, and where it comes from."""
    links = (f'<a href="{url}" target="_blank" rel="noopener">{name}</a>' for name, url in ORIGINS.items())
    return f"An independent project, not Google's. TIPSv2: {', '.join(links)}."
