"""Who comes next where work costs seconds, and what happens to the work of somebody who has gone.

python -m pytest tests/test_turns.py
"""

from __future__ import annotations

import gc
import threading
import time
import weakref

import pytest
import torch

from demos.backend import turns
from demos.backend.asking import REQUESTER, Requester
from demos.backend.turns import HALF_LIFE, Gone, Ledger, Turns, share


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


class Texts:
    """A stand-in for an encoder: a row of a prompt's length, so that rows tell whose they are."""

    def __init__(self):
        self.lists = []

    def embed_prompts(self, prompts):
        self.lists.append(list(prompts))
        return torch.tensor([[float(len(prompt)), float(ord(prompt[0]))] for prompt in prompts])


def test_use_is_added_up_and_forgotten_by_halves():
    clock = Clock()
    ledger = Ledger(clock)
    one, page = Requester("p", "1"), Requester("q", "1")
    ledger.add(one, 8.0)
    assert ledger.used(one, page, Requester("x", "2")) == [(8.0, 8.0), (8.0, 0.0), (0.0, 0.0)]
    clock.now += 2 * HALF_LIFE
    ledger.add(page, 1.0)
    assert ledger.used(one) == [(3.0, 2.0)]


def test_the_ledger_has_an_end(monkeypatch):
    monkeypatch.setattr(turns, "MOST_KNOWN", 100)
    ledger = Ledger()
    heavy = Requester("h", "h")
    ledger.add(heavy, 100.0)
    for number in range(500):
        ledger.add(Requester(str(number), str(number)), 0.01)
    assert len(ledger._used) <= 102 and ledger.used(heavy)[0][0] > 99


def test_whoever_has_used_least_comes_next():
    own, order = Turns(Ledger()), []
    own.ledger.add(Requester("heavy", "2"), 50.0)
    inside, may_go = threading.Event(), threading.Event()

    def first():
        with own.turn():
            inside.set()
            may_go.wait(20)

    def other(asker):
        REQUESTER.set(asker)
        with own.turn():
            order.append(asker.session)

    threads = [threading.Thread(target=first)]
    threads[0].start()
    assert inside.wait(20)
    for asker in (Requester("heavy", "2"), Requester("page", "1"), Requester("heavy too", "2")):
        threads.append(threading.Thread(target=other, args=(asker,)))
        threads[-1].start()
        while len(own._waiting) < len(threads) - 1:
            time.sleep(0.01)
    may_go.set()
    for thread in threads:
        thread.join(20)
    assert order == ["page", "heavy too", "heavy"]  # of the two at one address, the page that has used less


def test_the_work_of_somebody_who_has_gone_ends_at_the_next_slice(monkeypatch):
    monkeypatch.setattr(turns, "SLICE", 4)
    there = [True, True, False]
    token = REQUESTER.set(Requester("p", "1", lambda: there.pop(0)))
    try:
        texts = Texts()
        with pytest.raises(Gone):
            share(texts, (), "embed_prompts", Turns(Ledger()))
            texts.embed_prompts([f"{k}" * (k + 1) for k in range(10)])
        assert [len(each) for each in texts.lists] == [4, 4]
    finally:
        REQUESTER.reset(token)


def test_slices_give_the_rows_of_the_whole_list(monkeypatch):
    monkeypatch.setattr(turns, "SLICE", 3)
    prompts = ["dog", "a", "cats", "a", "zebra", "be", "dog", "ox"]
    whole, texts = Texts().embed_prompts(prompts), Texts()
    rows = share(texts, (), "embed_prompts", Turns(Ledger())).embed_prompts(prompts)
    assert torch.equal(rows, whole) and [len(each) for each in texts.lists] == [3, 3]  # each different one once
    monkeypatch.setattr(turns, "MAX_PROMPTS", 5)
    with pytest.raises(ValueError, match="make 6 phrases"):
        texts.embed_prompts(prompts)


def test_a_shared_model_goes_as_soon_as_nobody_needs_it():
    texts = share(Texts(), (), "embed_prompts", Turns(Ledger()))
    gone = weakref.ref(texts)
    gc.disable()
    try:
        del texts
        assert gone() is None  # no circle keeps its weights until the collector comes by
    finally:
        gc.enable()


def test_others_are_let_through_between_slices(monkeypatch):
    monkeypatch.setattr(turns, "SLICE", 1)
    own, order, begun = Turns(Ledger()), [], threading.Event()

    class Slow(Texts):
        def embed_prompts(self, prompts):
            order.append("slice")
            begun.set()
            time.sleep(0.05)
            return super().embed_prompts(prompts)

    def long():
        REQUESTER.set(Requester("long", "2"))
        slow = share(Slow(), (), "embed_prompts", own)
        slow.embed_prompts(["a" * k for k in range(1, 21)])

    thread = threading.Thread(target=long)
    thread.start()
    assert begun.wait(20)
    with own.turn():
        order.append("other")
    thread.join(20)
    assert order.count("slice") == 20 and order.index("other") <= 2


def test_an_encoder_of_the_app_takes_turns(tiny_folder, tiny_encoder, monkeypatch):
    from demos.backend.studio import Studio

    encoder = Studio(str(tiny_folder), "cpu").encoder()
    ((held, _),) = turns.TURNS.ledger.used(turns.NOBODY)
    names = [f"dog {k}" for k in range(70)]
    assert torch.allclose(encoder.encode_text(names), tiny_encoder.encode_text(names), atol=1e-5)
    assert turns.TURNS.ledger.used(turns.NOBODY)[0][0] > held
    with pytest.raises(ValueError, match="12,000 are read at once"):
        encoder.encode_text([f"cat {k}" for k in range(200)], "clip80")
