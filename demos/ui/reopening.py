"""A view that comes back: after a reload, on the next visit, and for whoever is sent the page's address.

The view is a text of `demos.ui.links`. It stands behind the # of the address, which browsers send to no server, and in
the browser's own storage for a visit to the bare address. A tab says which of its controls belong to a view, where in
the order of arrivals they are set: after what an encoder sets itself, before anything is drawn.

    page.reopening.keep(page, "ask", mode=mode, resolution=resolution, ranged=["resolution"])
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import gradio as gr
from gradio.components import Component

from demos.backend.studio import Studio
from demos.ui import controls, links
from demos.ui.controls import visitor, warn
from demos.ui.links import Setting, View
from demos.ui.workspace import Workspace, example_of
from tipsv2.checkpoints.catalogue import is_cached

QUIET = dict(show_progress="hidden", api_visibility="private")  # queued where there may be a toast: only then it comes
AT_ONCE = QUIET | dict(queue=False)
LINK, KEPT = "This link", "What this browser kept of your last visit"
OWN_PICTURE = "The picture of this view was somebody's own, and is not in it: give it again here."
# What is behind the #, cut where no page would have written more, and what the browser has kept.
LISTEN = f"(link, kept) => [location.hash.slice(1, {links.MOST + 2}), kept]"
UNKNOWN = "?"  # no link
WRITE = f"""(view) => {{
  if (view === "{UNKNOWN}") return [];  // the page is still opening: its address is yet to be read
  history.replaceState(history.state, "", view ? "#" + view : location.pathname + location.search);
  return [];
}}"""
COPY = """async (picture) => {
  try {
    await navigator.clipboard.writeText(location.href);
  } catch {  // a page served without https has no clipboard of its own
    const text = Object.assign(document.createElement("textarea"), { value: location.href });
    document.body.append(text);
    text.select();
    document.execCommand("copy");
    text.remove();
  }
  return [picture];
}"""
# A link pasted over the page's own address changes nothing but what is behind the #: no browser loads it again.
AGAIN = "addEventListener('hashchange', () => location.reload());"


class Reopening:
    """What of a page with these tabs is in its links. pending: State with the view that is being opened, None
    once the page is open; tab: State with the tab that is seen.
    """

    def __init__(self, studio: Studio, workspace: Workspace, names: Sequence[str]):
        self.studio, self.workspace, self.names = studio, workspace, names
        self.pending, self.tab = gr.State(View()), gr.State("")
        self.settings: dict[str, dict[str, Setting]] = {}
        self._usual: dict[tuple[str, str], gr.State] = {}  # (tab, setting) -> State with what it has by itself
        self._link = gr.Textbox(visible=False)
        self._kept = gr.BrowserState("", storage_key="tipsv2-explorer-view", secret="tipsv2-explorer")
        self._values = gr.Textbox(visible=False)  # of all settings, as JSON
        self._view = gr.Textbox(UNKNOWN, visible=False)  # as it was last noted

    def keep(
        self,
        page,
        tab: str,
        *,
        ranged: Sequence[str] = (),
        arriving: Sequence[str] = (),
        encoders: dict[str, gr.State] | None = None,
        usual: dict[str, gr.State] | None = None,
        **given: Component,
    ) -> None:
        """These controls of a tab, by their names in links, belong to a view.

        ranged: those of them whose range the encoder sets ("resolution", "layer", "features").   arriving: those that
        the tab sets when a model arrives.   encoders: menus of encoders among them, with the States that hold what
        answers.   usual: States with what a control has where nobody has changed it; else that is what it has when the
        page is built, or after an arrival.
        """
        besides, noted = dict(encoders or {}), {}
        known = self.settings[tab] = {
            name: Setting(component, name in besides, name in ranged) for name, component in given.items()
        }
        now = {name: given[name] for name in arriving} | besides
        noted = {name: gr.State(None) for name in now}
        self._usual |= {(tab, name): state for name, state in (noted | (usual or {})).items()}

        def set_them(pending: View | None, model: str | None, *arrived) -> list[Any]:
            own = dict(pending.settings.get(tab, {})) if pending else {}
            for name in ranged:
                if name in own:
                    own[name] = self._fitting(name, own[name], model)
            return [*(own.get(name, gr.skip()) for name in (*known, *besides)), *arrived]

        inputs = [self.pending, page.model, *now.values()]
        page.on_arrival(set_them, inputs, [*given.values(), *besides.values(), *noted.values()])

    def bind(self, page, blocks: gr.Blocks, tabs: gr.Tabs | None, copied: gr.Button):
        """Open the view that the page is asked for -> the event to go on from; from then on keep it up to date."""
        outputs = [page.choice, self.pending, self.tab, self.workspace.picture, self.workspace.words]
        first = next(iter(self.workspace.tabs), None)
        takers = list(self.workspace.tabs.values())
        for taker in takers:
            outputs += [taker.field, taker.image, *taker.more]
        chips = self.workspace.tabs[first].words if first else None
        if chips is not None:
            outputs.append(chips)
        reads = [component for taker in takers for component in taker.reads]

        def opened(request: gr.Request, link, kept, *asked):
            return self._open(link, kept, list(asked), visitor(request), chips is not None)

        opening = blocks.load(opened, [self._link, self._kept, *reads], outputs, js=LISTEN, **QUIET)
        if tabs is not None:

            def shown(pending: View | None):
                return gr.update(selected=pending.tab) if pending and pending.tab else gr.skip()

            page.arrivals.insert(0, dict(fn=shown, inputs=self.pending, outputs=tabs))
        page.on_arrival(lambda: None, None, self.pending)
        changes = [setting.component.change for own in self.settings.values() for setting in own.values()]
        if changes:
            self.follow(page, lambda **how: gr.on(changes, trigger_mode="always_last", **how))
        for event in self.workspace.moments:
            self.follow(page, event.then)
        copied.click(self._copied, self.workspace.picture, None, js=COPY, **QUIET)
        return opening

    def follow(self, page, moment) -> None:
        """At this moment (an event's `then`) bring address and browser up to date."""
        every = [setting.component for own in self.settings.values() for setting in own.values()]
        usual = list(self._usual.values())
        states = [page.model, self.pending, self.tab, self.workspace.picture, self.workspace.words]
        # The values go as one text: each by itself would be checked against a range that may just be changing.
        collect = dict(fn=None, inputs=every, outputs=self._values, js="(...values) => [JSON.stringify(values)]")
        noted = dict(fn=self._noted, inputs=[self._values, *states, *usual], outputs=[self._kept, self._view])
        write = dict(fn=None, inputs=self._view, outputs=None, js=WRITE)

        moment(**collect, **AT_ONCE).then(**noted, **AT_ONCE).then(**write, **AT_ONCE)

    def _open(self, link, kept, asked: list, who: str, chips: bool) -> list[Any]:
        """-> what `bind` lists: menu of encoders, pending, tab, picture, words, and what every tab takes of them."""
        text, source = (link, LINK) if link else (kept, KEPT)
        count = 5 + sum(2 + len(taker.more) for taker in self.workspace.tabs.values()) + chips
        outputs = [gr.skip()] * count
        if not text:
            return outputs
        try:
            view = links.read(text, self.settings_of_all, lambda name: self._may_open(name, who))
        except ValueError as error:
            warn(f"{source} cannot be opened, since {error}: here is the page as it always opens.")
            return outputs
        example = links.example_called(view.picture) if view.picture not in ("", links.OWN) else None
        path, words = controls.keep(example.path) if example else None, view.words
        if view.picture == links.OWN:
            gr.Info(OWN_PICTURE, duration=12)
        outputs[:3] = [view.encoder or gr.skip(), view, view.tab or gr.skip()]
        outputs[3:5] = [path or gr.skip(), list(words) if words is not None else gr.skip()]
        place = 5
        for taker in self.workspace.tabs.values():
            own, asked = asked[: len(taker.reads)], asked[len(taker.reads) :]
            if path:
                taken = taker.taken(example, list(words or ()), *own)
                outputs[place : place + 2 + len(taker.more)] = [path, path, *taken]
            place += 2 + len(taker.more)
        first = next(iter(self.workspace.tabs), None)
        if chips and words is not None and view.tab in ("", first):  # never in a tab that is not seen: controls.chips
            outputs[place] = list(words)
        return outputs

    @property
    def settings_of_all(self) -> dict[str, dict[str, Setting]]:
        """tab -> its settings, {} where it has none."""
        return {tab: self.settings.get(tab, {}) for tab in self.names}

    def _may_open(self, name: str, who: str) -> str:
        """An encoder's name, if a link may have it loaded: it is on offer to this visitor, and on this machine."""
        info = next((offered for offered in self.studio.offer.infos(who) if offered.name == name), None)
        if info is None:
            raise ValueError(f"there is no encoder '{links.shortened(name)}' here")
        if not is_cached(info):
            raise ValueError(f"its encoder, {info.title}, is to be downloaded first: choose it under Encoder")
        return name

    def _range(self, name: str, model: str | None) -> tuple[float, float, float] | None:
        """What an encoder lets a control be -> (least, most, usual); None where it is not loaded any more."""
        if name == "resolution":
            between = controls.resolution_range(self.studio.info(model).resolution)
            return between["minimum"], between["maximum"], between["value"]
        encoder = self.studio.shelf.loaded(self.studio.info(model).name)
        return (1, encoder.num_layers, encoder.num_layers) if encoder else None

    def _fitting(self, name: str, value, model: str | None):
        between = self._range(name, model)
        if between is None:
            return gr.skip()
        low, high, _ = between
        if isinstance(value, str):  # which layer's features: a number, or a word
            return value if not value.isdecimal() or low <= int(value) <= high else gr.skip()
        return min(max(value, low), high)

    def _noted(self, text: str, model: str | None, pending, tab: str, picture: str | None, words, *usual):
        """-> the view as it is now, for the browser to keep and for the address."""
        if model is None or pending is not None:  # the page is still opening
            return gr.skip(), gr.skip()
        try:
            values = iter(json.loads(text))
        except ValueError:
            return gr.skip(), gr.skip()
        by_itself = dict(zip(self._usual, usual, strict=True))
        settings: dict[str, dict[str, str]] = {}
        for tab_name, own in self.settings.items():
            for name, setting in own.items():
                value = next(values, None)
                written = self._changed(tab_name, name, setting, value, model, by_itself)
                if written is not None:
                    settings.setdefault(tab_name, {})[name] = written
        example = example_of(picture)
        public = {info.name for info in self.studio.offer.infos()}
        named = links.name_of(example) if example else links.OWN if picture else ""
        view = View(
            tab=tab if tab != next(iter(self.names), "") else "",
            picture=named,
            encoder=model if model != self.studio.first and model in public else "",
            words=None if words is None else tuple(links.sayable(words)),
            settings=settings,
        )
        text = links.write(view)
        return text, text

    def _changed(self, tab: str, name: str, setting: Setting, value, model, by_itself: dict) -> str | None:
        """What a link says of a control, None where it is as it is by itself or cannot be said."""
        component = setting.component
        usual = by_itself.get((tab, name), component.value)
        if setting.ranged and isinstance(value, int | float) and (between := self._range(name, model)):
            usual = between[2]
        if value is None or value == usual or isinstance(value, float) and not math.isfinite(value):
            return None
        if setting.encoder and value not in {info.name for info in self.studio.offer.infos()}:
            return None
        try:
            return setting.written(value)
        except ValueError:
            return None

    @staticmethod
    def _copied(picture: str | None) -> None:
        if picture and example_of(picture) is None:
            gr.Info("The link is copied. Your own picture is not in it: whoever opens it gives one there.", duration=8)
        else:
            gr.Info("The link to this view is copied.", duration=4)
