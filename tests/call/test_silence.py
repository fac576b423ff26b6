from __future__ import annotations

import numpy as np
import pytest

from semaphone.call.silence import HANGOVER, ComfortNoise, VoiceDetector, loudness
from semaphone.call.stretch import stretch


def test_a_voice_is_told_from_noise(rng) -> None:
    detector = VoiceDetector()
    noise = [0.002 * rng.standard_normal(2560).astype(np.float32) for _ in range(200)]
    heard = [detector.speaks(block) for block in noise]
    assert not any(heard[-50:])
    assert detector.speaks(noise[0] + 0.1 * np.sin(np.arange(2560) * 0.1))
    after = [detector.speaks(block) for block in noise[:10]]
    assert after == [True] * (HANGOVER - 1) + [False] * (11 - HANGOVER)


def test_comfort_noise_is_as_loud_as_the_pauses(rng) -> None:
    noise = ComfortNoise()
    for i in range(50):
        noise.learn((0.2 if i % 2 else 0.003) * rng.standard_normal(2560).astype(np.float32))
    made = noise.make(16000)
    assert made.dtype == np.float32
    assert loudness(made) == pytest.approx(0.003, rel=0.2)
    assert len(np.unique(made)) > 1000


def test_digital_silence_stays_silent() -> None:
    noise = ComfortNoise()
    noise.learn(np.zeros(2560, np.float32))
    assert not noise.make(100).any()
    assert loudness(np.zeros(0, np.float32)) == 0


@pytest.mark.parametrize("change", [-160, -1, 0, 1, 320])
def test_stretched_speech_keeps_its_pitch_and_its_ends(change) -> None:
    speech = np.sin(2 * np.pi * 200 * np.arange(2560) / 16000).astype(np.float32)  # a period of 80 samples
    out = stretch(speech, 2560 + change, 160)
    assert len(out) == 2560 + change
    assert (out[0], out[-1]) == (speech[0], speech[-1])
    if change % 80 == 0:
        assert np.abs(np.diff(out)).max() <= np.abs(np.diff(speech)).max() + 1e-5


def test_the_splice_is_where_nobody_hears_it(rng) -> None:
    speech = np.concatenate([rng.standard_normal(1500), np.zeros(600), rng.standard_normal(460)]).astype(np.float32)
    out = stretch(speech, 2400, 160)
    np.testing.assert_array_equal(out[:1500], speech[:1500])
    np.testing.assert_array_equal(out[-460:], speech[-460:])


def test_too_much_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be spliced"):
        stretch(np.zeros(100, np.float32), 200, 10)
