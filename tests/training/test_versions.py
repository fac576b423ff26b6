"""Other versions of a recording: the same numbers, the same speech; close to the original, but not it."""

from __future__ import annotations

import numpy as np
import pytest

from semaphone.training.versions import SPEED, another


@pytest.mark.parametrize("length", [1, 1_280, 40_000])
def test_repeatable_bounded_and_about_as_long(rng, length):
    speech = (0.5 * rng.standard_normal(length)).clip(-1, 1).astype(np.float32)
    one, two, other = another(speech, 1, 7), another(speech, 1, 7), another(speech, 2, 7)
    assert one.dtype == np.float32
    assert np.array_equal(one, two)
    assert len(one) != len(other) or not np.array_equal(one, other)
    assert np.abs(one).max() <= 1
    assert length * (1 - SPEED) - 2 <= len(one) <= (length + 1_280) / (1 - SPEED) + 2


def test_a_tone_changes_its_pitch_and_level_and_nothing_else():
    tone = (0.1 * np.sin(2 * np.pi * 1_000 * np.arange(32_000) / 16_000)).astype(np.float32)
    for version in range(1, 6):
        made = another(tone, version, 0)[1_600:-1_600]
        spectrum = np.abs(np.fft.rfft(made * np.hanning(len(made))))
        peak = np.argmax(spectrum) * 16_000 / len(made)
        assert 1_000 * (1 - SPEED) - 5 <= peak <= 1_000 / (1 - SPEED) + 5
        level = 20 * np.log10(np.abs(made).max() / 0.1)
        assert -11 <= level <= 6
        near = spectrum[np.abs(np.arange(len(spectrum)) * 16_000 / len(made) - peak) < 30]
        assert np.square(near).sum() > 0.999 * np.square(spectrum).sum()
