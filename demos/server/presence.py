"""Which visitors are there: their open streams, when they were last heard of, and who leaves without saying so.

A browser's page and gradio_client hold a heartbeat open, and Gradio tells when it ends. What asks over plain HTTP has
none: once it has no stream open and has been silent for SILENCE it counts as gone, and its memory goes.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable

SILENCE = 30  # seconds without a stream and without a question


class Presence:
    """leave: called with the name of a session that has gone without a word. Safe to share between threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.leave: Callable[[str], None] = lambda session: None
        self._clock = clock
        self._streams: Counter[str] = Counter()
        self._heard: dict[str, tuple[float, str]] = {}  # session -> (when, from which address)
        self._beating: set[str] = set()  # have or had a heartbeat: Gradio tells when they go
        self._lock = threading.Lock()

    def came(self, session: str, address: str) -> None:
        """A question of this session has arrived."""
        with self._lock:
            self._heard[session] = self._clock(), address

    def known(self, session: str | None) -> bool:
        return session in self._heard

    def pages(self, address: str) -> int:
        """How many sessions there are from an address."""
        with self._lock:
            return sum(source == address for _, source in self._heard.values())

    def opened(self, session: str, heartbeat: bool = False) -> None:
        with self._lock:
            self._streams[session] += 1
            if heartbeat:
                self._beating.add(session)

    def closed(self, session: str) -> None:
        with self._lock:
            self._streams[session] -= 1
            if self._streams[session] <= 0:
                del self._streams[session]
            if session in self._heard:
                self._heard[session] = self._clock(), self._heard[session][1]

    def listens(self, session: str) -> bool:
        """Is a stream open to this session?"""
        return session in self._streams

    def gone(self, session: str) -> None:
        """It has left: nothing more is known of it."""
        with self._lock:
            self._heard.pop(session, None)
            self._beating.discard(session)

    def look(self) -> list[str]:
        """Let those go who went without a word; returns their names."""
        with self._lock:
            late = self._clock() - SILENCE
            silent = [
                session
                for session, (when, _) in self._heard.items()
                if when < late and session not in self._streams and session not in self._beating
            ]
        for session in silent:
            self.leave(session)
            self.gone(session)
        return silent
