"""Microphone and loudspeaker through sounddevice (PortAudio), of the optional part `call`."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import numpy as np

from semaphone.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from semaphone.audio import Samples

FRAMES = 160  # samples that the device gives or takes at once
LONGEST = 2.0  # s of sound that wait to be heard; what comes beyond it is dropped


def _sounddevice() -> Any:
    try:
        import sounddevice
    except ImportError:
        raise MissingExtraError("A microphone or loudspeaker", "call") from None
    except OSError:
        raise InputError(
            "PortAudio is missing (on Debian: apt install libportaudio2); --in and --out can name files instead."
        ) from None
    return sounddevice


class Microphone:
    """A Source; see ends.py."""

    def __init__(self, sample_rate: int, device: str | None = None) -> None:
        sound = _sounddevice()
        self._rate = sample_rate
        self._queue: asyncio.Queue[tuple[Samples, float]] = asyncio.Queue(200)
        self._loop: asyncio.AbstractEventLoop | None = None
        try:
            self._stream = sound.InputStream(sample_rate, FRAMES, device, 1, "float32", callback=self._callback)
        except (sound.PortAudioError, ValueError) as error:
            raise InputError(f"The microphone cannot be opened: {error}.") from error

    def _callback(self, data: Any, frames: int, time: Any, status: Any) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._put, data[:, 0].copy())

    def _put(self, samples: Samples) -> None:
        assert self._loop is not None
        if not self._queue.full():
            self._queue.put_nowait((samples, self._loop.time()))

    async def blocks(self, size: int) -> AsyncIterator[tuple[Samples, float]]:
        """See Source."""
        self._loop = asyncio.get_running_loop()
        self._stream.start()
        held: list[Samples] = []
        count = 0
        while True:
            samples, now = await self._queue.get()
            held.append(samples)
            count += len(samples)
            if count >= size:
                joined = np.concatenate(held)
                held, count = [joined[size:]], count - size
                yield joined[:size], now - (size + count) / self._rate

    def close(self) -> None:
        """Lets go of the device."""
        self._stream.close()


class Loudspeaker:
    """A Sink; see ends.py."""

    def __init__(self, sample_rate: int, device: str | None = None) -> None:
        sound = _sounddevice()
        self._rate = sample_rate
        self._lock = threading.Lock()
        self._waiting: deque[Samples] = deque()
        self._count = 0
        try:
            self._stream = sound.OutputStream(sample_rate, FRAMES, device, 1, "float32", callback=self._callback)
            self._stream.start()
        except (sound.PortAudioError, ValueError) as error:
            raise InputError(f"The loudspeaker cannot be opened: {error}.") from error

    def _callback(self, out: Any, frames: int, time: Any, status: Any) -> None:
        out[:] = 0.0
        done = 0
        with self._lock:
            while self._waiting and done < frames:
                block = self._waiting.popleft()
                part = block[: frames - done]
                out[done : done + len(part), 0] = part
                done += len(part)
                if len(part) < len(block):
                    self._waiting.appendleft(block[len(part) :])
            self._count -= done

    def write(self, samples: Samples, ahead: float) -> None:
        """Appends, unless far too much is waiting; after a pause, so much later that it is heard in `ahead` s."""
        with self._lock:
            if self._count == 0:
                self._append(np.zeros(max(round(ahead * self._rate), 0), np.float32))
            if self._count < LONGEST * self._rate:
                self._append(samples)

    def _append(self, samples: Samples) -> None:
        self._waiting.append(samples)
        self._count += len(samples)

    def silence(self, count: int) -> None:
        """The device was silent of itself."""

    def surplus(self, expected: float) -> int:
        """How far the device's clock has fallen behind, in samples."""
        with self._lock:
            return self._count - round(expected * self._rate)

    def close(self) -> None:
        """Lets go of the device."""
        self._stream.close()
