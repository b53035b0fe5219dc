"""This server's folder for files: uploads, what is made for visitors, and what is unpacked on the way. It goes with the
server; what a server left that was killed is swept by the next.

    own_folder()    # before gradio is imported
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

PREFIX = "tipsv2-explorer-"
ALIVE = "alive"  # locked as long as the server lives
NEW = 60  # seconds in which a folder may not have its lock yet
OLD = 6 * 3600  # seconds after which files in a folder that was given are nobody's any more
OURS = re.compile("[0-9a-f]{64}")  # Gradio's folder of an upload


def own_folder() -> None:
    """Gradio's files of this process apart from those of other apps, and Python's temporary files beside them, in a
    folder that goes with it; GRADIO_TEMP_DIR names another one for Gradio's. Before gradio is imported.
    """
    given = os.environ.get("GRADIO_TEMP_DIR")
    sweep(Path(tempfile.gettempdir()))
    if given:
        sweep_old(Path(given))
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    alive = FileLock(folder / ALIVE)
    alive.acquire()
    for name in ("files", "scratch"):
        (folder / name).mkdir()
    tempfile.tempdir = str(folder / "scratch")
    if not given:
        os.environ["GRADIO_TEMP_DIR"] = str(folder / "files")

    def leave() -> None:
        alive.release()
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(leave)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that `leave` runs before the end


def sweep(place: Path) -> None:
    """Delete the folders below `place` of this user's servers that live no more."""
    for folder in place.glob(f"{PREFIX}*"):
        with suppress(OSError):
            if folder.is_symlink() or not folder.is_dir() or folder.stat().st_mtime > time.time() - NEW:
                continue
            if hasattr(os, "getuid") and folder.stat().st_uid != os.getuid():
                continue
            try:
                with FileLock(folder / ALIVE, timeout=0):
                    pass
            except Timeout:
                continue
            shutil.rmtree(folder, ignore_errors=True)


def sweep_old(place: Path) -> None:
    """Delete uploads and visitors' files of long ago from a folder that was given, and leave all else where it is."""
    visitors = place / "visitors"
    for folder in [*place.glob("*"), *visitors.glob("*")]:
        with suppress(OSError):
            ours = folder.parent == visitors or OURS.fullmatch(folder.name)
            if ours and not folder.is_symlink() and folder.stat().st_mtime < time.time() - OLD:
                shutil.rmtree(folder, ignore_errors=True)
