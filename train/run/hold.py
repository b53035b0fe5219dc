"""One process at a time in a run's folder: two that resume the same run would write into each other's files.

with held(Path("runs/mine")):
    ...  # every other process that wants the folder gets a sentence

The operating system's lock on a file, which ends with its process however that ends; the file itself stays.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

LOCK = ".lock"
PATIENCE = 6.0  # seconds: a killed run's data workers end within five, and hold its lock in older versions of filelock


@contextmanager
def held(run: Path) -> Iterator[None]:
    """Make the folder `run` and hold it while the context lasts. Raises ValueError where another process does."""
    run.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run / LOCK)
    try:
        lock.acquire(timeout=PATIENCE)
    except Timeout:
        raise ValueError(
            f"another process is writing the run in {run}: wait until it ends, or stop it (Ctrl-C saves) and go on "
            f"with --resume; or choose another --out. Where no process is, delete {run / LOCK}."
        ) from None
    try:
        yield
    finally:
        lock.release()
