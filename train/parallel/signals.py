"""Every signal of training: what asks a run to save and stop, and what a run and its data workers do about others.

Ctrl-C, SIGTERM and SIGHUP go to all processes of a run. The training process answers them between steps, its data
workers leave that to it; the end of a worker interrupts nothing but the waiting for its batch.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Any

# What asks a run to save and stop: Ctrl-C, a scheduler or a second command, a terminal that closes
STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Stopped(Exception):
    """Ctrl-C, SIGTERM or SIGHUP: the run saved its state and can be resumed. `number` is the signal's; 0 where another
    process got it, which counts as SIGTERM: what a launcher sends the others.
    """

    def __init__(self, step: int, number: int):
        super().__init__(f"stopped after step {step}")
        self.number = number or signal.SIGTERM


class StopFlag:
    """Turns Ctrl-C, SIGTERM and SIGHUP into a flag the loop reads between steps; Ctrl-C after that interrupts at once.
    Under nohup, SIGHUP is ignored as before.
    """

    def __init__(self):
        self.asked = 0  # the signal's number

    def __enter__(self) -> StopFlag:
        self._old = {}
        for number in STOPPING:
            if number not in (signal.SIGINT, signal.SIGTERM) and signal.getsignal(number) == signal.SIG_IGN:
                continue
            try:
                self._old[number] = signal.signal(number, self._ask)
            except ValueError:  # not the main thread: the caller handles signals
                break
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _ask(self, number, frame) -> None:
        if self.asked and number == signal.SIGINT:  # a scheduler may send SIGTERM twice
            raise KeyboardInterrupt
        self.asked = self.asked or number


class SignalWatch:
    """Whether a signal to stop came, even if a run in its last step took it and had nothing left to stop."""

    def __enter__(self) -> SignalWatch:
        self._ends = socket.socketpair()
        for end in self._ends:
            end.setblocking(False)
        self._before = signal.set_wakeup_fd(self._ends[1].fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(self, *_) -> None:
        signal.set_wakeup_fd(self._before)
        for end in self._ends:
            end.close()

    def number(self) -> int:
        """Of the signal that came, or 0."""
        try:
            numbers = self._ends[0].recv(1 << 16)  # a byte a signal
        except BlockingIOError:
            return 0
        return next((number for number in STOPPING if number in numbers), 0)


def watch_children(lost: Callable[[], bool]) -> Any:
    """When a child process ends and the bound method `lost` says so, raise RuntimeError wherever the program is.

    In the place of torch's own handler, which raises in the middle of writing a checkpoint too. Returns that, for
    `unwatch_children`; None where there are no such signals (Windows). Only for the main thread.
    """
    method = weakref.WeakMethod(lost)  # a handler must not keep what it asks alive

    def child_ended(_: int, frame: FrameType | None) -> None:
        if (asked := method()) is None or not asked():
            return
        while frame is not None:
            if frame.f_code.co_name == "__del__":  # would be printed there and lost; torch looks every 5 s itself
                return
            frame = frame.f_back
        raise RuntimeError("a child process was killed")

    return signal.signal(signal.SIGCHLD, child_ended) if hasattr(signal, "SIGCHLD") else None


def unwatch_children(before: Any) -> None:
    """Undo `watch_children`, given what it returned."""
    if before is not None:
        signal.signal(signal.SIGCHLD, before)


def leave_signals_to_the_run() -> None:
    """In a data worker: what a terminal or a scheduler sends to every process is the training process's to answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGHUP"):  # not on Windows
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_when_the_run_says, daemon=True).start()


def name_of(code: int) -> str:
    """The signal that ended a process with this exit code, below 0."""
    return signal.Signals(-code).name


def _end_when_the_run_says() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
