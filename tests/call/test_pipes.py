from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time

import numpy as np
import pytest

from semaphone.call import pipes
from semaphone.call.pipes import PipeSink, PipeSource
from semaphone.errors import InputError


@pytest.fixture
def pipe():
    ends = list(os.pipe())
    yield ends
    for end in ends:
        with contextlib.suppress(OSError):
            os.close(end)


async def first_blocks(source: PipeSource, count: int, size: int = 800) -> list[tuple[np.ndarray, float]]:
    found = []
    try:
        async for block in source.blocks(size):
            found.append(block)
            if len(found) == count:
                break
    finally:
        source.close()
    return found


def test_a_pipe_that_gives_everything_at_once_is_sent_at_the_pace_of_speech(pipe) -> None:
    spoken = np.arange(16000, dtype="<i2")

    def fill() -> None:
        os.write(pipe[1], spoken.tobytes() + b"\0")  # and half a sample
        os.close(pipe[1])
        pipe[1] = -1

    threading.Thread(target=fill).start()
    began = time.monotonic()
    blocks = asyncio.run(first_blocks(PipeSource(16000, 100, pipe[0]), 99))
    took = time.monotonic() - began
    assert 0.9 < took < 2.5
    assert [len(samples) for samples, _ in blocks] == [800] * 21  # the last one has the tail
    heard = np.concatenate([samples for samples, _ in blocks])
    np.testing.assert_array_equal(heard[:16000], spoken / np.float32(32768))
    assert not heard[16000:].any()
    times = np.array([spoken for _, spoken in blocks])
    assert np.diff(times) == pytest.approx(0.05, abs=0.02)


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
def test_a_pipe_at_another_rate_is_resampled(pipe, rate) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate // 2) / rate)
    spoken = np.round(32768 * tone).astype("<i2")

    def fill() -> None:
        os.write(pipe[1], spoken.tobytes())
        os.close(pipe[1])
        pipe[1] = -1

    threading.Thread(target=fill).start()
    blocks = asyncio.run(first_blocks(PipeSource(16000, 100, pipe[0], rate), 99, 1280))
    assert {len(samples) for samples, _ in blocks} == {1280}
    heard = np.concatenate([samples for samples, _ in blocks])
    first = int(np.flatnonzero(np.abs(heard) > 0.05)[0])
    assert first < 3000
    middle = heard[first + 1000 : first + 7000]
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.02)
    assert np.abs(np.fft.rfft(middle * np.hanning(6000))).argmax() * 16000 / 6000 == pytest.approx(440, abs=3)
    assert np.count_nonzero(np.abs(heard) > 0.01) == pytest.approx(8000, rel=0.03)  # nothing is cut off


def test_a_pipe_that_is_slower_has_its_own_pace(pipe) -> None:
    def fill() -> None:
        for _ in range(5):
            time.sleep(0.1)
            os.write(pipe[1], bytes(1600))

    threading.Thread(target=fill).start()
    blocks = asyncio.run(first_blocks(PipeSource(16000, 0, pipe[0]), 5))
    assert np.diff([spoken for _, spoken in blocks]) == pytest.approx(0.1, abs=0.05)


def test_while_a_pipe_is_silent_so_is_the_speaker(pipe) -> None:
    """What comes after a pause is as old as what came before it."""

    def fill() -> None:
        os.write(pipe[1], np.full(1600, 1000, "<i2").tobytes())
        time.sleep(0.7)
        os.write(pipe[1], np.full(1600, 2000, "<i2").tobytes())
        os.close(pipe[1])
        pipe[1] = -1

    threading.Thread(target=fill).start()
    blocks = asyncio.run(first_blocks(PipeSource(16000, 0, pipe[0]), 99))
    loud = [round(float(samples[0]) * 32768) for samples, _ in blocks]
    assert loud == [1000] * 2 + [0] * (len(loud) - 4) + [2000] * 2
    assert 8 <= len(loud) - 4 <= 14
    times = np.array([spoken for _, spoken in blocks])
    assert np.diff(times).max() < 0.05 + pipes.GRACE + 0.05
    assert np.median(np.diff(times)) == pytest.approx(0.05, abs=0.01)


def test_a_silent_pipe_holds_up_nothing(pipe) -> None:
    async def scenario() -> None:
        source = PipeSource(16000, 0, pipe[0])
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(first_blocks(source, 1), 0.2)
        source.close()

    began = time.monotonic()
    asyncio.run(scenario())
    assert time.monotonic() - began < 2
    assert all(thread.daemon for thread in threading.enumerate() if thread.name == "standard input")


@pytest.mark.parametrize(
    "start", [b"RIFF....WAVE", b"OggS........", b"\0\0\0\x20ftypM4A ", b"\x1aE\xdf\xa3....", b"ID3\4...."]
)
def test_files_on_a_pipe_are_refused(pipe, start) -> None:
    os.write(pipe[1], start + bytes(4000))
    with pytest.raises(InputError, match=r"Standard input is .*; it should be raw"):
        asyncio.run(first_blocks(PipeSource(16000, 0, pipe[0]), 1))


def test_what_is_heard_comes_out_in_order(pipe) -> None:
    sink = PipeSink(16000, pipe[1])
    sink.write(np.full(100, 0.5, np.float32), 0.1)
    sink.silence(20_000)
    sink.write(np.full(50, -0.5, np.float32), 0.1)
    sink.close()
    got = b""
    while len(got) < 2 * 20_150:
        got += os.read(pipe[0], 65536)
    values = np.frombuffer(got, "<i2")
    np.testing.assert_array_equal(values, [16384] * 100 + [0] * 20_000 + [-16384] * 50)


def test_a_stuck_pipe_drops_and_ends(pipe, monkeypatch) -> None:
    monkeypatch.setattr(pipes, "LAST", 0.1)
    sink = PipeSink(16000, pipe[1])
    began = time.monotonic()
    for _ in range(100):
        sink.write(np.zeros(16000, np.float32), 0.1)
    sink.close()
    assert time.monotonic() - began < 2
    assert sink.dropped > 90 * 16000


def test_a_pipe_that_is_closed_is_an_error(pipe) -> None:
    sink = PipeSink(16000, pipe[1])
    os.close(pipe[0])
    pipe[0] = -1
    sink.write(np.zeros(160, np.float32), 0.1)
    time.sleep(0.1)
    with pytest.raises(BrokenPipeError):
        sink.write(np.zeros(160, np.float32), 0.1)
    sink.close()
