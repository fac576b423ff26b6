"""Segments: nothing lost or repeated, eq 8 in both signs, silence marked, chunk by chunk == whole."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from semaphone.errors import InputError
from semaphone.translation.segmenter import Segmenter, SegmenterConfig, amplitude_slope, next_duration

RATE = 16_000


def ramp(seconds: float, first: float, last: float) -> NDArray[np.float32]:
    n = round(seconds * RATE)
    tone = np.sin(2 * np.pi * 200 * np.arange(n) / RATE)
    out: NDArray[np.float32] = (np.linspace(first, last, n) * tone).astype(np.float32)
    return out


def cut(segmenter: Segmenter, x: NDArray[np.float32], sizes: list[int]) -> list:
    state, found, at = segmenter.start(), [], 0
    for size in sizes:
        some, state = segmenter.step(x[at : at + size], state)
        found += some
        at += size
    some, state = segmenter.step(x[at:], state)
    rest, _ = segmenter.finish(state)
    return found + some + rest


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(0, 60_000),
    sizes=st.lists(st.integers(0, 9_000), max_size=12),
    mode=st.sampled_from(["fixed", "dynamic"]),
    rule=st.sampled_from(["printed", "text"]),
)
def test_no_sample_is_lost_or_repeated_whatever_the_chunks(n, sizes, mode, rule):
    segmenter = Segmenter(SegmenterConfig(mode=mode, rule=rule, speech=0.0))
    x = (np.random.default_rng(n).standard_normal(n) * np.linspace(0.1, 1, n)).astype(np.float32)
    parts, whole = cut(segmenter, x, sizes), cut(segmenter, x, [])
    assert np.array_equal(np.concatenate([np.zeros(0, np.float32), *(s.samples for s in parts)]), x)
    assert [(s.index, s.start, s.end) for s in parts] == [(s.index, s.start, s.end) for s in whole]
    for s in parts[:-1]:
        assert (0.65 if mode == "dynamic" else 0.75) * RATE - 1 <= len(s.samples) <= 0.85 * RATE + 1


def test_slope_has_the_sign_of_the_amplitude_and_ignores_the_level():
    rising, falling = ramp(0.75, 0.0, 1.0), ramp(0.75, 1.0, 0.0)
    assert amplitude_slope(rising) == pytest.approx(1 / 3, abs=0.02)
    assert amplitude_slope(falling) == pytest.approx(-1 / 3, abs=0.02)
    assert amplitude_slope(rising / np.float32(100)) == pytest.approx(amplitude_slope(rising), abs=1e-5)
    assert amplitude_slope(np.zeros(12_000, np.float32)) == 0.0


def test_slope_stays_above_minus_one():
    x = np.zeros(12_000, np.float32)
    x[:320] = 1.0
    assert -1.0 < amplitude_slope(x) < -0.9
    assert 0.9 < amplitude_slope(x[::-1].copy()) < 1.0


def test_eq_8_as_printed_and_as_the_text_says():
    printed, text = SegmenterConfig(), SegmenterConfig(rule="text")
    assert next_duration(0.75, 0.3, printed) == pytest.approx((1 - 0.05 * math.exp(0.3)) * 0.75)
    assert next_duration(0.75, -0.3, printed) == pytest.approx((1 - 0.05 * math.log(0.7)) * 0.75)
    assert next_duration(0.75, 0.3, text) == next_duration(0.75, -0.3, printed) > 0.75
    assert next_duration(0.66, 0.9, printed) == 0.65
    assert next_duration(0.85, -0.9, printed) == 0.85
    assert next_duration(0.66, 0.9, SegmenterConfig(mode="fixed")) == 0.75


def test_silence_is_marked_and_speech_is_not(shared_data):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("silero_vad")
    sf = pytest.importorskip("soundfile")
    speech, _ = sf.read(shared_data / "speech/translation/fra-eng/conf-getpin.flac", dtype="float32")
    x = np.concatenate([np.zeros(24_000, np.float32), speech, np.zeros(32_000, np.float32)])
    segments = cut(Segmenter(SegmenterConfig(mode="fixed")), x, [5_000, 7_001])
    assert segments[0].silent
    assert segments[-1].silent
    assert sum(not s.silent for s in segments) >= 3
    assert np.array_equal(np.concatenate([s.samples for s in segments]), x)


@pytest.mark.parametrize(
    "settings_", [{"mode": "random"}, {"rule": "x"}, {"first": 0.0}, {"shortest": 0.9}, {"p": 1.5}]
)
def test_wrong_settings_are_refused(settings_):
    with pytest.raises(InputError):
        SegmenterConfig(**settings_)
