"""Work done by threads ahead of whoever uses it, so that a network never waits for a disk or a decoder.

for picture in ahead(paths, open_image, threads=4, depth=64):
    ...
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

PATIENCE = 10  # seconds for a job that is being drawn when the work is stopped, say from a network


def ahead(jobs: Iterable, work: Callable[[Any], Any], threads: int, depth: int) -> Generator[Any, None, None]:
    """`work` of every job, in order. The jobs are drawn by one thread, the work done by `threads`; at most `depth`
    results wait. What either raises is raised here, after the results before it. Close the iterator to stop early.
    """
    ready: queue.Queue = queue.Queue(depth)
    stopped = threading.Event()
    pool = ThreadPoolExecutor(threads)

    def offer(item: Future | Exception | None) -> None:
        while not stopped.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                pass

    def draw() -> None:
        try:
            for job in jobs:
                if stopped.is_set():
                    return
                offer(pool.submit(work, job))
            offer(None)
        except Exception as error:
            offer(error)

    reader = threading.Thread(target=draw, daemon=True)
    reader.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item.result()
    finally:
        stopped.set()
        reader.join(PATIENCE)
        pool.shutdown(cancel_futures=True)  # waits: Python ends badly under threads that are inside a library
