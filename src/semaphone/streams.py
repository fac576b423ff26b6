"""Standard input and output as bytes. Nothing here touches them before it is asked to.

A notebook replaces them by streams that hold text only, and a parent process may have closed them.
"""

from __future__ import annotations

import io
import os
import select
import stat
import sys
from typing import IO, Any, cast

from semaphone import stopping
from semaphone.errors import InputError

POLL = 0.2  # seconds between looks for a signal while nothing comes
LAST = 1 << 20  # bytes that are still taken after a signal: what waits in a pipe


def standard_output() -> IO[bytes]:
    """Standard output for bytes. Raises InputError if it is closed or takes none."""
    return _binary(sys.stdout, "output")


def standard_input() -> ByteReader:
    """Standard input for bytes. Raises InputError if it is closed or gives none."""
    return ByteReader(_binary(sys.stdin, "input"))


def _binary(stream: Any, name: str) -> IO[bytes]:
    binary = getattr(stream, "buffer", None)
    if binary is None or getattr(stream, "closed", False):
        raise InputError(f"Standard {name} is closed, or is no stream of bytes here; name a file instead of -.")
    return cast("IO[bytes]", binary)


class ByteReader:
    """Reads a stream piece by piece; if it has no end of its own (a pipe, a terminal), signals end it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._descriptor = _descriptor(stream)
        self._left = LAST
        if self._descriptor is not None and not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
            stopping.live_input()

    def read(self, size: int) -> bytes:
        """Up to `size` bytes as soon as there are some; b"" at the end."""
        if self._descriptor is None:
            read = getattr(self._stream, "read1", self._stream.read)
            return cast("bytes", read(size))
        if not self._wait(self._descriptor):
            return b""
        data = os.read(self._descriptor, size)
        if stopping.ended():
            self._left -= len(data)
        return data

    def _wait(self, descriptor: int) -> bool:
        """Waits until there is something to read, or the end; false if a signal ended the stream."""
        while True:
            stopping.check()
            over = stopping.ended()
            if over and self._left <= 0:
                return False
            try:
                ready, _, _ = select.select([descriptor], [], [], 0 if over else POLL)
            except (OSError, ValueError):  # not everything can be waited for everywhere
                return not over
            if ready:
                return True
            if over:
                return False


def _descriptor(stream: IO[bytes]) -> int | None:
    try:
        descriptor = stream.fileno()
        os.fstat(descriptor)
    except (AttributeError, OSError, ValueError):  # ValueError: closed; OSError: held in memory
        return None
    return descriptor


class Discarded(io.TextIOBase):
    """Takes the place of a standard stream that is closed: text is dropped, and it has no bytes."""

    def write(self, text: str) -> int:
        """Drops the text."""
        return len(text)

    def writable(self) -> bool:
        """Of text."""
        return True


def fill_closed_descriptors() -> None:
    """Opens the null device for each of the descriptors 0 to 2 that is closed.

    The next file to be opened would get the number, and what a library prints would end up in it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
