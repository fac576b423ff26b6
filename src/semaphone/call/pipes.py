"""Raw 16-bit PCM on standard input and output, for other programs that record and play.

Neither waits for the program at the other end: a pipe that is silent or stuck neither holds up a call nor its end.
Each has a thread that nobody waits for, and reads and writes past Python's own buffers, whose locks would have to
be had at the end.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sys
import threading
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import numpy as np

from semaphone.audio import to_pcm16
from semaphone.errors import InputError

if TYPE_CHECKING:
    from semaphone.audio import Samples

# What files of sound and containers begin with; none of it is likely in raw PCM.
FILES: tuple[bytes, ...] = (b"RIFF", b"RIFX", b"RF64", b"riff", b"fLaC", b"OggS", b"FORM", b".snd", b"NIST", b"caff")
FILES += (b"ID3", b"SPHN", b"\x1aE\xdf\xa3")  # the last one is WebM and Matroska
PIECE = 4096  # bytes that are read at once
AHEAD = 8  # pieces that wait to be sent: a pipe is read as speech is spoken
CATCH_UP = 1e-3  # by which a pipe that has more is sent faster: its clock may be faster than ours
LONGEST = 2.0  # s of sound that wait to be taken; what comes beyond it is dropped
PATIENCE = 0.2  # s to wait for room
LAST = 1.0  # s, at the end, for what still waits


def standard_input() -> int:
    """The number of standard input. Raises InputError if it is closed."""
    return _number(sys.__stdin__, "input", 0)


def standard_output() -> int:
    """The number of standard output. Raises InputError if it is closed."""
    return _number(sys.__stdout__, "output", 1)


def _number(stream: object, what: str, number: int) -> int:
    try:
        os.fstat(number)
    except OSError:
        stream = None
    if stream is None:
        raise InputError(f"Standard {what} is closed.")
    return number


def is_file_of_sound(data: bytes) -> bool:
    """Does a stream begin like a file, and not like raw samples?"""
    return data.startswith(FILES) or data[4:8] == b"ftyp"


class PipeSource:
    """A Source; see ends.py. Sends at the pace of speech, however fast the pipe gives it."""

    def __init__(self, sample_rate: int, tail: int = 0, handle: int | None = None) -> None:
        self._rate, self._tail = sample_rate, tail
        self._handle = standard_input() if handle is None else handle
        self._room = threading.Semaphore(AHEAD)
        self._pieces: asyncio.Queue[bytes] = asyncio.Queue()
        self._closed = False

    def _read(self, loop: asyncio.AbstractEventLoop) -> None:
        """The thread: b"" ends it."""
        data = b"?"
        while data and not self._closed:
            self._room.acquire()
            try:
                data = os.read(self._handle, PIECE)
                loop.call_soon_threadsafe(self._pieces.put_nowait, data)
            except OSError:
                data = b""
                loop.call_soon_threadsafe(self._pieces.put_nowait, data)
            except RuntimeError:  # the loop is closed: nobody listens any more
                return

    async def _blocks(self, size: int) -> AsyncIterator[bytes]:
        """Whole blocks of `size` bytes; silence fills up the last one."""
        held, first = b"", True
        while piece := await self._pieces.get():
            self._room.release()
            held += piece
            if first and len(held) >= 8:
                first = False
                if is_file_of_sound(held):
                    raise InputError("Standard input is an audio file; it should be raw 16-bit PCM (or give its name).")
            while len(held) >= size:
                yield held[:size]
                held = held[size:]
        held = held[: len(held) // 2 * 2] + bytes(2 * self._tail)
        for start in range(0, len(held), size):
            yield held[start : start + size].ljust(size, b"\0")

    async def blocks(self, size: int) -> AsyncIterator[tuple[Samples, float]]:
        """See Source."""
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._read, args=(loop,), daemon=True, name="standard input").start()
        duration, due = size / self._rate, 0.0  # when the next block is complete
        async for block in self._blocks(2 * size):
            # A pipe that is behind goes on when it has something; one that is ahead waits for its time.
            due = max(due + duration * (1 - CATCH_UP), loop.time())
            await asyncio.sleep(max(0.0, due - loop.time()))
            yield np.frombuffer(block, "<i2").astype(np.float32) / np.float32(32768), due - duration

    def close(self) -> None:
        """Lets the thread go; it may still wait for something to read."""
        self._closed = True
        self._room.release()


class PipeSink:
    """A Sink; see ends.py. What nobody takes for too long is dropped."""

    def __init__(self, sample_rate: int, handle: int | None = None) -> None:
        self._rate = sample_rate
        self._handle = standard_output() if handle is None else handle
        self._pieces: queue.Queue[bytes] = queue.Queue()
        self._lock = threading.Condition()
        self._waiting = 0  # samples
        self._stuck = False
        self._error: OSError | None = None
        self.dropped = 0  # samples
        self._thread = threading.Thread(target=self._run, daemon=True, name="standard output")
        self._thread.start()

    def _run(self) -> None:
        """The thread: b"" ends it."""
        while data := self._pieces.get():
            count = len(data) // 2
            try:
                while data and self._error is None:
                    data = data[os.write(self._handle, data) :]
            except OSError as error:
                self._error = error
            with self._lock:
                self._waiting -= count
                self._lock.notify_all()

    def _has_room(self) -> bool:
        return self._waiting < LONGEST * self._rate or self._error is not None

    def write(self, samples: Samples, ahead: float) -> None:
        """Append, or drop. Raises the OSError that ended the pipe."""
        with self._lock:
            if not self._has_room() and not self._stuck:
                self._lock.wait_for(self._has_room, PATIENCE)
            self._stuck = not self._has_room()
            if self._error is not None:
                raise self._error
            if self._stuck:
                self.dropped += len(samples)
                return
            self._waiting += len(samples)
        if len(samples):
            self._pieces.put(to_pcm16(samples).astype("<i2").tobytes())

    def silence(self, count: int) -> None:
        """Append zeros, so that what is written takes as long as the call."""
        while count > 0:
            self.write(np.zeros(min(count, self._rate), np.float32), 0.0)
            count -= self._rate

    def surplus(self, expected: float) -> int:
        """A pipe has no clock."""
        return 0

    def close(self) -> None:
        """Gives what still waits a moment to be taken."""
        self._pieces.put(b"")
        self._thread.join(LAST)
