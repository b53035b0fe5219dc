"""Downloads that somebody watches: bytes as they come, one download however many wait for the same encoder, and none
that nobody waits for any more. No gradio in here.

    downloads = Downloads()
    for done, total in downloads.follow(find("tipsv2-b14"), "visitor"):
        ...
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

from tipsv2.checkpoints.catalogue import ModelError, ModelInfo

BEAT = 0.3  # seconds between two reports


class _Job(threading.Thread):
    """One download in its own thread, which ends at the next bytes that come once `waiting` is empty."""

    def __init__(self, info: ModelInfo, lock: threading.Lock):
        super().__init__(daemon=True, name=f"download-{info.name}")
        self.info = info
        self.lock = lock  # of `waiting` and `given_up`
        self.given_up = False
        self.waiting: set[object] = set()
        self.done, self.total = 0, info.download_mb * 10**6
        self.error: ModelError | None = None

    def run(self) -> None:
        from tipsv2.checkpoints.download import download

        try:
            download(self.info, self.report)
        except ModelError as error:
            self.error = error
        except _Abandoned:
            pass

    def report(self, done: int, total: int) -> None:
        self.done, self.total = done, max(total, self.total)
        with self.lock:
            self.given_up = self.given_up or not self.waiting
        if self.given_up:
            raise _Abandoned


class _Abandoned(Exception):
    """Nobody waits for this download."""


class Downloads:
    """The downloads under way and who waits for them."""

    def __init__(self):
        self._jobs: dict[str, _Job] = {}
        self._lock = threading.Lock()
        self._stops: dict[str, set[threading.Event]] = {}  # by visitor, one for each download waited for

    def follow(self, info: ModelInfo, visitor: str) -> Iterator[tuple[int, int]]:
        """Download, or wait for the same download of somebody else; yields (bytes done, bytes in all). Closing the
        iterator ends the waiting. Raises ModelError if it fails or if `cancel` is called for this visitor.
        """
        ticket, stop = object(), threading.Event()
        job = self._join(info, ticket)
        with self._lock:
            self._stops.setdefault(visitor, set()).add(stop)
        try:
            while job.is_alive():
                yield job.done, job.total
                if stop.wait(BEAT):
                    raise ModelError(f"The download of {info.title} was cancelled.")
            if job.error:
                raise job.error
        finally:
            with self._lock:
                job.waiting.discard(ticket)
                self._stops[visitor].discard(stop)
                if not self._stops[visitor]:
                    del self._stops[visitor]

    def cancel(self, visitor: str) -> None:
        """This visitor no longer waits for anything."""
        with self._lock:
            for stop in self._stops.get(visitor, ()):
                stop.set()

    def _join(self, info: ModelInfo, ticket: object) -> _Job:
        while True:
            with self._lock:
                job = self._jobs.get(info.name)
                if job is None or not job.is_alive():
                    job = self._jobs[info.name] = _Job(info, self._lock)
                    job.waiting.add(ticket)
                    job.start()
                    return job
                if not job.given_up:  # also one that nobody waited for until now: it may be stalled for long
                    job.waiting.add(ticket)
                    return job
            job.join()  # it is ending
