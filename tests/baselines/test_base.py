"""The frame around every baseline: time, loss, cost, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from semaphone.baselines.base import (
    Baseline,
    BaselineInfo,
    Frames,
    Packet,
    Skip,
    Speech,
    State,
    fitted,
    nearest_rate,
    transfer,
)
from semaphone.baselines.registry import NAMES, make_baseline
from semaphone.channel.erasure import parse_channel
from semaphone.errors import InputError


class Raw(Baseline):
    """Samples as they are, 20 ms a packet."""

    @property
    def info(self) -> BaselineInfo:
        return BaselineInfo("raw", "raw", 512000, 0.02, 0.02)

    def encode(self, speech: Speech, state: State = None, last: bool = False) -> tuple[list[Packet], State]:
        frames, number = state or (Frames(320), 0)
        packets = []
        for frame in frames.push(speech, last):
            packets.append(Packet(number, (number + 1) * 0.02, frame.tobytes(), 8 * 1280))
            number += 1
        return packets, (frames, number)

    def decode(self, packets: Sequence[Packet | None], state: State = None, last: bool = False) -> tuple[Speech, State]:
        frames = [np.zeros(320, np.float32) if p is None else np.frombuffer(p.payload, np.float32) for p in packets]
        return np.concatenate([np.zeros(0, np.float32), *frames]), state


def test_without_loss_everything_arrives(speech: np.ndarray) -> None:
    sent = transfer(Raw(), speech[:-100])
    assert np.array_equal(sent.speech, speech[:-100])
    assert sent.packets_lost == 0
    assert sent.payload_bps == sent.codec_bps == pytest.approx(512000, rel=0.01)
    assert sent.gross_bps == pytest.approx(512000 + 50 * 320, rel=0.01)


def test_the_channel_is_asked_at_the_send_times(speech: np.ndarray) -> None:
    class Odd:
        def __init__(self) -> None:
            self.asked: list[float] = []

        def lost(self, send_time: float) -> bool:
            self.asked.append(send_time)
            return len(self.asked) % 2 == 0

    sampler = Odd()
    sent = transfer(Raw(), speech, sampler)
    assert sampler.asked == pytest.approx([0.02 * (i + 1) for i in range(75)])
    assert sent.packets_lost == 37
    assert not sent.speech.reshape(-1, 320)[1::2].any()
    assert np.array_equal(sent.speech.reshape(-1, 320)[::2], speech.reshape(-1, 320)[::2])


def test_the_same_seed_is_the_same_weather(speech: np.ndarray) -> None:
    channel = parse_channel("gilbert-elliott:loss=0.3,burst=100ms")
    first, second = (transfer(Raw(), speech, channel.sampler(np.random.default_rng(3))) for _ in range(2))
    assert first.lost == second.lost
    assert first.packets_lost > 0


@given(st.lists(st.integers(0, 100), max_size=8), st.integers(0, 20))
def test_frames_do_not_depend_on_how_speech_is_cut(sizes: list[int], tail: int) -> None:
    speech = np.arange(1, sum(sizes) + 1, dtype=np.float32)
    pieces = Frames(32)
    out = [pieces.push(part) for part in np.split(speech, np.cumsum(sizes))]
    out.append(pieces.push(np.zeros(0, np.float32), last=True, tail=tail))
    whole = Frames(32).push(speech, last=True, tail=tail)
    assert np.array_equal(np.concatenate(out), whole)
    assert whole.size >= len(speech) + tail


def test_skip_drops_only_the_beginning() -> None:
    skip = Skip(5)
    parts = [skip.push(np.arange(n, n + 3, dtype=np.float32)) for n in (0, 3, 6)]
    assert np.concatenate(parts).tolist() == [5, 6, 7, 8]


def test_fitted_cuts_and_pads() -> None:
    assert fitted(np.ones(3, np.float32), 2).tolist() == [1, 1]
    assert fitted(np.ones(3, np.float32), 5).tolist() == [1, 1, 1, 0, 0]


@example(0.5, 20000)  # the highest setting
@example(1.5, 1500)  # the lowest
@given(st.floats(0.5, 1.5), st.integers(1500, 20000))
def test_the_nearest_setting_is_found(efficiency: float, wanted: int) -> None:
    setting = nearest_rate(lambda rate: rate * efficiency, wanted, 1000, 40000)
    assert setting * efficiency == pytest.approx(wanted, rel=0.011)


@pytest.mark.parametrize("speech", [np.zeros(0), np.zeros((2, 5)), np.array([np.nan])])
def test_what_is_no_speech_is_refused(speech: np.ndarray) -> None:
    with pytest.raises(InputError):
        transfer(Raw(), speech)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "soundstream"])
def test_baselines_by_name(name: str) -> None:
    assert make_baseline(name).info.name == name


@pytest.mark.parametrize(
    ("specification", "sentence"),
    [
        ("mp3", "no baseline 'mp3'"),
        ("opus:six", "opus:6000"),
        ("textlink:100", "opus:6000"),
        ("opus:1", "5000 to 510000"),
        ("codec2:1000", "no mode"),
        ("aac:100", "4000"),
        ("soundstream", "folder"),
    ],
)
def test_wrong_names_are_one_sentence(specification: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        make_baseline(specification)
