"""The end of a page's stream of answers and the page's next question: the page hears of the end first.

Gradio ends a page's stream once nothing is pending ("close_stream"), and the page opens one with its next question,
unless it believes that one is open. What a question meets at that moment is chance: its receipt comes by another
connection, so that it may overtake the news of the end. Then the page opens no stream and waits for ever; with chains
of handlers, where every answer leads to the next question, a busy machine saw that once in about 140 pages. So the
receipt waits until the page has let go of the stream that ends, which it does as it reads the news.
"""

from __future__ import annotations

import asyncio

GRACE = 3.0  # seconds a page has to let go; a proxy may keep its connection to this server
NEWS = b'data: {"msg":"close_stream"'  # how Gradio's message begins


class Endings:
    """The streams that are ending. For one event loop: the server's."""

    def __init__(self):
        self._ending: dict[str, asyncio.Event] = {}

    def begin(self, session: str) -> None:
        """The news of the end is on its way to this session."""
        self._ending.setdefault(session, asyncio.Event())

    async def wait(self, session: str) -> None:
        """Keep a stream open after the news. Cancelled when the client lets go of it, as Starlette does."""
        try:
            await asyncio.sleep(GRACE)
        finally:
            self.over(session)

    def over(self, session: str) -> None:
        """No stream of this session is ending any more."""
        if (ending := self._ending.pop(session, None)) is not None:
            ending.set()

    async def ended(self, session: str) -> None:
        """Returns once no stream of this session is ending, at once where none is."""
        if (ending := self._ending.get(session)) is not None:
            await ending.wait()
