"""How the page gets an encoder somebody chose: download it in view, with a way to stop, then load it.

Downloads run beside the queue of model work: nobody else waits for them. Handlers are plain functions; what fails is a
toast, and the encoder before it stays.
"""

from __future__ import annotations

from collections.abc import Iterator

import gradio as gr

from demos.backend.shelf import amount
from demos.backend.studio import Studio, where
from demos.ui import views
from demos.ui.controls import answered, sentence, visitor, warn
from tipsv2.checkpoints.catalogue import ModelError

FETCHING = dict(concurrency_id="fetch", concurrency_limit=8)


class Choice:
    """An encoder chosen in a menu, on its way."""

    downloading = False


class Loading:
    """Handlers. Of every menu of every visitor they hold the last choice: it wins, whichever is there first."""

    def __init__(self, studio: Studio):
        self.studio = studio
        self._last: dict[str, dict[str, Choice]] = {}  # visitor -> menu -> its last choice

    def fetch(self, name: str | None, menu: str = "", request: gr.Request = None) -> Iterator[tuple]:
        """Bring the encoder onto this machine -> (line, cancel button, the name that may be loaded, what failed),
        as often as there is news: in the end one of the last two is None. When something else is chosen in this menu
        the waiting ends, and all is left to that choice.
        """
        idle, who, choice = gr.update(visible=False), visitor(request), Choice()
        self._last.setdefault(who, {})[menu] = choice

        def chosen() -> dict[str, Choice]:
            return self._last.get(who, {})  # none: the visitor has left

        yield gr.skip(), gr.skip(), None, None
        try:
            title = self.studio.info(name).title
            for done, total in self.studio.fetch(name, who):
                if chosen().get(menu) is not choice:
                    break
                choice.downloading = True
                yield downloading_html(title, done, total), gr.update(visible=True), gr.skip(), gr.skip()
        except Exception as error:
            if (message := sentence(error)) is None:
                raise
            warn(message)
            choice.downloading = False
            yield gr.skip(), idle, None, message
            return
        choice.downloading = False
        if chosen().get(menu) is choice:
            yield loading_html(self.studio, name), idle, name or self.studio.first, None
        else:  # what this one last said of the button may have arrived after what that choice says of it
            busy = any(other.downloading for other in chosen().values())
            yield gr.skip(), gr.update(visible=busy), gr.skip(), gr.skip()

    def load(self, name: str | None, current: str | None, failed: str | None = None) -> tuple:
        """-> (menu, model that answers now, what failed). name and failed: as `fetch` gave them; after a failure the
        model before it stays, and while something else that was chosen is on its way everything does.
        """
        if name is None and failed is None:
            return gr.skip(), gr.skip(), None
        try:
            if name is not None:
                opening = current is None and name == self.studio.unasked
                answers = self.studio.encoder(None if opening else name).info.name
                if answers != name:
                    warn(self.studio.fallen_back)
                return answers, answers, None
        except Exception as error:
            if (failed := sentence(error)) is None:
                raise
            warn(failed)
        return current or gr.skip(), current, failed

    def status(self, current: str | None, failed: str | None = None, name: str | None = "") -> str | dict:
        """The line on who answers, or on why nobody does. name: as `fetch` gave it."""
        if name is None and failed is None:
            return gr.skip()
        return status_html(self.studio, current, failed or "choose an encoder above")

    def forget(self, who: str) -> None:
        """A visitor leaves."""
        self._last.pop(who, None)

    def cancel(self, request: gr.Request = None) -> None:
        """Stop what is downloading for this visitor."""
        self.studio.downloads.cancel(visitor(request))

    @answered
    def models(self, request: gr.Request = None) -> list[dict]:
        """The encoders on offer: name (what the other endpoints take as `model`), title, parameters, training
        resolution in pixels, download size in MB, which kinds of pictures it knows ([] where nobody has said), where
        it is, and whether it is in memory.
        """
        return [
            {
                "name": info.name,
                "title": info.title,
                "parameters": info.parameters,
                "resolution": info.resolution,
                "download_mb": info.download_mb,
                "knows": list(info.knows),
                "where": where(info),
                "loaded": self.studio.shelf.loaded(info.name) is not None,
            }
            for info in self.studio.offer.infos(visitor(request))
        ]

    @answered
    def get(self, model: str, request: gr.Request = None) -> dict:
        """Download an encoder if it is not on this machine, and load it. Returns its name, size, device and precision.

        model: an encoder on offer, see /models.
        """
        for _ in self.studio.fetch(model, visitor(request)):
            pass
        encoder = self.studio.encoder(model)
        return {
            "name": encoder.info.name,
            "parameters": encoder.info.parameters,
            "resolution": encoder.info.resolution,
            "device": str(encoder.device),
            "dtype": str(encoder.dtype).removeprefix("torch."),
        }


def loading_html(studio: Studio, model: str | None = None) -> str:
    """The line while a model loads."""
    try:
        title = studio.info(model).title
    except ModelError:  # a run deleted a moment ago: loading it will say so
        title = str(model)
    return views.status(f"Loading {title} …", [], "loading")


def downloading_html(title: str, done: int, total: int) -> str:
    """The line while a model comes from the Hub."""
    if not done:
        return views.status(f"Downloading {title} …", ["asking the Hub"], "loading")
    line = views.status(f"Downloading {title} …", [f"{amount(done)} of {amount(max(done, total))}"], "loading")
    share = min(1.0, done / total) if total else 0.0
    bar = f'<progress value="{share:.4f}" max="1" aria-label="downloaded"></progress>'
    return f'<div class="tips-download">{line}{bar}</div>'


def status_html(studio: Studio, model: str | None, failure: str = "") -> str:
    """Which model answers: its size, resolution, device and dtype, which pictures it knows and what it was trained on,
    in one line.
    """
    if model is None:
        return views.status(studio.info().title, [failure], "failed")
    encoder = studio.shelf.loaded(model)
    try:
        info = encoder.info if encoder else studio.info(model)
    except ModelError as error:
        return views.status(model, [str(error)], "failed")
    facts = [
        f"{info.parameters} parameters" if info.parameters != "unknown" else "",
        f"trained at {info.resolution} px",
        f"{encoder.device}, {str(encoder.dtype).removeprefix('torch.')}" if encoder else "",
        f"knows {' and '.join(info.knows)}" if info.knows else "",
        {"folder": "a local folder", "run": "a training run"}.get(info.source, info.trained_on),
    ]
    return views.status(info.title, [fact for fact in facts if fact])
