"""Where HTTP requests come in: what is not for this page is turned away before Gradio sees it, in a line of the log.

- A Host header that is none of the server's names: a page elsewhere whose name was made to lead here (DNS rebinding).
- Routes of Gradio that this page has no use for, and that write files or reach other servers.
- Bodies larger than anything the page sends, and uploads beyond a visitor's share of the disk.
- Whatever Gradio's own routes raise on requests that are not well-formed.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import os
import re
import socket
from collections.abc import Collection
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from demos.backend import belongings
from demos.server.endings import NEWS
from demos.server.gate import Guarded, line

MAX_BODY = 4_000_000  # bytes of a request that is no upload: a drawn mask has two million letters at most
UPLOAD = "/gradio_api/upload"
# Deep links write a visitor's page to the disk, recordings are turned into videos, proxies fetch from other servers, a
# component's own functions and Gradio's editor run code: nothing here uses them.
CLOSED = re.compile(
    r"/(gradio_api/)?(deep_link|process_recording|run-history|runs|vibe-|undo-vibe-|proxy=|component_server|stream/|dev/"
    r"|profiling|monitoring)"
)
STREAM = re.compile(r"/gradio_api/(?:(heartbeat)/([^/]+)|queue/data|call/(?:v2/)?[^/]+/([^/]+))/?")
log = logging.getLogger("explorer")


class TooLarge(Exception):
    """More came than was let in."""


class Doorway:
    """ASGI middleware. names: those of the server besides loopback and bare addresses, lower case; "*.example.org" is
    every name below example.org.
    """

    def __init__(self, app: ASGIApp, page: Guarded, names: Collection[str]):
        self.app, self.page, self.names = app, page, {name.lower() for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        began = False

        async def sending(message: Message) -> None:
            nonlocal began
            began = True
            await send(message)

        try:
            refusal = self._refusal(scope)
            if refusal is not None:
                status, reason = refusal
                _say(scope, reason)
                return await PlainTextResponse(reason, status)(scope, receive, send)
            if scope["path"].rstrip("/") == UPLOAD and scope["method"] == "POST":
                return await self._upload(scope, receive, sending)
            limited = _Limited(receive, MAX_BODY, scope)
            await self._stream(scope, limited, sending)
        except TooLarge:
            _say(scope, "the body is too large")
            if not began:
                reason = "This request is larger than any that the page sends."
                await PlainTextResponse(reason, 413)(scope, receive, send)
        except Exception as error:
            _say(scope, line(error, where=True))
            if not began:
                await JSONResponse({"detail": "This request cannot be understood."}, 400)(scope, receive, send)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """-> (status, why), None for a request that may come in."""
        if not known_host(Headers(scope=scope).get("host"), self.names):
            return 400, "This server is not called so: see --hostname."
        if CLOSED.match(scope["path"]):
            return 404, "There is nothing here."
        return None

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, and note whose stream is open meanwhile, and whose is ending."""
        match = STREAM.fullmatch(scope["path"]) if scope["method"] == "GET" else None
        if not match:
            return await self.app(scope, receive, send)
        session = match[2] or self._asked(match[3]) or _query(scope, "session_hash")
        presence, endings, ends = self.page.presence, self.page.endings, False

        async def sending(message: Message) -> None:
            nonlocal ends
            if message.get("body", b"").startswith(NEWS):
                ends = True
                endings.begin(session)
            elif ends and not message.get("more_body"):
                await endings.wait(session)
            await send(message)

        presence.opened(session, heartbeat=bool(match[1]))
        try:
            await self.app(scope, receive, sending)
        finally:
            presence.closed(session)
            if ends:
                endings.over(session)

    def _asked(self, event: str | None) -> str | None:
        """The session of an event; plain HTTP has none but the event's own."""
        known = self.page._queue.event_ids_to_events.get(event)
        return known.session_hash if known else event

    async def _upload(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a file in if there is room for it, and write down where it came from."""
        address = scope["client"][0] if self.page.apart and scope["client"] else ""
        coming = Headers(scope=scope).get("content-length", "")
        coming = int(coming) if coming.isdecimal() else self.page.max_file_size or 0
        try:
            belongings.refuse_more(address, coming)
        except ValueError as error:
            _say(scope, str(error))
            return await PlainTextResponse(str(error), 413)(scope, receive, send)
        status, answer = 0, bytearray()

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif status == 200:
                answer.extend(message.get("body", b""))
                if not message.get("more_body"):
                    belongings.received(json.loads(answer), address)  # before the client hears of it
            await send(message)

        await self.app(scope, _Limited(receive, coming, scope), noted)


class _Limited:
    """What a client sends, up to so many bytes."""

    def __init__(self, receive: Receive, most: int, scope: Scope):
        self.receive, self.left = receive, most
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdecimal() and int(declared) > most:
            raise TooLarge

    async def __call__(self) -> Message:
        message = await self.receive()
        self.left -= len(message.get("body", b""))
        if self.left < 0:
            raise TooLarge
        return message


def known_host(header: str | None, names: Collection[str]) -> bool:
    """Is a Host header the server's? Loopback names and bare addresses are: no name server can make those lead here."""
    try:
        host = (urlsplit(f"//{header}").hostname or "").rstrip(".")
    except ValueError:
        return False
    if not header or any(letter in header for letter in "@/\\?#, "):
        return False
    if host == "localhost" or host.endswith(".localhost") or host in names:
        return True
    if any(name.startswith("*.") and host.endswith(name[1:]) for name in names):
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def own_names(host: str | None, share: bool, given: Collection[str] = ()) -> set[str]:
    """The names a server has: what `--host` and `--hostname` say, the machine's own where it listens to all, a share
    link's and a Space's.
    """
    names = {name.lower() for name in given}
    if host:
        names.add(host.lower().strip("[]"))
    if host in ("0.0.0.0", "::", "[::]"):
        names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
    if share:
        names.add("*.gradio.live")
    return names | {name.strip().lower() for name in os.environ.get("SPACE_HOST", "").split(",") if name.strip()}


def _say(scope: Scope, reason: str) -> None:
    log.warning("refused %s %s: %s", scope["method"], line(scope["path"])[:120], reason)


def _query(scope: Scope, name: str) -> str:
    return parse_qs(scope["query_string"].decode("latin-1")).get(name, [""])[0]
