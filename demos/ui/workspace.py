"""One picture and one list of words for the whole page: what is given in one tab is there in all others.

A tab keeps fields of its own and tells the workspace which they are. What changes in the tab that is open goes to the
page's State; a tab that is opened takes what is new there, and draws only then.

    page.workspace.share("ask", field, image, [uploaded, cleared, chosen], drawing, words=queries)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.events import Dependency

from demos.backend import belongings
from demos.export.files import slug
from demos.ui.controls import MAX_TEXT, other_chips
from demos.ui.examples import Example, every_example
from demos.ui.links import MOST_WORDS

QUIET = dict(show_progress="hidden", api_visibility="private", trigger_mode="multiple")


def example_of(path: str | None) -> Example | None:
    """The example that a kept picture is a copy of, None for a visitor's own. path: as `controls.keep` gives it."""
    if path is None or not Path(path).is_relative_to(belongings.shared()):
        return None
    stem = Path(path).stem
    return next((example for example in every_example() if slug(example.path.stem) == stem), None)


def carried(chosen: object) -> list[str]:
    """The words of a field, as far as they are words: a client may send anything, and the page keeps it."""
    words = chosen if isinstance(chosen, list) else []
    return [word for word in words if isinstance(word, str) and len(word) <= MAX_TEXT][:MOST_WORDS]


@dataclass(frozen=True)
class Taker:
    """Where a tab takes a picture and words to, as given to `Workspace.share`."""

    field: gr.Image
    image: gr.State
    words: gr.Dropdown | None
    more: Sequence
    taken: Callable[..., tuple]
    reads: Sequence


class Workspace:
    """What the tabs of a page share. picture: State with the path of the checked copy, "" where it was taken away, None
    while the visitor has given none; words: State with phrases.
    """

    def __init__(self):
        self.picture, self.words = gr.State(None), gr.State(None)
        self._tabs: dict[str, Callable] = {}  # name -> what binds it to its tab's `select`
        self.tabs: dict[str, Taker] = {}
        self.moments: list[Dependency] = []  # events after which picture or words may be others

    def share(
        self,
        tab: str,
        field: gr.Image,
        image: gr.State,
        given: Sequence[Dependency],
        draw: dict | Sequence[dict],
        *,
        words: gr.Dropdown | None = None,
        fitting: Callable[[list[str], Example | None], list[str]] = lambda words, example: words,
        more: Sequence = (),
        taken: Callable[..., tuple] = lambda example, words: (),
        reads: Sequence = (),
    ) -> None:
        """Have this tab of the page follow its picture, and its words where it asks for some.

        given: the events by which a visitor gives this tab a picture or takes it away; not the example that it shows
        at first.   draw: the events that draw anew, one after the other.   fitting: which of the page's words this tab
        asks for.   more: further outputs when another picture comes, which `taken(example, words, *reads)` gives;
        example: which of the page's examples the picture is.
        """
        drawn_for = gr.State(0)
        self.tabs[tab] = Taker(field, image, words, more, taken, reads)
        for event in given:
            self.moments.append(event.then(lambda path: path or "", image, self.picture, **QUIET))
        if words is not None:
            self.moments.append(other_chips(words).then(carried, words, self.words, queue=False, **QUIET))

        def take(picture: str | None, wanted: list[str] | None, held: str | None, count: int, *asked) -> list[Any]:
            new = picture is not None and picture != (held or "")
            picture = picture or None
            example = example_of(picture if new else held)
            outputs = [gr.skip()] * (3 + len(more))
            if new:
                outputs = [picture, picture, count + 1, *taken(example, wanted or [], *asked[: len(reads)])]
            if words is not None:
                wanted = fitting(wanted or [], example)
                outputs.append(wanted if wanted and wanted != asked[-1] else gr.skip())
            return outputs

        inputs = [self.picture, self.words, image, drawn_for, *reads]
        outputs = [field, image, drawn_for, *more]
        if words is not None:
            inputs, outputs = [*inputs, words], [*outputs, words]

        def bind(select: Callable) -> None:
            select(take, inputs, outputs, **QUIET)  # queued: only then does the page hear of changed States
            event = drawn_for.change
            for step in [draw] if isinstance(draw, dict) else draw:
                event = event(**step).then

        self._tabs[tab] = bind

    def follow(self, tab: str, select: Callable) -> None:
        """select: the event by which this tab is opened; nothing happens where it shares nothing."""
        if tab in self._tabs:
            self._tabs[tab](select)
