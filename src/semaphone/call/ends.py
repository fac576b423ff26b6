"""Where a call's speech comes from and where it goes: files, or nothing.

pipes.py has standard input and output, device.py has microphone and loudspeaker.

A source gives blocks as they are spoken; a file is read at the pace at which someone would speak it. A sink takes
samples in the order in which they are to be heard.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

import numpy as np

from semaphone.audio import AudioWriter, chunks, read_blocks

if TYPE_CHECKING:
    from semaphone.audio import Samples


class Source(Protocol):
    """Speech, block by block."""

    def blocks(self, size: int) -> AsyncIterator[tuple[Samples, float]]:
        """Pairs of [size] samples and when the first of them was spoken (s, the loop's clock)."""
        ...

    def close(self) -> None: ...


class Sink(Protocol):
    """A listener."""

    def write(self, samples: Samples, ahead: float) -> None:
        """To be heard in `ahead` s, after what was written before. Called from a worker thread."""
        ...

    def silence(self, count: int) -> None:
        """Nothing came for `count` samples."""
        ...

    def surplus(self, expected: float) -> int:
        """Samples that wait to be heard beyond the `expected` s; 0 if the listener has no clock of its own."""
        ...

    def close(self) -> None: ...


class Nobody:
    """Says nothing and hears nothing."""

    async def blocks(self, size: int) -> AsyncIterator[tuple[Samples, float]]:
        """No block at all."""
        return
        yield

    def write(self, samples: Samples, ahead: float) -> None:
        """Heard by nobody."""

    def silence(self, count: int) -> None:
        """Nobody cares."""

    def surplus(self, expected: float) -> int:
        """None."""
        return 0

    def close(self) -> None:
        """Nothing to close."""


class FileSource:
    """A recording, spoken live."""

    def __init__(self, path: str, sample_rate: int, tail: int = 0, channel: int | None = None) -> None:
        """`channel` counts from 1; None is the mean of all."""
        self._rate = sample_rate
        # Opened here, so that a missing file is known before anyone is called.
        self._read = read_blocks(path, sample_rate, channel=channel)
        self._tail = tail  # samples of silence after its end, for the codec's delay
        self._executor: Executor = ThreadPoolExecutor(1, "source")

    def _cut(self, size: int) -> Iterator[Samples]:
        def with_tail() -> Iterator[Samples]:
            yield from self._read
            yield np.zeros(self._tail, np.float32)

        return (block for block, _ in chunks(with_tail(), size))

    async def blocks(self, size: int) -> AsyncIterator[tuple[Samples, float]]:
        """See Source."""
        loop = asyncio.get_running_loop()
        blocks = self._cut(size)
        began: float | None = None
        count = 0
        while (block := await loop.run_in_executor(self._executor, next, blocks, None)) is not None:
            if began is None:
                began = loop.time()
            spoken = began + count * size / self._rate
            count += 1
            # The block is complete when its last sample has been spoken.
            await asyncio.sleep(max(0.0, spoken + size / self._rate - loop.time()))
            yield block, spoken

    def close(self) -> None:
        """Lets go of the file."""
        self._executor.shutdown(wait=False, cancel_futures=True)


class FileSink:
    """A recording of what is heard. The file appears when it is closed."""

    def __init__(self, path: str, sample_rate: int) -> None:
        self._writer = AudioWriter(path, sample_rate)
        self._writer.__enter__()

    def write(self, samples: Samples, ahead: float) -> None:
        """Append."""
        self._writer.write(samples)

    def silence(self, count: int) -> None:
        """Append zeros, so that the file takes as long as the call."""
        while count > 0:
            self._writer.write(np.zeros(min(count, self._writer.sample_rate), np.float32))
            count -= self._writer.sample_rate

    def surplus(self, expected: float) -> int:
        """A file has no clock."""
        return 0

    def close(self) -> None:
        """Finish the file under its name."""
        self._writer.__exit__(None, None, None)
