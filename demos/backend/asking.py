"""Who asks: the open page or program, the machine it sits at, and whether it still waits for the answer.

Set while a request is worked on, in its thread and nowhere else; None where nobody from outside asks.

    asker = REQUESTER.get()
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True)
class Requester:
    """session: Gradio's name for one open page or client. address: of the machine, "" where all seem to come from one,
    as behind a shared link. waits: has the client not gone yet?
    """

    session: str
    address: str = ""
    waits: Callable[[], bool] = lambda: True


REQUESTER: ContextVar[Requester | None] = ContextVar("requester", default=None)
