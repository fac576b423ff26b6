"""How small models compute: on one core, and without denormal numbers.

Models as small as ours run faster on one core than on several that wait for each other at every layer, and silence
makes denormal numbers, which make a core many times slower: they become zeros. Both are settings of the whole process
or thread, so a model has them only while it computes, and what an embedding program has set is there again afterwards.
The command line sets them once and for all (`commands/_link.py`).
"""

from __future__ import annotations

import threading
from types import TracebackType

import torch

_lock = threading.Lock()
_inside = 0  # how many computations go on, in all threads
_threads = 1  # what an embedding program had set before the first of them
_here = threading.local()  # `depth`: the same, of this thread
_smallest = 5e-324  # denormal


def _flushing() -> bool:
    """Whether this thread takes denormal numbers for zero; torch can set that but not tell."""
    return _smallest * 1.0 == 0.0


class OneCore:
    """Within it, one thread and no denormal numbers; a context manager for one `with`.

    `streams`: how many streams are computed at once; where there are more, threads stay as they are, as they pay then.
    """

    def __init__(self, streams: int = 1) -> None:
        self._alone = streams == 1
        self._flushed = False

    def __enter__(self) -> None:
        global _inside, _threads
        self._flushed = _flushing()
        if not self._flushed:
            torch.set_flush_denormal(True)
        if not self._alone:
            return
        with _lock:
            if not _inside:
                _threads = torch.get_num_threads()
            _inside += 1
        _here.depth = getattr(_here, "depth", 0) + 1
        torch.set_num_threads(1)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        global _inside
        if not self._flushed:
            torch.set_flush_denormal(False)
        if not self._alone:
            return
        with _lock:
            _inside -= 1
            before = _threads
        _here.depth -= 1
        if not _here.depth:
            torch.set_num_threads(before)
