"""Whose files are whose, how many a visitor may have, and when they go.

Files made for one visitor lie in a room of their own below Gradio's folder. Uploads lie beside the rooms, where Gradio
names them by their content: one that several visitors gave goes with the last of them. Examples are everybody's.

    path = own("/tmp/.../upload.png", "visitor", "127.0.0.1")    # the one way for a path that a client has sent
    claim("visitor", path)
    path = room("visitor") / "cat.png"
    clear("visitor")
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import gradio as gr

AWAY = 600  # seconds until what a page left goes: a phone that lost its connection finds its image again
DONE = 3  # the same for a program, which has no page to come back to
ECHO = timedelta(seconds=1)  # Gradio's own work on a departure counts as a use of the session
QUOTA = 1_000_000_000  # bytes on the disk that one visitor has, by address where addresses tell visitors apart
RESERVE = 1_000_000_000  # bytes of the disk that stay free
KEEP_MADE = 200_000_000  # bytes of pictures made for one page or program; they are fetched as soon as they are there
NOT_YOURS = "This file is none of yours on this server: upload it again."  # whatever is wrong with a path

_claims: dict[str, dict[Path, float]] = {}  # visitor -> uploads, each with when it was claimed last
_made: dict[str, dict[Path, int]] = {}  # visitor -> pictures made for them, with their bytes, the oldest first
_received: dict[Path, tuple[float, set[str]]] = {}  # upload -> (when, the addresses it came from)
_places: dict[str, str] = {}  # visitor -> address
_lock = threading.Lock()


def uploads() -> Path:
    """Gradio's folder: uploads, and below it the visitors' rooms."""
    named = os.environ.get("GRADIO_TEMP_DIR")  # where `gradio.utils.get_upload_folder` looks
    return Path(named or Path(tempfile.gettempdir()) / "gradio").resolve()


def own(path, who: str, address: str) -> Path:
    """The file that a client means by a path: an upload from this address, something made for this visitor, or an
    example. Raises ValueError for everything else, in the same words whether it exists or not.
    """
    try:
        if not isinstance(path, str) or not os.path.isabs(path):
            raise ValueError
        place = Path(path).resolve(strict=True)  # where links lead to
        parts = place.relative_to(uploads()).parts
        known = parts[:1] == ("examples",) or parts[:2] == _room(who).parts[-2:]
        with _lock:
            known = known or place in _claims.get(who, ()) or address in _received.get(place, (0, ()))[1]
        if not known or not place.is_file():
            raise ValueError
    except (OSError, ValueError, RuntimeError):  # RuntimeError: links in a circle
        raise ValueError(NOT_YOURS) from None
    return place


def came(who: str, address: str) -> None:
    """A visitor asks from an address."""
    with _lock:
        _places[who] = address


def received(paths: Iterable[str | Path], address: str) -> None:
    """Files were uploaded from an address."""
    with _lock:
        for path in paths:
            place = Path(path).resolve()
            _, addresses = _received.get(place, (0, set()))
            _received[place] = time.monotonic(), addresses | {address}


def weight(address: str) -> int:
    """Bytes that what came from an address, and what was made for its visitors, take on the disk."""
    with _lock:
        there = [who for who, where in _places.items() if where == address]
        files = {path for path, (_, addresses) in _received.items() if address in addresses}
        files.update(*(_claims.get(who, ()) for who in there))
    for who in there:
        files.update(path for path in _room(who).rglob("*"))
    return sum(_size(path) for path in files)


def refuse_more(address: str, coming: int = 0) -> None:
    """Raises ValueError where `coming` bytes more would be too much for whoever asks from there, or for the disk."""
    place = uploads()
    place.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(place).free - coming < RESERVE:
        raise ValueError("The disk of this server is nearly full: try again later.")
    if address and weight(address) + coming > QUOTA:
        raise ValueError(
            f"Your files on this server take {QUOTA / 1e9:g} GB, which is as much as there may be: close pages that "
            "you no longer need, and what they left goes."
        )


def sweep() -> None:
    """Delete uploads that nobody has made use of for AWAY seconds."""
    with _lock:
        late, claimed = time.monotonic() - AWAY, set().union(*_claims.values())
        for path in [path for path, (when, _) in _received.items() if when < late and path not in claimed]:
            del _received[path]
            discard(path)
    broken = time.time() - AWAY
    for path in uploads().glob("tmp*"):  # uploads that broke off
        with suppress(OSError):
            if path.is_file() and path.stat().st_mtime < broken:
                path.unlink()


def room(who: str) -> Path:
    """The folder for files made for one visitor; made if it is not there. Raises ValueError, see `refuse_more`."""
    refuse_more(_places.get(who, ""))
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
            _claims.setdefault(who, {})[path] = time.monotonic()


def made(who: str, paths: Iterable[str | Path]) -> None:
    """Gradio has written pictures for a visitor: they go with the visitor, and the oldest beyond KEEP_MADE before."""
    places = [place for place in (Path(path).resolve() for path in paths) if place.parent.parent == uploads()]
    with _lock:
        own = _made.setdefault(who, {}) if places else {}
        for place in places:
            own.pop(place, None)
            own[place] = _size(place)
            _claims.setdefault(who, {})[place] = time.monotonic()
        while len(own) > len(places) and sum(own.values()) > KEEP_MADE:
            oldest = next(iter(own))
            del own[oldest]
            _claims[who].pop(oldest, None)
            if not any(oldest in claims for claims in _claims.values()):
                discard(oldest)


def clear(who: str) -> None:
    """Delete a visitor's files, but for uploads that somebody else has given, too: one that came again after the
    visitor's last use of it belongs to a question still in the queue, and is left to that visitor or to `sweep`.
    """
    shutil.rmtree(_room(who), ignore_errors=True)
    with _lock:
        _places.pop(who, None)
        _made.pop(who, None)
        mine = _claims.pop(who, {})
        for path in mine.keys() - set().union(*_claims.values()):
            if _received.get(path, (0, ()))[0] <= mine[path]:
                _received.pop(path, None)
                discard(path)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def discard(path: Path) -> None:
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
    forget_session(blocks, who)


def forget_session(blocks: gr.Blocks, who: str) -> None:
    """Let go of what Gradio keeps in memory of a session: 0.7 MB of components, what its States hold, messages."""
    sessions, queue = blocks.state_holder, blocks._queue
    with sessions.lock:
        sessions.session_data.pop(who, None)
        sessions.time_last_used.pop(who, None)
    queue.pending_event_ids_session.pop(who, None)
    if who in queue.pending_messages_per_session:
        del queue.pending_messages_per_session[who]
