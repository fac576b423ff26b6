"""What every waveform codec must do: keep the time, keep its rate, hide losses, stream."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semaphone.baselines.aac import Aac
from semaphone.baselines.base import Baseline, Packet, transfer
from semaphone.baselines.codec2 import Codec2
from semaphone.baselines.opus import Opus, has_dred, has_lbrr
from semaphone.baselines.soundstream import FEATURES, RepeatAndFade, SoundStream, pack, unpack
from semaphone.channel.erasure import parse_channel
from semaphone.errors import InputError
from semaphone.metrics.pair import estimate_delay

CODECS = {
    "opus 6000": ("opuslib_next", Opus(6000)),
    "opus 12000, 60 ms, told of loss": ("opuslib_next", Opus(12000, 60, expected_loss=0.3)),
    "opus, constant rate": ("opuslib_next", Opus(8000, vbr=False)),
    "aac 8000": ("av", Aac(8000)),
    "aac 12000 at 16 kHz": ("av", Aac(12000, 16000)),
    "codec2 3200": ("pycodec2", Codec2(3200)),
    "codec2 1300": ("pycodec2", Codec2(1300, packet_ms=80)),
    "codec2 700": ("pycodec2", Codec2(700)),
    "soundstream 3200": ("ai_edge_litert", 3200),
    "soundstream 1600, bundled": ("ai_edge_litert", 1600),
}


@pytest.fixture(params=CODECS)
def codec(request: pytest.FixtureRequest) -> Baseline:
    module, codec = CODECS[request.param]
    pytest.importorskip(module)
    if isinstance(codec, int):
        folder: Path = request.getfixturevalue("shared_data") / "lyra-v2"
        return SoundStream(folder, codec, frames_per_packet=4 if codec == 1600 else 1)
    assert isinstance(codec, Baseline)
    return codec


def envelope(speech: np.ndarray) -> np.ndarray:
    return np.sqrt(np.mean(speech[: len(speech) // 800 * 800].reshape(-1, 800) ** 2, axis=1))


def test_what_arrives_runs_in_step(codec: Baseline, speech: np.ndarray) -> None:
    sent = transfer(codec, speech)
    assert len(sent.speech) == len(speech)
    assert sent.speech.dtype == np.float32
    assert np.corrcoef(envelope(speech), envelope(sent.speech))[0, 1] > 0.9
    assert abs(estimate_delay(speech, sent.speech, 1600)) < 0.015 * 16000


def test_it_costs_what_it_says(codec: Baseline, speech: np.ndarray) -> None:
    sent = transfer(codec, speech)
    coded = sent.packets_sent * codec.info.packet_s
    assert sent.codec_bps * sent.seconds / coded == pytest.approx(codec.info.bit_rate, rel=0.1)
    assert sent.codec_bps <= sent.payload_bps < sent.gross_bps
    packets, _ = codec.encode(speech, None, last=True)
    assert [p.send_time for p in packets] == pytest.approx([(i + 1) * codec.info.packet_s for i in range(len(packets))])
    assert all(0 <= 8 * len(p.payload) - p.bits < 8 * 8 for p in packets)


def test_lost_packets_are_concealed_in_place(codec: Baseline, speech: np.ndarray) -> None:
    channel = parse_channel("uniform:0.2")
    sent = transfer(codec, speech, channel.sampler(np.random.default_rng(5)))
    assert sent.packets_lost == sum(sent.lost) > 0
    assert np.isfinite(sent.speech).all()
    assert np.corrcoef(envelope(speech), envelope(sent.speech))[0, 1] > 0.5
    assert abs(estimate_delay(speech, sent.speech, 1600)) < 0.02 * 16000


def test_losing_everything_is_silence(codec: Baseline, speech: np.ndarray) -> None:
    sent = transfer(codec, speech, parse_channel("uniform:1").sampler(np.random.default_rng(0)))
    assert sent.packets_lost == sent.packets_sent
    assert len(sent.speech) == len(speech)
    assert np.abs(sent.speech).max() < 0.01


def test_a_long_burst_fades_out(codec: Baseline, speech: np.ndarray) -> None:
    loud = np.tile(speech[2000:4000], 24)
    packets, _ = codec.encode(loud, None, last=True)
    arrived: list[Packet | None] = [p if p.send_time < 1.0 else None for p in packets]
    heard, _ = codec.decode(arrived, None, last=True)
    assert np.abs(heard[40000:]).max() < 0.2 * np.abs(heard[4000:12000]).max()


def test_in_pieces_is_the_same_as_at_once(codec: Baseline, speech: np.ndarray) -> None:
    whole, _ = codec.encode(speech, None, last=True)
    state, packets = None, []
    for start in range(0, len(speech), 1111):
        part, state = codec.encode(speech[start : start + 1111], state, last=start + 1111 >= len(speech))
        packets += part
    if isinstance(codec, (Opus, SoundStream)):
        assert packets == whole
    assert [(p.sequence, p.send_time) for p in packets] == [(p.sequence, p.send_time) for p in whole]
    arrived: list[Packet | None] = [None if i % 7 in (3, 4) else p for i, p in enumerate(whole)]
    expected, _ = codec.decode(arrived, None, last=True)
    decoding, heard = None, []
    for i, packet in enumerate(arrived):
        out, decoding = codec.decode([packet], decoding, last=i == len(arrived) - 1)
        heard.append(out)
    assert np.allclose(np.concatenate(heard), expected, atol=1e-4)


def test_a_forged_packet_is_refused(codec: Baseline) -> None:
    with pytest.raises(InputError):
        codec.decode([Packet(0, 0.0, b"\xff\xff\xff", 24)], None, last=True)


def test_codec2_says_the_same_twice(speech: np.ndarray) -> None:
    pytest.importorskip("pycodec2")
    noise = 0.05 * np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    assert np.array_equal(transfer(Codec2(700), noise).speech, transfer(Codec2(700), noise).speech)


def test_opus_at_low_rates_has_no_room_for_copies_and_at_high_ones_it_uses_them(speech: np.ndarray) -> None:
    pytest.importorskip("opuslib_next")
    low = transfer(Opus(8000, expected_loss=0.2), speech)
    assert low.details["lbrr_packets"] == 0
    told = Opus(24000, expected_loss=0.3)
    packets, _ = told.encode(speech, None, last=True)
    assert sum(has_lbrr(p.payload) for p in packets) > len(packets) / 2
    whole, _ = told.decode(packets, None, last=True)
    gone = [i for i in range(len(packets)) if i % 5 == 3]
    recovered, _ = told.decode([None if i in gone else p for i, p in enumerate(packets)], None, last=True)
    # Two in a row: nothing brings the first one back.
    pairs = [i for i in range(len(packets)) if i % 5 in (3, 4)]
    concealed, _ = told.decode([None if i in pairs else p for i, p in enumerate(packets)], None, last=True)
    frames = slice(0, len(whole) // 320 * 320)
    wrong = [np.mean((heard[frames] - whole[frames]).reshape(-1, 320) ** 2, axis=1) for heard in (recovered, concealed)]
    assert np.mean(wrong[0][gone[:-1]]) < 0.5 * np.mean(wrong[1][gone[:-1]])


def test_dred_is_probed() -> None:
    pytest.importorskip("opuslib_next")
    if has_dred():
        pytest.skip("this libopus has it")
    with pytest.raises(InputError, match="--enable-dred"):
        Opus(12000, dred_ms=200).encode(np.zeros(320, np.float32))


@pytest.mark.parametrize(
    "settings",
    [{"frame_ms": 25}, {"bit_rate": 100}, {"expected_loss": 1.5}, {"complexity": 11}, {"dred_ms": -1}],
)
def test_opus_refuses_what_it_does_not_have(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Opus(**settings)


def test_indices_are_packed_without_gaps(rng: np.random.Generator) -> None:
    for count in (1, 8, 46, 47):
        indices = rng.integers(0, 16, count)
        payload = pack(indices)
        assert len(payload) == (count + 1) // 2
        assert unpack(payload, count).tolist() == indices.tolist()
    assert pack(np.array([1, 15, 2])) == b"\x1f\x20"
    with pytest.raises(InputError, match="2 bytes instead of 8"):
        unpack(b"ab", 16)


def test_soundstream_wants_its_models(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"soundstream_encoder\.tflite"):
        SoundStream(tmp_path)
    for name in ("soundstream_encoder.tflite", "quantizer.tflite", "lyragan.tflite"):
        (tmp_path / name).write_bytes(b"not a model")
    pytest.importorskip("ai_edge_litert")
    with pytest.raises(InputError, match="not a TensorFlow Lite model"):
        SoundStream(tmp_path).encode(np.zeros(320, np.float32))


def test_repeat_and_fade_leaves_what_came_untouched() -> None:
    conceal, state = RepeatAndFade(), None
    frame, state = conceal.step(None, state)
    assert frame.gain == 0
    features = np.ones(FEATURES, np.float32)
    frame, state = conceal.step(features, state)
    assert frame.features is features
    gains = []
    for _ in range(6):
        frame, state = conceal.step(None, state)
        assert np.array_equal(frame.features, features)
        gains.append(frame.gain)
    assert gains[:3] == [1.0, 1.0, 1.0]
    assert sorted(gains, reverse=True) == gains
    assert gains[-1] < 0.5
