"""The queue: its end, its order, and who is dropped; and who counts as gone.

python -m pytest tests/test_waiting.py
"""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import gradio as gr
import pytest

from demos.backend.asking import Requester
from demos.backend.turns import Ledger
from demos.server import waiting
from demos.server.gate import Guarded
from demos.server.presence import SILENCE, Presence


def asked(page: Guarded, session: str, address: str = "1", kind: str = "model", age: float = 0):
    """An event in the line of its kind of work, as Gradio puts it there."""
    fn = SimpleNamespace(concurrency_id=kind, concurrency_limit=3, connection="sse", api_name="x")
    request = SimpleNamespace(client=SimpleNamespace(host=address))
    event = waiting.queueing.Event(session, fn, request, None)
    event.enqueue_time -= age
    page._queue.create_event_queue_for_fn(fn)
    page._queue.event_queue_per_concurrency_id[kind].queue.append(event)
    return event


@pytest.fixture
def page():
    """A page of one function."""
    with Guarded(analytics_enabled=False) as blocks:
        box = gr.Textbox()
        gr.Button().click(lambda text: text, box, box, api_name="x")
    blocks._queue.ledger = Ledger()
    blocks._queue.active_jobs = [None] * 8
    return blocks


def serve(page) -> str | None:
    """Begin the next question; whose it is."""
    found = page._queue.get_events()
    if found is None:
        return None
    (event,), batch, kind = found
    assert not batch
    page._queue.active_jobs[page._queue.active_jobs.index(None)] = [event]
    page._queue.event_queue_per_concurrency_id[kind].current_concurrency += 1
    return event.session_hash


def finish(page, session: str) -> None:
    queue = page._queue
    place = next(k for k, job in enumerate(queue.active_jobs) if job and job[0].session_hash == session)
    queue.event_queue_per_concurrency_id[queue.active_jobs[place][0].concurrency_id].current_concurrency -= 1
    queue.active_jobs[place] = None


def test_one_with_many_questions_does_not_hold_up_others(page):
    for _ in range(10):
        asked(page, "hostile", "2")
    asked(page, "a", "1"), asked(page, "b", "1")
    page._queue.ledger.add(Requester("hostile", "2"), 30)
    assert [serve(page) for _ in range(4)] == ["a", "b", "hostile", None]  # one of a page at a time
    finish(page, "a")
    assert serve(page) is None
    finish(page, "hostile")
    assert serve(page) == "hostile"


def test_an_address_has_two_in_hand_and_another_one_gets_the_third(page):
    for number in range(5):
        asked(page, f"h{number}", "2")
    assert [serve(page) for _ in range(3)] == ["h0", "h1", None]
    asked(page, "a", "1")
    assert serve(page) == "a"


def test_a_check_is_one_of_an_address_and_work_of_minutes_holds_up_no_other_kind(page):
    for session, address in (("h0", "2"), ("h1", "2"), ("a", "1")):
        asked(page, session, address, "check")
    assert [serve(page) for _ in range(3)] == ["h0", "a", None]
    asked(page, "h0", "2"), asked(page, "b", "3", "map")
    assert {serve(page), serve(page)} == {"h0", "b"}


def test_where_addresses_do_not_tell_visitors_apart_pages_do(page):
    page._queue.apart = False
    for number in range(4):
        asked(page, f"p{number}", "10.0.0.1")
    page._queue.ledger.add(Requester("p0"), 5)
    assert [serve(page) for _ in range(4)] == ["p1", "p2", "p3", None]


def test_questions_that_nobody_listens_for_are_dropped(page):
    old, heard = asked(page, "old", age=waiting.HEARD + 1), asked(page, "heard", age=waiting.HEARD + 1)
    page.presence.opened("heard")
    assert serve(page) == "heard" and serve(page) is None and not old.alive and heard.alive


def test_the_line_has_an_end_for_all_for_an_address_and_for_a_page(page, monkeypatch):
    monkeypatch.setattr(waiting, "MOST_WAITING", 6)
    monkeypatch.setattr(waiting, "MOST_OF_A_PAGE", 2)
    monkeypatch.setattr(waiting, "MOST_OF_A_MACHINE", 3)
    monkeypatch.setattr(waiting, "MOST_PAGES", 2)
    (number,) = page.fns

    def push(session, address):
        request = SimpleNamespace(client=SimpleNamespace(host=address))
        body = SimpleNamespace(session_hash=session, fn_index=number, trigger_id=None, data=["a"])
        return asyncio.run(page._queue.push(body, request, None))[2]

    assert [push("a", "1") for _ in range(3)] == ["success", "success", "queue_full"]
    assert [push("b", "1") for _ in range(2)] == ["success", "queue_full"]
    assert [push(name, "2") for name in "cde"] == ["success", "success", "queue_full"]  # too many pages
    assert [push("f", "3"), push("g", "4")] == ["success", "queue_full"]


def test_who_goes_without_a_word_and_who_does_not():
    now, left = [0.0], []
    presence = Presence(lambda: now[0])
    presence.leave = left.append
    for name in ("silent", "page", "reader", "asks again"):
        presence.came(name, "1")
    presence.opened("page", heartbeat=True)
    presence.closed("page")  # Gradio tells of it, and a phone may come back
    presence.opened("reader")
    assert presence.pages("1") == 4
    now[0] = SILENCE + 1
    presence.came("asks again", "1")
    assert presence.look() == ["silent"] == left and not presence.known("silent") and presence.pages("1") == 3
    presence.closed("reader")
    now[0] += SILENCE + 1
    assert sorted(presence.look()) == ["asks again", "reader"]
    assert not presence.listens("reader")


def test_nothing_goes_past_the_queue(page):
    assert page.api_open is False and page._queue.max_size == waiting.MOST_WAITING
