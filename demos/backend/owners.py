"""Behind the Train tab: who asks, and whose a run is. No gradio.

    asker = identity_of(request, key, public=False)   # from what Gradio knows of the request and what the page sent
    write_owner(folder, asker)                        # beside a run that begins
    owner_of(folder).may(asker)                       # may they see, stop, resume, open or delete it?

A run belongs to whoever started it and to the machine, that is to whoever sits in front of it. With `--auth` a person
is a user name. Without, a browser keeps a secret key of its own (`gr.BrowserState`) and a program has the session of
its client, or a key it gives. Only their digests are written down. Of what is not written down nothing but the machine
is the owner: a run from a terminal, or one whose record is damaged.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from demos.backend.settings import is_loopback
from tipsv2.files import whole_file

if TYPE_CHECKING:
    import gradio as gr

RECORD = "app/owner.json"  # in a run's folder
FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")  # somebody passes this on
KEY_LETTERS = (16, 200)  # of a key, least and most


@dataclass(frozen=True)
class Identity:
    """machine: they sit at the machine that serves, so all runs, its folders and its Hub token are theirs. marks: what
    their runs are known by; () for somebody who cannot be told from others, who owns nothing.
    """

    machine: bool = False
    marks: tuple[str, ...] = ()


MACHINE = Identity(machine=True)


@dataclass(frozen=True)
class Owner:
    """Who started a run. machine: somebody at the machine; marks: as in `Identity`."""

    machine: bool = False
    marks: tuple[str, ...] = ()

    def may(self, asker: Identity) -> bool:
        """May they see the run, and stop, resume, open or delete it?"""
        return asker.machine or not set(self.marks).isdisjoint(asker.marks)


def identity_of(request: gr.Request | None, key: object, public: bool) -> Identity:
    """Who sends a request with this key. public: as in `demos.backend.settings.Settings`. Raises ValueError: a bad
    key.
    """
    user = getattr(request, "username", None)
    session = getattr(request, "session_hash", None)
    if user:
        names = [f"user {user}"]  # whatever key this browser has had from somebody else
    else:
        names = [f"key {checked_key(key)}"] if key else []
        names += [f"session {session}"] if session else []  # a page that has no key yet gets one a moment later
    marks = tuple(hashlib.sha256(name.encode("utf-8", "replace")).hexdigest() for name in names)
    return Identity(not public and at_machine(request), marks)


def new_key() -> str:
    """A key nobody can guess, for a browser to keep."""
    return secrets.token_urlsafe(24)


def checked_key(key: object) -> str:
    """Raises ValueError for what is no key or could be guessed."""
    least, most = KEY_LETTERS
    if not isinstance(key, str) or not least <= len(key) <= most:
        raise ValueError(f"A key is a text of {least} to {most} letters that only you know.")
    return key


def at_machine(request: gr.Request | None) -> bool:
    """Does a request come from a browser or program on the machine that serves? A loopback address alone does not say
    so: a proxy in front has one, too, and a page of any other site may have its name resolved to one. So nobody may
    have passed the request on, and it must be addressed to this machine by a loopback name. What is not known is
    elsewhere.
    """
    headers = getattr(request, "headers", None)
    if headers is None or any(headers.get(name) for name in FORWARDED):
        return False
    address = getattr(getattr(request, "client", None), "host", None)
    asked_for = re.sub(r":\d+$", "", headers.get("host") or "")  # without its port: "[::1]", "localhost"
    return is_loopback(address) and is_loopback(asked_for)


def write_owner(folder: Path, asker: Identity) -> None:
    """Note in a run's folder who started it."""
    with whole_file(folder / RECORD) as part:
        part.write_text(json.dumps({"machine": asker.machine, "marks": list(asker.marks)}), "utf-8")


def owner_of(folder: Path) -> Owner:
    """Who started the run in this folder."""
    try:
        noted = json.loads((folder / RECORD).read_text("utf-8"))
        return Owner(noted["machine"] is True, tuple(map(str, noted["marks"])))
    except FileNotFoundError:
        return Owner(machine=True)  # from a terminal
    except (OSError, ValueError, TypeError, KeyError):
        return Owner()
