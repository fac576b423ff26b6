"""What SIGINT (Ctrl-C), SIGTERM and SIGHUP do to a command.

A signal raises `Stopped`, so that blocks end and what they had half written is removed. Where input has no end of
its own (`live_input`), a signal is that end: `ended` becomes true, readers give what has come so far, and the command
finishes its file.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # the last one is unknown on Windows
INSIST = 1.0  # seconds after which another Ctrl-C is a wish of its own, and not the same one arriving twice


class Stopped(KeyboardInterrupt):
    """A signal came. It is a KeyboardInterrupt, so that code that lets those pass lets all three pass."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by signal {number}")
        self.number = number


class _Handler:
    """Decides what a signal means; one for each run of the command line."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.live = False
        self.last: float | None = None  # when a signal was taken

    @property
    def ended(self) -> bool:
        return self.live and self.last is not None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self.process:  # a forked worker has nothing to finish
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        now = time.monotonic()
        first = self.last is None
        again = self.last is not None and now - self.last > INSIST and number == signal.SIGINT
        if first:
            self.last = now
        if again or (first and not self.live):
            self.last = now
            raise Stopped(number)


_running: list[_Handler] = []


def _numbers() -> list[int]:
    return [int(getattr(signal, name)) for name in NAMES if hasattr(signal, name)]


def _usual(number: int, found: Any) -> bool:
    """Nobody else has taken the signal, and nobody asked for it to be ignored."""
    return found is (signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


@contextmanager
def handled() -> Iterator[None]:
    """Within it, signals end a command as the top of this file says. Only the main thread can do so.

    Handlers of an embedding program are left alone, and so are signals that are ignored (nohup).
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = _Handler()
    before = {number: signal.getsignal(number) for number in _numbers()}
    for number, found in before.items():
        if _usual(number, found):
            signal.signal(number, handler)
    _running.append(handler)
    try:
        yield
    finally:
        _running.remove(handler)
        for number, found in before.items():
            if signal.getsignal(number) is handler:
                signal.signal(number, found)


def live_input() -> None:
    """From now on a signal ends the input instead of the command, within `handled`.

    A shell without job control has programs in the background ignore Ctrl-C; nothing else would end such input there.
    """
    if not _running:
        return
    _running[-1].live = True
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, _running[-1])


def ended() -> bool:
    """Whether a signal has ended live input."""
    return bool(_running) and _running[-1].ended
