"""Visitors of a served page over plain HTTP, from an address each: what a program could send, well-formed or not."""

from __future__ import annotations

import json
import secrets

import httpx

PATIENCE = 120  # seconds for an answer on a busy machine


class Stranger:
    """One visitor. url: of the page; address: the loopback address to come from."""

    def __init__(self, url: str, address: str = "127.0.0.1"):
        self.url, self.address, self.session = url.rstrip("/"), address, secrets.token_hex(6)
        self.http = httpx.Client(transport=httpx.HTTPTransport(local_address=address), timeout=PATIENCE)
        self.events: dict[str, dict | None] = {}

    def close(self) -> None:
        self.http.close()

    def upload(self, name: str, content: bytes) -> str:
        """-> the path of an upload on the server."""
        answer = self.http.post(f"{self.url}/gradio_api/upload", files={"files": (name, content)})
        answer.raise_for_status()
        return answer.json()[0]

    def join(self, function: int, data: list, event=None, **more) -> httpx.Response:
        """Put a question into the queue."""
        body = dict(data=data, fn_index=function, session_hash=self.session, event_data=event, **more)
        return self.http.post(
            f"{self.url}/gradio_api/queue/join",
            content=json.dumps(body),  # as no other library would: with NaN and halves of letters
            headers={"content-type": "application/json"},
        )

    def answers(self, events: list[str]) -> dict[str, dict]:
        """The last message on each of these events, in one stream."""
        left, found = set(events), {}
        if not left:
            return found
        address = f"{self.url}/gradio_api/queue/data?session_hash={self.session}"
        with self.http.stream("GET", address) as stream:
            for line in stream.iter_lines():
                if not line.startswith("data: "):
                    continue
                message = json.loads(line[6:])
                if message["msg"] == "process_completed":
                    found[message["event_id"]] = message
                    left.discard(message["event_id"])
                if message["msg"] in ("close_stream", "unexpected_error") or not left:
                    break
        return found

    def ask(self, function: int, data: list, event=None) -> dict:
        """One question and its answer: {"success", "output"}. Raises httpx.HTTPStatusError where it may not join."""
        joined = self.join(function, data, event).raise_for_status().json()["event_id"]
        return self.answers([joined])[joined]

    def run(self, function: int, data: list, event=None) -> httpx.Response:
        """A question to a handler that does not queue."""
        body = dict(data=data, fn_index=function, session_hash=self.session, event_data=event)
        return self.http.post(
            f"{self.url}/gradio_api/run/predict",
            content=json.dumps(body),
            headers={"content-type": "application/json"},
        )


def usual(block) -> object:
    """What a page sends for a component that nobody has touched."""
    value = getattr(block, "value", None)
    return None if block.stateful or callable(value) else value


def handlers(page) -> list:
    """Every handler of a page that runs here, one of those with the same function and inputs."""
    different = {}
    for function in page.fns.values():
        if function.fn is not None and not any(kind == "unload" for _, kind in function.targets):
            inner = getattr(function.fn, "__qualname__", str(function.fn))
            key = (inner, function.name, tuple(block._id for block in function.inputs), function.queue)
            different.setdefault(key, function)
    return list(different.values())
