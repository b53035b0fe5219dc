"""Who waits, and who is next: Gradio's queue with an end, a limit for each visitor, and a fair order.

Gradio takes whoever came first, so that one visitor with many questions holds up all others. Here the next one is the
one whose machine and then whose page has used least lately (`turns.LEDGER`); a page's own questions keep their order.
"""

from __future__ import annotations

import random
import time

from gradio import queueing

from demos.backend.asking import Requester
from demos.backend.turns import LEDGER, Ledger

MOST_WAITING = 256  # questions of everybody; one more is refused with HTTP 503, which clients take for a full queue
MOST_OF_A_PAGE = 24  # of them from one open page or client
MOST_OF_A_MACHINE = 96  # from one address
MOST_PAGES = 64  # open pages and clients of one address: Gradio spends 0.7 MB and a tenth of a second on each
MOST_NAME = 100  # characters of a session's name; Gradio's own have eleven
RUNNING = 2  # questions of one address that one kind of work (`concurrency_id`) has in hand at once
OF_ONE_PAGE = {"fetch": 2}  # likewise of one page, else 1: another encoder may be chosen while one still downloads
OF_ONE_MACHINE = {"check": 1}  # and of one address, else RUNNING: a check takes minutes, and there are two places
HEARD = 60  # seconds a question waits for somebody to listen to its answer
FULL = "Too many questions are waiting here: wait for their answers, then ask again."
MANY_PAGES = "Too many pages are open from this address: close some, or wait a minute."


class Queue(queueing.Queue):
    """presence: who is there, see `demos.server.presence`; endings: whose streams are ending, see
    `demos.server.endings`; apart: do the addresses tell visitors apart?
    """

    def __init__(self, *args, presence, endings, apart: bool, ledger: Ledger = LEDGER, **kwargs):
        super().__init__(*args, **kwargs)
        self.presence, self.endings, self.apart, self.ledger = presence, endings, apart, ledger
        # Gradio makes a table of the last questions after every single one, for a monitor that is not there.
        self.ANALYTICS_MAX_EVENTS, self.ANAYLTICS_CACHE_FREQUENCY = 1, 10**12

    def asker(self, event: queueing.Event) -> Requester:
        """Who sent an event."""
        return Requester(event.session_hash, self.address(event.request), lambda: event.alive)

    def address(self, request) -> str:
        """The machine a request comes from, "" where all seem to come from one."""
        return request.client.host if self.apart and request is not None and request.client else ""

    async def push(self, body, request, username):
        """As Gradio's. What no handler could take is refused before it waits; the page hears that its question was
        taken only once it knows whether its stream goes on.
        """
        session, address = body.session_hash, self.address(request)
        if (refusal := self._refusal(body)) is not None:
            return False, refusal, "error"
        waiting = [event for line in self.event_queue_per_concurrency_id.values() for event in line.queue]
        of_page = sum(event.session_hash == session for event in waiting)
        of_machine = sum(self.address(event.request) == address for event in waiting) if self.apart else 0
        if len(waiting) >= MOST_WAITING or of_page >= MOST_OF_A_PAGE or of_machine >= MOST_OF_A_MACHINE:
            return False, FULL, "queue_full"
        if self.apart and not self.presence.known(session) and self.presence.pages(address) >= MOST_PAGES:
            return False, MANY_PAGES, "queue_full"
        done = await super().push(body, request, username)
        self.presence.came(body.session_hash, address)
        await self.endings.ended(body.session_hash)
        return done

    def _refusal(self, body) -> str | None:
        if body.session_hash is not None and not (
            body.session_hash.isprintable() and len(body.session_hash) <= MOST_NAME
        ):
            return f"A session's name has {MOST_NAME} printable characters at most."
        if body.fn_index not in self.blocks.fns:
            return "There is no such function here: reload the page, or see its API page for the endpoints."
        page = self.blocks._id  # what triggers the handlers of its arrival
        if body.trigger_id not in (None, page) and body.trigger_id not in self.blocks.blocks:
            return "There is no such part of the page: reload it."
        return None

    def get_events(self):
        """-> (one event, no batch, its kind of work) that is to be worked on next, or None."""
        self._leave_unheard()
        kinds = list(self.event_queue_per_concurrency_id)
        random.shuffle(kinds)
        for kind in kinds:
            line = self.event_queue_per_concurrency_id[kind]
            if line.queue and (line.concurrency_limit is None or line.current_concurrency < line.concurrency_limit):
                if (event := self._next(kind, line.queue)) is not None:
                    line.queue.remove(event)
                    return [event], False, kind
        return None

    def _next(self, kind: str, line: list[queueing.Event]) -> queueing.Event | None:
        running = [event for job in self.active_jobs if job for event in job if event.concurrency_id == kind]
        pages = [event.session_hash for event in running]
        machines = [self.address(event.request) for event in running]
        first: dict[str, queueing.Event] = {}
        for event in line:  # the oldest question of every page
            first.setdefault(event.session_hash, event)
        able = [
            event
            for page, event in first.items()
            if pages.count(page) < OF_ONE_PAGE.get(kind, 1)
            and (not self.apart or machines.count(self.address(event.request)) < OF_ONE_MACHINE.get(kind, RUNNING))
        ]
        uses = self.ledger.used(*(self.asker(event) for event in able))
        least = min(range(len(able)), key=uses.__getitem__, default=None)  # of equals the oldest
        return None if least is None else able[least]

    def _leave_unheard(self) -> None:
        """Questions whose client has never come for the answer, or no longer listens, are dropped."""
        late = time.monotonic() - HEARD
        for line in self.event_queue_per_concurrency_id.values():
            for event in [waiting for waiting in line.queue if waiting.enqueue_time < late]:
                if not self.presence.listens(event.session_hash):
                    event.alive = False
                    line.queue.remove(event)
                    self.event_ids_to_events.pop(event._id, None)
                    self.pending_event_ids_session.get(event.session_hash, set()).discard(event._id)
