"""Raw 16-bit PCM on standard input and output, for other programs that record and play.

Neither waits for the program at the other end: a pipe that is silent or stuck neither holds up a call nor its end.
Each has a thread that nobody waits for, and reads and writes past Python's own buffers, whose locks would have to
be had at the end.
"""

from __future__ import annotations

import asyncio
import math
import os
import queue
import sys
import threading
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import numpy as np

from semaphone.audio import Resampler, to_pcm16
from semaphone.containers import not_raw
from semaphone.errors import InputError

if TYPE_CHECKING:
    from semaphone.audio import Samples

SHOWING = 64  # bytes of a pipe from which it is known whether it is a file
PIECE = 4096  # bytes that are read at once
AHEAD = 8  # pieces that wait to be sent: a pipe is read as speech is spoken
CATCH_UP = 1e-3  # by which a pipe that has more is sent faster: its clock may be faster than ours
GRACE = 0.1  # s by which a pipe may be late, until silence takes its place
LONGEST = 2.0  # s of sound that wait to be taken; what comes beyond it is dropped
BEHIND = 2560  # samples by which a resampled pipe may lag, at most: so much more silence at the end
TRIED = 64  # blocks from which it is known how unevenly a resampler gives its samples
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


class _Ready:
    """Blocks of a pipe at another rate: as many samples each time, a little later."""

    def __init__(self, pipe_rate: int, sample_rate: int, size: int) -> None:
        self._resampler = Resampler(pipe_rate, sample_rate)
        self._same, self._size = pipe_rate == sample_rate, size
        wait = 0 if self._same else _unevenness(pipe_rate, sample_rate, size)
        self._held: Samples = np.zeros(wait, np.float32)

    def block(self, samples: Samples) -> Samples:
        """The next block of `size` samples for one of the pipe's."""
        if self._same:
            return samples
        ready = np.concatenate([self._held, self._resampler.push(samples).clip(-1.0, 1.0)])
        block, self._held = ready[: self._size], ready[self._size :]
        return np.pad(block, (0, self._size - len(block)))


def _unevenness(pipe_rate: int, sample_rate: int, size: int) -> int:
    """Samples that have to wait so that a resampler, which gives them in pieces of its own, always has a block."""
    resampler, silence = Resampler(pipe_rate, sample_rate), np.zeros(round(size * pipe_rate / sample_rate), np.float32)
    given = np.cumsum([len(resampler.push(silence)) for _ in range(TRIED)])
    return max(0, int((size * np.arange(1, TRIED + 1) - given).max()))


class PipeSource:
    """A Source; see ends.py. Sends at the pace of speech, however fast the pipe gives it."""

    def __init__(
        self, sample_rate: int, tail: int = 0, handle: int | None = None, pipe_rate: int | None = None
    ) -> None:
        """Rates of the blocks and of the pipe (default: the same) in Hz; `tail`: samples of silence at the end."""
        self._rate, self._pipe_rate = sample_rate, pipe_rate or sample_rate
        if self._pipe_rate != sample_rate:
            tail += BEHIND
        self._tail = math.ceil(tail * self._pipe_rate / sample_rate)
        self._handle = standard_input() if handle is None else handle
        self._room = threading.Semaphore(AHEAD)
        self._pieces: asyncio.Queue[bytes] = asyncio.Queue()
        self._coming: asyncio.Future[bytes] | None = None
        self._closed = False

    def _read(self, loop: asyncio.AbstractEventLoop) -> None:
        """The thread: b"" ends it."""
        data = b"?"
        while data:
            self._room.acquire()
            if self._closed:
                return
            try:
                data = os.read(self._handle, PIECE)
                loop.call_soon_threadsafe(self._pieces.put_nowait, data)
            except OSError:
                data = b""
                loop.call_soon_threadsafe(self._pieces.put_nowait, data)
            except RuntimeError:  # the loop is closed: nobody listens any more
                return

    async def _next(self, until: float | None) -> bytes | None:
        """The next piece, b"" at the end; None if there is none until then (s, the loop's clock)."""
        if self._coming is None:
            self._coming = asyncio.ensure_future(self._pieces.get())
        loop = asyncio.get_running_loop()
        await asyncio.wait([self._coming], timeout=None if until is None else max(until - loop.time(), 0.0))
        if not self._coming.done():
            return None
        piece, self._coming = self._coming.result(), None
        self._room.release()
        return piece

    async def _blocks(self, size: int, duration: float) -> AsyncIterator[tuple[bytes, float]]:
        """Whole blocks of `size` bytes and when they are complete. While the pipe is silent, they are silence."""
        loop = asyncio.get_running_loop()
        held, due, grace, checked, ended = b"", None, GRACE, False, False
        while not ended or held:
            while len(held) < size and not ended:
                piece = await self._next(None if due is None else due + duration + grace)
                if piece is None:
                    break
                ended = not piece
                held += piece if piece else bytes(len(held) % 2 + 2 * self._tail)
                if not checked and len(held) >= SHOWING:
                    checked = True
                    if kind := not_raw(held):
                        raise InputError(f"Standard input is {kind}; it should be raw 16-bit PCM (or be named).")
            if len(held) or not ended:
                # A pipe that has more waits for its time.
                grace = GRACE if len(held) >= size else 0.0
                due = max(0.0 if due is None else due + duration * (1 - CATCH_UP), loop.time())
                yield held[:size].ljust(size, b"\0"), due
            held = held[size:]

    async def blocks(self, size: int) -> AsyncIterator[tuple[Samples, float]]:
        """See Source."""
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._read, args=(loop,), daemon=True, name="standard input").start()
        duration = size / self._rate
        ready = _Ready(self._pipe_rate, self._rate, size)
        async for block, due in self._blocks(2 * round(size * self._pipe_rate / self._rate), duration):
            await asyncio.sleep(max(0.0, due - loop.time()))
            yield ready.block(np.frombuffer(block, "<i2").astype(np.float32) / np.float32(32768)), due - duration

    def close(self) -> None:
        """Lets the thread go; it may still wait for something to read."""
        self._closed = True
        self._room.release()
        if self._coming is not None:
            self._coming.cancel()


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
