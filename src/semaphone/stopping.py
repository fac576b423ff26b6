"""What SIGINT (Ctrl-C), SIGTERM and SIGHUP do to a command.

A signal makes `check` raise `Stopped`, so that blocks end and what they had half written is removed. Whatever goes on
for long calls `check` now and then; where nobody does, the exception comes by itself a little later. It could come
at once, but in the midst of native code it can be lost there, or end the process without any cleaning up.

Where input has no end of its own (`live_input`), a signal is that end: `ended` becomes true, readers give what has
come so far, and the command finishes its file.
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
SOON = 0.3  # seconds that are given to `check`
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
        self.wanted: int | None = None  # the signal that is to stop the command

    @property
    def ended(self) -> bool:
        """Whether live input is over."""
        return self.live and self.last is not None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """A signal came."""
        if os.getpid() != self.process:  # a forked worker has nothing to finish
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        now = time.monotonic()
        if self.last is None:
            self.last = now
            if not self.live:
                self.wanted = number
                if not self._set_alarm():
                    raise Stopped(number)
        elif now - self.last > INSIST and number == signal.SIGINT:
            self.last, self.wanted = now, number
            raise Stopped(number)

    def _set_alarm(self) -> bool:
        """False where there is none, or somebody else has one."""
        if not hasattr(signal, "setitimer") or signal.getsignal(signal.SIGALRM) is not signal.SIG_DFL:
            return False
        signal.signal(signal.SIGALRM, self._alarm)
        signal.setitimer(signal.ITIMER_REAL, SOON)
        return True

    def _alarm(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() == self.process:
            self.check()

    def check(self) -> None:
        """Raises Stopped if a signal asks for it."""
        self.let_go()
        if self.wanted is not None:
            raise Stopped(self.wanted)

    def let_go(self) -> None:
        """Takes the alarm back."""
        if hasattr(signal, "setitimer") and signal.getsignal(signal.SIGALRM) == self._alarm:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)


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
        handler.let_go()
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


def wanted() -> int | None:
    """The signal that is to stop the command, if one came."""
    return _running[-1].wanted if _running else None


def check() -> None:
    """Raises Stopped if a signal came that is to stop the command: for loops, between two of their rounds."""
    if wanted() is not None and threading.current_thread() is threading.main_thread():
        _running[-1].check()
