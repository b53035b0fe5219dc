"""A page's stream of answers ends while the page asks on: nothing is lost, whatever arrives first.

python -m pytest tests/test_endings.py
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time

import gradio as gr
import pytest
from conftest import PATIENCE
from strangers import Stranger

from demos import launch
from demos.server import endings
from demos.server.gate import Guarded

DELAY = 0.5  # seconds the news of the end takes, where an answer takes some milliseconds


class Slow:
    """ASGI: a network in which the news that a stream ends travels longer than anything else."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        async def sending(message):
            if endings.NEWS in message.get("body", b""):
                await asyncio.sleep(DELAY)
            await send(message)

        await self.app(scope, receive, sending if scope["type"] == "http" else send)


@pytest.fixture(scope="module")
def page():
    """Two handlers, the second asked for as soon as the first has answered."""
    with Guarded(analytics_enabled=False) as blocks:
        first, second = gr.Textbox(label="first"), gr.Textbox(label="second", elem_classes="second")
        begun = blocks.load(lambda: "one", None, first, api_name="begin")
        begun.then(lambda text: f"{text} two", first, second, api_name="go_on")
    return blocks


@pytest.fixture(scope="module")
def url(page):
    from demos.server import doorway

    class Outside(doorway.Doorway):
        """The doorway, and the slow network before it."""

        async def __call__(self, scope, receive, send):
            await Slow(super().__call__)(scope, receive, send)

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(doorway, "Doorway", Outside)
        _, address, _ = launch.launch(
            page, server_name="127.0.0.1", server_port=port, prevent_thread_lock=True, quiet=True
        )
    yield address
    page.close(verbose=False)


@pytest.fixture
def visitor(url):
    opened = Stranger(url)
    yield opened
    opened.close()


def messages(stream):
    """What comes in a stream, one message after the other."""
    for line in stream.iter_lines():
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


def listening(visitor):
    return visitor.http.stream("GET", f"{visitor.url}/gradio_api/queue/data?session_hash={visitor.session}")


def asking(visitor, function, data):
    """Ask in a thread -> (the thread, what it has when it is done: the seconds it took and the event)."""
    found, start = [], time.monotonic()

    def ask():
        event = visitor.join(function, data).raise_for_status().json()["event_id"]
        found.append((time.monotonic() - start, event))

    thread = threading.Thread(target=ask)
    thread.start()
    return thread, found


def test_a_question_is_taken_once_its_page_has_let_go_of_the_stream_that_ends(visitor):
    first = visitor.join(0, []).raise_for_status().json()["event_id"]
    with listening(visitor) as stream:
        rest = messages(stream)  # kept: httpx closes a stream whose reader is gone
        completed = next(message for message in rest if message["msg"] == "process_completed")
        assert completed["event_id"] == first and next(rest)["msg"] == "close_stream"
        thread, found = asking(visitor, 1, ["one"])
        thread.join(0.5)
        assert not found  # as the page may not have read the news yet
    thread.join(endings.GRACE / 2)
    ((_, second),) = found
    answer = visitor.answers([second])[second]
    assert answer["success"] and answer["output"]["data"] == ["one two"]


def test_who_never_lets_go_is_answered_after_the_grace(visitor, monkeypatch):
    monkeypatch.setattr(endings, "GRACE", 0.4)
    visitor.join(0, []).raise_for_status()
    with listening(visitor) as stream:
        assert [message["msg"] for message in messages(stream)][-1] == "close_stream"  # and then the stream ends
    visitor.join(0, []).raise_for_status()
    with listening(visitor) as stream:
        rest = messages(stream)
        assert any(message["msg"] == "close_stream" for message in rest)
        thread, found = asking(visitor, 1, ["one"])
        thread.join(5)
        ((seconds, second),) = found
        assert 0.1 < seconds < 3
    assert visitor.answers([second])[second]["success"]


@pytest.mark.slow
def test_a_question_before_the_end_keeps_the_stream_open(visitor):
    one, two = (visitor.join(0, []).raise_for_status().json()["event_id"] for _ in range(2))
    with listening(visitor) as stream:
        told = [message for message in messages(stream)]
    assert [each["event_id"] for each in told if each["msg"] == "process_completed"] == [one, two]
    assert [each["msg"] for each in told].count("close_stream") == 1


def test_a_page_goes_on_though_the_end_of_its_stream_arrives_late(visit_plain):
    from playwright.sync_api import expect

    expect(visit_plain().get_by_label("second")).to_have_value("one two", timeout=PATIENCE)


@pytest.fixture
def visit_plain(browser, url):
    """Opens the page, which has no encoder to wait for."""
    contexts = []

    def opened():
        contexts.append(browser.new_context())
        page = contexts[-1].new_page()
        page.goto(url)
        return page

    yield opened
    for each in contexts:
        each.close()
