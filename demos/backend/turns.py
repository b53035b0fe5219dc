"""Work that costs seconds, shared fairly: one pass through a model at a time, and whoever has used least comes next.

Several handlers run at once (`MODEL_WORK`); where they need a network they take turns. Texts go through a slice
at a time, so that a long list holds nobody up for longer than a slice takes. Whoever has gone gets no further turn.

    share(encoder, ("encode_pixels", "encode_layers"), texts="embed_prompts")
"""

from __future__ import annotations

import functools
import itertools
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from demos.backend import space
from demos.backend.asking import REQUESTER, Requester

HALF_LIFE = 60.0  # seconds after which half of what somebody used is forgotten
MOST_KNOWN = 4096  # addresses and sessions whose use is remembered
SLICE = 64  # prompts that go through together
MAX_PROMPTS = 12_000  # of one list that are not known yet: the 150 classes of ADE20K in 80 templates
NOBODY = Requester("")


class Gone(ValueError):
    """The client has left, so nobody will read the answer."""


class Ledger:
    """Seconds of work that addresses and sessions have used lately. Safe to share between threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._used: dict[str, tuple[float, float]] = {}  # "a" or "s" and the name -> (seconds, when that was said)
        self._lock = threading.Lock()

    def add(self, asker: Requester, seconds: float) -> None:
        with self._lock:
            now = self._clock()
            for key in ("a" + asker.address, "s" + asker.session):
                self._used[key] = self._left(key, now) + seconds, now
            if len(self._used) > MOST_KNOWN:
                for key in sorted(self._used, key=lambda key: self._left(key, now))[: MOST_KNOWN // 2]:
                    del self._used[key]

    def used(self, *askers: Requester) -> list[tuple[float, float]]:
        """-> (seconds of the address, of the session) of each, all at one moment: the least comes next."""
        with self._lock:
            now = self._clock()
            return [(self._left("a" + asker.address, now), self._left("s" + asker.session, now)) for asker in askers]

    def _left(self, key: str, now: float) -> float:
        seconds, when = self._used.get(key, (0.0, 0.0))
        return seconds * 0.5 ** ((now - when) / HALF_LIFE) if seconds else 0.0


class Turns:
    """A lock that the one who has used least gets next."""

    def __init__(self, ledger: Ledger):
        self.ledger = ledger
        self._changed = threading.Condition()
        self._numbers = itertools.count()
        self._waiting: dict[int, Requester] = {}
        self._busy = False

    @property
    def idle(self) -> bool:
        """Has nobody a turn, and waits nobody for one?"""
        return not self._busy and not self._waiting

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a turn and have it. Raises Gone if the client leaves before it comes."""
        asker = REQUESTER.get() or NOBODY
        with self._changed:
            number = next(self._numbers)
            self._waiting[number] = asker
            try:
                while self._busy or self._first() != number:
                    self._changed.wait(1)
                    still_there(asker)
                still_there(asker)
                self._busy = True
            finally:
                del self._waiting[number]
                self._changed.notify_all()
        start = time.monotonic()
        try:
            yield
        finally:
            self.ledger.add(asker, time.monotonic() - start)
            with self._changed:
                self._busy = False
                self._changed.notify_all()

    def _first(self) -> int:
        uses = self.ledger.used(*self._waiting.values())
        return min(zip(uses, self._waiting, strict=True))[1]  # of equals who came first


def still_there(asker: Requester | None) -> None:
    """Raises Gone if somebody asked who no longer waits."""
    if asker is not None and not asker.waits():
        raise Gone("Nobody waits for this answer any more.")


LEDGER = Ledger()
TURNS = Turns(LEDGER)  # of all models: they share the machine's cores, or its GPU


def share(model, methods: tuple[str, ...], texts: str = "", turns: Turns = TURNS):
    """The model, whose methods each take a turn, and whose method `texts` takes one for every SLICE of its list."""
    for name in methods:
        setattr(model, name, functools.partial(_in_turn, turns, _method(model, name)))
    if texts:
        setattr(model, texts, functools.partial(_in_slices, turns, _method(model, texts)))
    return model


def _method(model, name: str) -> Callable[[], Callable]:
    """Gives a method, and does not keep the model: its weights go at once when nobody needs them any more."""
    lent = vars(model).get(name)
    return (lambda: lent) if lent is not None else weakref.WeakMethod(getattr(model, name))


def _in_turn(turns: Turns, method: Callable[[], Callable], *args, **kwargs):
    with turns.turn():
        return method()(*args, **kwargs)


def _in_slices(turns: Turns, embed: Callable[[], Callable], prompts: list[str]):
    """Prompts -> their rows [N, D], each different one read once, those of like length together."""
    import torch

    if not prompts:
        return embed()(prompts)
    different = sorted(dict.fromkeys(prompts), key=len)
    if len(different) > MAX_PROMPTS:
        raise ValueError(
            f"Names times templates make {len(different):,} phrases to read, and {MAX_PROMPTS:,} are read at once: "
            "give fewer names, or take a smaller set of templates."
        )
    size = len(different) if space.zero_gpu() else SLICE  # there a GPU is asked for each time, and waited for
    rows = [_in_turn(turns, embed, different[start : start + size]) for start in range(0, len(different), size)]
    places = {prompt: place for place, prompt in enumerate(different)}
    return torch.cat(rows)[[places[prompt] for prompt in prompts]]
