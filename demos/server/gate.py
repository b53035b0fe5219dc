"""What a client sends, looked at before any handler of the page sees it, and what a refusal leaves in the log: a line.

Gradio checks some values, some components' and some handlers'; here every value of every handler is checked, by the
component it is for: its kind, its range, its letters. A path counts only if it is one of the visitor's own files
(`belongings.own`). Handlers get what they can expect, or are not called at all.

    with Guarded(title="...") as blocks: ...
"""

from __future__ import annotations

import html
import logging
import threading
import time
import traceback
from typing import Any

import gradio as gr

from demos.backend import belongings
from demos.backend.asking import REQUESTER, Requester
from demos.backend.turns import LEDGER, Gone
from demos.server.endings import Endings
from demos.server.presence import Presence
from demos.server.waiting import MOST_WAITING, Queue

MAX_PICTURE = 20_000_000  # bytes of an uploaded file, whatever a zip to train on may have
MAX_LETTERS = 120_000  # of one text: 500 words of 200 letters, and the commas
MAX_ENTRIES = 1000  # of a list
MAX_DEPTH = 8  # of what is told of a click
BEAT = 5  # seconds between two looks at who has gone
TURNS = ("model", "map")  # kinds of work whose turns are counted one by one (demos/backend/turns.py)
LARGEST = 1e15  # numbers beyond are no numbers of this page
SORRY = "Something went wrong here, through no fault of yours: try again, or reload the page."
log = logging.getLogger("explorer")


class Refused(ValueError):
    """What a client sent is not what the page sends: a sentence on what is wrong with it."""


class Guarded(gr.Blocks):
    """gr.Blocks whose handlers are called with checked values only, and whose errors are sentences.

    apart: do visitors' addresses tell them apart?
    """

    _queue: Any  # Gradio's, then ours

    def __init__(self, *args, apart: bool = True, **kwargs):
        self.apart, self.presence, self.endings, self._over = apart, Presence(), Endings(), threading.Event()
        super().__init__(*args, **kwargs)

    def queue(self, *args, **kwargs):
        """As Gradio's, with an end and a fair order; nothing goes past it."""
        super().queue(*args, **(kwargs | dict(api_open=False, default_concurrency_limit=3)))
        plain = self._queue
        self._queue = Queue(
            plain.live_updates, plain.max_thread_count, plain.update_intervals, MOST_WAITING, self, 3,
            presence=self.presence, endings=self.endings, apart=self.apart,
        )  # fmt: skip
        return self

    def watch(self) -> None:
        """See who has gone without a word and which uploads nobody used, every BEAT seconds until the page closes."""

        def looking() -> None:
            while not self._over.wait(BEAT):
                self.presence.look()
                belongings.sweep()

        threading.Thread(target=looking, daemon=True, name="presence").start()

    def close(self, *args, **kwargs) -> None:
        self._over.set()
        super().close(*args, **kwargs)

    async def process_api(self, block_fn, inputs, state=None, request=None, iterator=None, **given) -> dict[str, Any]:
        """As Gradio's. Raises gr.Error with a sentence, for the client and, shorter, for the log."""
        asker, start = self._asker(request, given.get("event_id")), time.monotonic()
        token = REQUESTER.set(asker)
        try:
            if not iterator and asker is not None:
                inputs = [checked(block, value, state, asker) for block, value in pairs(block_fn, inputs)]
                click = getattr(given.get("event_data"), "_data", None)
                if given.get("event_data") is not None:
                    given["event_data"]._data = {} if click is None else plain_event(click)
            answer = await super().process_api(block_fn, inputs, state, request, iterator, **given)
            if asker is not None:
                belongings.made(asker.session, paths(answer.get("data")))
            return answer
        except gr.Error as error:
            log.warning("refused %s: %s", block_fn.api_name, line(error.message))
            error.print_exception = False
            raise
        except Refused as error:
            log.warning("refused %s: %s", block_fn.api_name, line(error))
            raise gr.Error(html.escape(str(error), quote=False), print_exception=False) from None
        except Gone as error:
            raise gr.Error(str(error), print_exception=False) from None
        except Exception as error:
            log.error("failed %s: %s", block_fn.api_name, line(error, where=True))
            raise gr.Error(SORRY, print_exception=False) from None
        finally:
            REQUESTER.reset(token)
            if asker is not None and block_fn.concurrency_id not in TURNS:
                LEDGER.add(asker, time.monotonic() - start)

    def _asker(self, request, event_id: str | None) -> Requester | None:
        """None where no request is: a call from within this process."""
        if not isinstance(request, gr.Request) or request.client is None:
            return None
        session, address = request.session_hash or "local", request.client.host if self.apart else ""
        belongings.came(session, address)
        event = self._queue.event_ids_to_events.get(event_id)
        return Requester(session, address, lambda: event is None or event.alive)


def pairs(block_fn, inputs: list) -> list[tuple]:
    """Every component beside the value sent for it. Raises Refused."""
    if len(inputs) < len(block_fn.inputs):
        raise Refused(f"{len(block_fn.inputs)} values are expected and {len(inputs)} came: see the page's API.")
    return list(zip(block_fn.inputs, inputs, strict=False))


