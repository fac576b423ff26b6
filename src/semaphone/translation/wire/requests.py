"""Requests of a stream as they come, and the end of waiting for those that do not.

gRPC waits for the next message of a stream for ever. Here a thread waits for it, which nobody waits for, and whoever
serves the stream looks at the clock meanwhile.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from typing import Any

from semaphone.errors import InputError

TICK = 0.2  # s between looks at whether the other side still lives
_END = object()


class Requests:
    """An iterator over the messages of a stream; it ends with the stream, broken or not.

    Raises InputError when the first one takes longer than `opening` s, a later one longer than `silence` s (None:
    as long as it takes), or when the place is needed for somebody else.
    """

    def __init__(self, requests: Iterator[Any], context: Any, opening: float, silence: float | None) -> None:
        self._requests, self._context = requests, context
        self._opening, self._silence = opening, silence
        self._waiting: queue.Queue[Any] = queue.Queue(1)
        self._heard_at = time.monotonic()
        self._begun = self._done = self._displaced = False
        self._error: Exception | None = None
        threading.Thread(target=self._pump, daemon=True, name="requests").start()

    def _pump(self) -> None:
        try:
            for request in self._requests:
                self._pass_on(request)
                if self._done:
                    return
        except Exception as error:  # grpc raises without a type of its own when a stream breaks
            self._error = error
        self._pass_on(_END)

    def _pass_on(self, item: Any) -> None:
        while not self._done:
            try:
                self._waiting.put(item, timeout=TICK)
            except queue.Full:
                continue
            return

    @property
    def quiet_for(self) -> float:
        """s since the last message came."""
        return time.monotonic() - self._heard_at if self._waiting.empty() else 0.0

    def displace(self) -> None:
        """Ends it, because its place is needed."""
        self._displaced = True

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        while True:
            self._check()
            try:
                item = self._waiting.get(timeout=TICK)
            except queue.Empty:
                continue
            self._heard_at, self._begun = time.monotonic(), True
            if item is not _END:
                return item
            if self._error is not None and self._context.is_active():
                raise self._error
            raise StopIteration

    def _check(self) -> None:
        limit = self._silence if self._begun else self._opening
        if self._displaced:
            raise InputError(f"Nothing came for {self.quiet_for:.0f} s, and somebody else needed the place.")
        if limit is not None and self.quiet_for > limit:
            raise InputError(f"Nothing came for {limit:g} s.")

    def close(self) -> None:
        """Nobody reads any more."""
        self._done = True
