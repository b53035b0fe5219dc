"""A visitor of a served page, by HTTP as the page's own script talks to it: any handler, from any loopback address.

near = Visitor(url)                                   # at the machine
far = Visitor(url, forwarded="192.0.2.7")             # as a proxy on this machine passes somebody on
far.call("start", {"Learn from": "folder"})           # -> outputs; far.said: the toasts
"""

from __future__ import annotations

import html
import json
import secrets

import gradio as gr
import httpx

NEAR = gr.Request(  # a request of a page at the machine, for handlers that are called as functions
    session_hash="near", client={"host": "127.0.0.1", "port": 1}, headers={"host": "127.0.0.1:7860"}
)


class Visitor:
    """One open page. address: the loopback address it connects from; forwarded: whom a proxy says it speaks for;
    login: (user, password); key: what its browser keeps of an earlier visit.
    """

    def __init__(self, url, address="127.0.0.1", forwarded=None, login=None, key=None, host=None):
        headers = {name: text for name, text in (("X-Forwarded-For", forwarded), ("Host", host)) if text}
        transport = httpx.HTTPTransport(local_address=address)
        self.http = httpx.Client(base_url=url, transport=transport, headers=headers, timeout=60)
        if login:
            self.http.post("login", data=dict(zip(("username", "password"), login, strict=True))).raise_for_status()
        config = self.http.get("config").json()
        self.components = {each["id"]: each for each in config.get("components", ())}
        self.handlers = {each["api_name"]: each for each in config.get("dependencies", ())}
        self.session, self.key, self.said = secrets.token_hex(8), key, []

    def call(self, handler, given=None):
        """What a handler answers, a list of its outputs. given: label of an input -> value; the others are as they are
        when the page opens. Toasts are in `said`; raises RuntimeError for an error.
        """
        known = self.handlers[handler]
        rest, data = dict(given or {}), []
        for component in (self.components[number] for number in known["inputs"]):
            value = component["props"].get("value")
            if component["type"] == "browserstate":
                value = self.key
            data.append(rest.pop(component["props"].get("label"), value))
        assert not rest, f"{handler} has no input {list(rest)}"
        asked = dict(data=data, fn_index=known["id"], session_hash=self.session, trigger_id=None, event_data=None)
        self.said = []
        self.http.post("gradio_api/queue/join", json=asked).raise_for_status()
        with self.http.stream("GET", "gradio_api/queue/data", params=dict(session_hash=self.session)) as answers:
            for line in answers.iter_lines():
                if line.startswith("data:"):
                    told = json.loads(line.removeprefix("data:"))
                    if told["msg"] == "log":
                        self.said.append(html.unescape(told["log"]))
                    if told["msg"] == "process_completed":
                        if not told["success"]:
                            raise RuntimeError(told["output"].get("error"))
                        return told["output"]["data"]
        raise RuntimeError("the stream ended without an answer")
