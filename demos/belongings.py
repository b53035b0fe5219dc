"""What a visitor leaves behind, on the disk and in the server's memory, and when it goes.

Files made for one visitor lie in a room of their own below Gradio's folder. Uploads lie beside the rooms, where Gradio
names them by their content: one that several visitors gave goes with the last of them. Examples are everybody's.

    path = room("visitor") / "cat.png"
    claim("visitor", "/tmp/.../upload.png")
    clear("visitor")
"""

from __future__ import annotations

import hashlib
import shutil
import threading
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import gradio as gr

AWAY = 600  # seconds until what a page left goes: a phone that lost its connection finds its image again
DONE = 3  # the same for a program, which has no page to come back to
ECHO = timedelta(seconds=1)  # Gradio's own work on a departure counts as a use of the session

_claims: dict[str, set[Path]] = {}  # visitor -> uploads
_lock = threading.Lock()


def uploads() -> Path:
    """Gradio's folder: uploads, and below it the visitors' rooms."""
    from gradio.utils import get_upload_folder

    return Path(get_upload_folder()).resolve()


def room(who: str) -> Path:
    """The folder for files made for one visitor; made if it is not there."""
    folder = _room(who)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def shared() -> Path:
    """The folder for what is shown to everybody: deeper than uploads, so that nobody can claim it and take it along."""
    return uploads() / "examples"


def _room(who: str) -> Path:
    return uploads() / "visitors" / hashlib.sha256(who.encode()).hexdigest()[:32]


def claim(who: str, path: str | Path) -> None:
    """A file that a visitor uploaded. Whatever does not lie directly in a folder of `uploads()` is nobody's."""
    path = Path(path).resolve()
    if path.parent.parent == uploads():
        with _lock:
            _claims.setdefault(who, set()).add(path)


def clear(who: str) -> None:
    """Delete a visitor's files, but for uploads that somebody else has given, too."""
    shutil.rmtree(_room(who), ignore_errors=True)
    with _lock:
        own = _claims.pop(who, set())
        for path in own.difference(*_claims.values()):
            _discard(path)


def _discard(path: Path) -> None:
    """Delete one upload and the folder that holds nothing else. It is looked at again where it lies, and no tree is
    ever removed: a mistake in who claimed what must not cost more than that file.
    """
    if path.parent.parent != uploads():
        return
    with suppress(OSError):
        path.unlink()
        path.parent.rmdir()  # only if it is empty


def depart(blocks: gr.Blocks, who: str, program: bool) -> None:
    """A visitor has left: unless they come back, their files and what Gradio keeps of their page go in a while."""
    timer = threading.Timer(DONE if program else AWAY, _gone, (blocks, who, datetime.now()))
    timer.daemon = True
    timer.start()


def _gone(blocks: gr.Blocks, who: str, left: datetime) -> None:
    sessions = blocks.state_holder
    if sessions.time_last_used.get(who, left) > left + ECHO:
        return  # came back, and will leave again
    clear(who)
    with sessions.lock:
        sessions.session_data.pop(who, None)
        sessions.time_last_used.pop(who, None)
