"""What worker processes need that the library leaves out."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import threading


def end_with_parent() -> None:
    """Makes this process end when its parent does: to be the initialiser of a pool, or part of one.

    A parent that is killed tells nobody, and its workers would wait for work, and hold memory, for good.
    """
    threading.Thread(target=_wait, daemon=True).start()


def _wait() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)
