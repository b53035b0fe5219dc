"""UMAP's compiled code, which the first map of a machine waits for: made beside the page, by a process of the lowest
priority, and kept on the disk (`tipsv2.analysis.projection.ready_maps`).

    begin()                                  # when the app starts
    prepare(lambda share, desc: ...)         # before a map: waits for that process, then loads what it left
"""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, TimeoutError
from contextlib import suppress
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
USUAL = 10  # seconds after which two thirds of the bar are there: nobody knows how long a compiler takes
PATIENCE = 30  # seconds for the process beside; one of the lowest priority may never come to its end
BEAT = 0.3  # seconds between two steps of the bar
_beside: list[subprocess.Popen] = []


def begin() -> None:
    """Compile beside the page; it costs a few seconds of a core where nobody else wants it. Whatever is wrong with it,
    the first map compiles for itself.
    """
    asked = [sys.executable, "-c", "from tipsv2.analysis.projection import ready_maps; ready_maps()"]
    quiet = dict(stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with suppress(OSError, psutil.Error):
        _beside.append(subprocess.Popen(asked, cwd=ROOT, **quiet))
        psutil.Process(_beside[-1].pid).nice(psutil.IDLE_PRIORITY_CLASS if sys.platform == "win32" else 19)


def prepare(tell: Callable[..., object], most: float = 0.6) -> None:
    """Have maps ready in this process. tell: called some times a second with a share that grows up to `most` and, as
    desc, a sentence.
    """
    from tipsv2.analysis.projection import ready_maps

    def work() -> None:
        for process in _beside:
            with suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE)
        ready_maps()

    start = time.monotonic()
    with ThreadPoolExecutor(1) as beside:
        done: Future = beside.submit(work)
        while True:
            passed = time.monotonic() - start
            tell(most * (1 - math.exp(-passed / USUAL)), desc=f"Compiling UMAP, once on this machine: {passed:.0f} s")
            with suppress(TimeoutError):
                return done.result(BEAT)
