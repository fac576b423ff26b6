"""Delays are found and taken out; what can't be compared is refused with a sentence."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semaphone.errors import InputError
from semaphone.metrics.pair import NotScorable, estimate_delay, is_silent, make_pair, mean_over_pieces, shift


def bursts(rng: np.random.Generator, samples: int = 16000) -> np.ndarray:
    """Noise whose loudness changes every 50 ms, as speech does."""
    envelope = np.repeat(rng.random(-(-samples // 800)) ** 2, 800)[:samples]
    return (0.3 * envelope * rng.standard_normal(samples)).astype(np.float32)


@settings(max_examples=30, deadline=None)
@given(delay=st.integers(-4000, 4000), seed=st.integers(0, 5))
def test_a_delay_is_found_to_the_sample(delay: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    original = np.pad(bursts(rng), 4000)  # or the loudest burst might be moved out of the recording
    late = shift(original, -delay, len(original)) + 0.01 * rng.standard_normal(len(original)).astype(np.float32)
    assert estimate_delay(original, late, 4000) == delay


def test_another_waveform_with_the_same_envelope_is_aligned_by_the_envelope(rng: np.random.Generator) -> None:
    original = bursts(rng)
    signs = np.where(rng.random(len(original)) < 0.5, -1.0, 1.0).astype(np.float32)
    late = shift(original * signs, -1600, len(original))
    assert estimate_delay(original, late, 4000) == pytest.approx(1600, abs=32)


def test_noise_has_no_delay(rng: np.random.Generator) -> None:
    original = bursts(rng)
    other = 0.1 * rng.standard_normal(len(original)).astype(np.float32)
    assert estimate_delay(original, other, 4000) == 0
    assert estimate_delay(original, np.zeros_like(original), 4000) == 0


@given(delay=st.integers(-30, 30), length=st.integers(0, 40), samples=st.integers(0, 40))
def test_shift_moves_pads_and_cuts(delay: int, length: int, samples: int) -> None:
    speech = np.arange(1, samples + 1, dtype=np.float32)
    moved = shift(speech, delay, length)
    expected = [speech[i + delay] if 0 <= i + delay < samples else 0.0 for i in range(length)]
    assert moved.tolist() == expected


def test_a_pair_has_one_rate_and_one_length(rng: np.random.Generator) -> None:
    original = bursts(rng, 24000)
    pair = make_pair(original, original[:-1000], 48000)
    assert len(pair.reference) == 8000
    assert len(pair.matched()) == 8000
    assert pair.delay_s == 0


def test_speech_that_was_spoken_anew_is_not_compared_moment_by_moment(rng: np.random.Generator) -> None:
    original = bursts(rng)
    pair = make_pair(original, original, 16000, same_timing=False)
    with pytest.raises(NotScorable, match="don't run in step"):
        pair.matched()


@pytest.mark.parametrize(
    ("degraded", "sentence"),
    [
        (np.zeros(0, np.float32), "The degraded recording is empty"),
        (np.zeros((2, 100), np.float32), "one channel"),
        (np.array([0.1, np.nan, 0.2]), "not finite"),
        (np.array([1, 2, 3]), "int64"),
    ],
)
def test_bad_input_is_one_sentence(degraded: np.ndarray, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        make_pair(np.ones(100, np.float32), degraded, 16000)


def test_a_senseless_sample_rate_is_refused() -> None:
    with pytest.raises(InputError, match="10 Hz"):
        make_pair(np.ones(100, np.float32), np.ones(100, np.float32), 10)


def test_pieces_that_cannot_be_scored_are_left_out() -> None:
    def score(a: np.ndarray, b: np.ndarray) -> float:
        if is_silent(a):
            raise NotScorable("silent")
        return float(len(a))

    speech = np.concatenate([np.ones(16000, np.float32), np.zeros(16000, np.float32)])
    assert mean_over_pieces(speech, speech, 1.0, score) == 16000
    with pytest.raises(NotScorable, match="silent"):
        mean_over_pieces(np.zeros(100, np.float32), np.zeros(100, np.float32), 1.0, score)