def checked(block, value, state, asker: Requester):
    """A value as the handlers may have it, sent for this component. Raises Refused."""
    now = state[block._id] if state is not None and not block.stateful and block._id in state else block
    name = block.label or type(block).__name__
    if block.stateful:
        return None  # a State's value is the server's own, whatever is sent
    if isinstance(block, gr.Number | gr.Slider | gr.Timer):
        return _number(now, value, name)
    if isinstance(block, gr.Checkbox):
        if value is not None and not isinstance(value, bool):
            raise Refused(f"{name} is yes or no, true or false.")
        return bool(value)
    if isinstance(block, gr.Textbox | gr.HTML):
        return "" if value is None else text(value, name)
    if isinstance(block, gr.Radio | gr.Dropdown):
        return _chosen(block, now, value, name)
    if isinstance(block, gr.File | gr.UploadButton | gr.Image):
        return _file(block, value, name, asker)
    return plain(value, name)


def _number(block, value, name: str):
    if value is None and not isinstance(block, gr.Slider):
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < LARGEST:  # nan compares false
        raise Refused(f"{name} is a number, and what came is none that can be used.")
    low, high = getattr(block, "minimum", None), getattr(block, "maximum", None)
    if low is not None and value < low or high is not None and value > high:
        bounds = " to ".join(f"{bound:g}" for bound in (low, high) if bound is not None)
        raise Refused(f"{name} is {value:g}, which is out of its range: {bounds}.")
    return value


def _chosen(block, now, value, name: str):
    """One of the choices; any text where the page takes any, as words typed in or the name of an encoder."""
    several = getattr(block, "multiselect", False)
    free = getattr(now, "allow_custom_value", False) or "preprocess" in vars(block)
    if value is None:
        if not several and not free and block.value is not None:
            raise Refused(f"{name} is one of its choices.")
        return [] if several else None
    if several and not isinstance(value, list):
        raise Refused(f"{name} is a list of texts.")
    entries = value if several else [value]
    if len(entries) > MAX_ENTRIES:
        raise Refused(f"{name} has {len(entries):,} entries, and {MAX_ENTRIES:,} are read at most.")
    choices = [choice for _, choice in now.choices]
    for entry in entries:
        if isinstance(entry, str):
            text(entry, name)
        elif isinstance(entry, bool) or not isinstance(entry, int | float):
            raise Refused(f"{name} is one of its choices, or a list of texts.")
        if free and not isinstance(entry, str):
            raise Refused(f"{name} is a text.")
        if not free and entry not in choices:
            raise Refused(f"{name} is none of its choices: {', '.join(str(option) for option in choices[:30])[:300]}.")
    return value


def _file(block, value, name: str, asker: Requester):
    if value is None:
        return None
    if not isinstance(value, dict):
        raise Refused(f"{name} is a file that was uploaded here, as gradio_client's handle_file does it.")
    try:
        path = belongings.own(value.get("path"), asker.session, asker.address)
    except ValueError as error:
        raise Refused(str(error)) from None
    zipped = ".zip" in (getattr(block, "file_types", None) or ())
    if not zipped and path.stat().st_size > MAX_PICTURE:
        belongings.discard(path)
        raise Refused(f"The file has more than {MAX_PICTURE / 1e6:.0f} MB: make the picture smaller.")
    return {"path": str(path), "orig_name": path.name, "meta": {"_type": "gradio.FileData"}}


def text(value, name: str) -> str:
    """A text that can be written down; a number counts as its digits. Raises Refused."""
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST:
        return str(value)
    if not isinstance(value, str):
        raise Refused(f"{name} is a text.")
    if len(value) > MAX_LETTERS:
        raise Refused(f"{name} has {len(value):,} letters, and {MAX_LETTERS:,} are read at most.")
    try:
        value.encode()
    except UnicodeEncodeError:  # JSON may hold one half of a surrogate pair
        raise Refused(f"{name} holds half a letter, a surrogate without its other half: type it again.") from None
    return value


def plain(value, name: str, depth: int = MAX_DEPTH):
    """Any value made of texts, finite numbers, lists and dicts, in which no file is named. Raises Refused."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        if not abs(value) < LARGEST:
            raise Refused(f"{name} holds a number that is none.")
        return value
    if isinstance(value, list | dict):
        if depth == 0 or len(value) > MAX_ENTRIES:
            raise Refused(f"{name} holds more than the page ever sends.")
        if isinstance(value, dict):
            if "path" in value:
                raise Refused(belongings.NOT_YOURS)
            return {text(key, name): plain(entry, name, depth - 1) for key, entry in value.items()}
        return [plain(entry, name, depth - 1) for entry in value]
    return value if isinstance(value, str) and len(value) > MAX_LETTERS and value.isascii() else text(value, name)


def plain_event(click) -> dict:
    """What a client tells of a click; nothing where it is no dict, as of a field that got the focus. Raises Refused."""
    return plain(click, "The click") if isinstance(click, dict) else {}


def paths(data) -> list[str]:
    """The files named anywhere in what a handler answers."""
    if isinstance(data, dict):
        own = [data["path"]] if isinstance(data.get("path"), str) else []
        return own + [path for entry in data.values() for path in paths(entry)]
    return [path for entry in data for path in paths(entry)] if isinstance(data, list | tuple) else []


def line(error, where: bool = False) -> str:
    """An error as one line of plain letters: what it says and, with `where`, its kind and the place it comes from."""
    said = str(error).encode("ascii", "backslashreplace").decode()
    said = "".join(letter if letter.isprintable() else " " for letter in said)[:300]
    if where and (frames := traceback.extract_tb(error.__traceback__)):
        last = next((frame for frame in reversed(frames) if "site-packages" not in frame.filename), frames[-1])
        said = f"{type(error).__name__}: {said} ({last.filename.rpartition('/')[2]}:{last.lineno})"
    return said
