"""Signals that end a call: Ctrl-C, SIGTERM, and SIGHUP when a terminal closes.

The first one hangs up, more change nothing.

with Ending() as ending:
    ...                              # a signal is kept until there is something to end
    ending.calls(session.hang_up)    # within the event loop
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")


class Ending:
    """A context manager: within it, and after a signal until the process ends, no signal interrupts anything.

    So what is being finished is finished. SIGINT counts even where a shell had us ignore it in the background;
    SIGHUP does not if it was ignored (nohup).
    """

    def __init__(self) -> None:
        self.requested = False
        self._act: Callable[[], object] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._before: dict[int, Any] = {}
        self._terminals: list[int] = []  # of standard output and error

    def __enter__(self) -> Self:
        self._terminals = [handle for handle in (1, 2) if _is_terminal(handle)]
        for name in NAMES:
            number = getattr(signal, name, None)
            if number is None or (name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN):
                continue
            with contextlib.suppress(ValueError):  # not the main thread, which alone has signals
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        if not self.requested:
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def calls(self, act: Callable[[], object]) -> None:
        """What the first signal does, in the running loop; at once if it has come already."""
        self._act, self._loop = act, asyncio.get_running_loop()
        if self.requested:
            act()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == getattr(signal, "SIGHUP", None):
            self._leave_terminal()
        first, self.requested = not self.requested, True
        if first and self._act is not None and self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended by itself
                self._loop.call_soon_threadsafe(self._act)

    def _leave_terminal(self) -> None:
        """A terminal that is gone takes no more lines, and to write one would be an error."""
        nowhere = os.open(os.devnull, os.O_RDWR)
        for handle in self._terminals:
            os.dup2(nowhere, handle)
        os.close(nowhere)


def _is_terminal(handle: int) -> bool:
    try:
        return os.isatty(handle)
    except OSError:
        return False
