"""Keeps libraries written in C quiet: what they print passes Python's own streams by."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def quiet_native_log() -> Iterator[None]:
    """Within it, what native code writes to standard error goes nowhere: LiteRT greets everybody who loads a model,
    and the decoder of MP3 has notes on most files.
    """
    descriptor = 2  # native code knows no other one, whatever has taken the place of Python's stream
    try:
        saved = os.dup(descriptor)
    except OSError:
        yield
        return
    with suppress(AttributeError, OSError, ValueError):  # a captured or closed stream
        sys.stderr.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, descriptor)
        yield
    finally:
        os.dup2(saved, descriptor)
        os.close(saved)
        os.close(nowhere)
