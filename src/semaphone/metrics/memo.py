"""Remembers what was computed of a recording, so that an original is transcribed once for all its degradations."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable

    from semaphone.metrics.pair import Speech

T = TypeVar("T")


class AudioMemo:
    """Results by (kind, samples) in this process, the longest unused forgotten first.

    The samples themselves are not kept, only their digest.
    """

    def __init__(self, size: int = 512) -> None:
        self._size = size
        self._results: OrderedDict[tuple[str, bytes], Any] = OrderedDict()
        self._lock = Lock()

    def get(self, kind: str, speech: Speech, compute: Callable[[], T]) -> T:
        """The result of `compute()` for these samples, computed at the first call only."""
        key = (kind, hashlib.sha256(speech.tobytes()).digest())
        with self._lock:
            if key in self._results:
                self._results.move_to_end(key)
                return cast("T", self._results[key])
        result = compute()
        with self._lock:
            self._results[key] = result
            while len(self._results) > self._size:
                self._results.popitem(last=False)
        return result

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._results.clear()


# One for all metrics of the process.
MEMO = AudioMemo()
