"""Ends of calls for tests: a tiny codec, a voice that hums, and an ear that keeps what it hears."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
from tests.codec.tiny import tiny_codec

from semaphone.call.session import CallOptions, CallSession
from semaphone.call.speaker import Voice
from semaphone.controller.base import FixedController
from semaphone.packet.format import PacketFormat
from semaphone.recovery.hold import HoldRecovery

KEY = bytes(range(32))
HERE = "127.0.0.1"


class Hum:
    """Speaks live for some time."""

    def __init__(self, seconds: float, volume: float) -> None:
        self.left, self.volume = seconds, volume

    async def blocks(self, size: int):
        loop = asyncio.get_running_loop()
        began, count = loop.time(), 0
        while self.left > 0:
            spoken = began + count * size / 16000
            await asyncio.sleep(max(spoken + size / 16000 - loop.time(), 0))
            yield (self.volume * np.sin(np.arange(size) * 0.1)).astype(np.float32), spoken
            count += 1
            self.left -= size / 16000

    def close(self) -> None:
        self.left = 0


class Ear:
    def __init__(self) -> None:
        self.heard: list[np.ndarray] = []
        self.closed = False

    def write(self, samples: Any, ahead: float) -> None:
        self.heard.append(samples)

    def silence(self, count: int) -> None:
        self.heard.append(np.zeros(count, np.float32))

    def surplus(self, expected: float) -> int:
        return 0

    def close(self) -> None:
        self.closed = True

    @property
    def seconds(self) -> float:
        return sum(map(len, self.heard)) / 16000


def voice(**options: Any) -> Voice:
    codec = tiny_codec()
    form = PacketFormat.named(options.pop("schedule", "split"), 16, 32, loss_report=True, **options)
    return Voice(codec, FixedController(8, 2), HoldRecovery(), form)


def end(
    seconds: float = 0.0,
    key: bytes | None = KEY,
    notes: list[str] | None = None,
    volume: float = 0.1,
    schedule: str = "split",
    **options: Any,
) -> CallSession:
    """An end that speaks for `seconds` and listens; its ear is `session.listener.sink`."""
    lines = notes if notes is not None else []
    speaks = voice(schedule=schedule)
    return CallSession(speaks, Hum(seconds, volume), Ear(), CallOptions(key=key, **options), lines.append)


def ear_of(session: CallSession) -> Ear:
    assert isinstance(session.listener.sink, Ear)
    return session.listener.sink


def address_of(session: CallSession) -> tuple[str, int]:
    assert session.address is not None
    return session.address[0], session.address[1]


async def running(session: CallSession) -> asyncio.Task:
    """A task in which the end is running, its socket open."""
    task = asyncio.get_running_loop().create_task(session.run())
    while session.address is None:
        await asyncio.sleep(0.01)
        if task.done():
            task.result()
    return task


async def until(condition, seconds: float = 200.0) -> None:
    """Waits for something to become true."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while not condition():
        assert loop.time() < end, "it never happened"
        await asyncio.sleep(0.02)
