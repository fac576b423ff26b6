from __future__ import annotations

import numpy as np
import pytest

from semaphone.link.silence import HANGOVER, comfort_noise, learn, loudness, talks


def heard(chunks: list[np.ndarray]) -> list[bool]:
    state, found = None, []
    for chunk in chunks:
        speaks, state = talks(chunk.astype(np.float32), state)
        found.append(speaks)
    return found


def test_a_voice_is_told_from_noise(rng) -> None:
    noise = [0.002 * rng.standard_normal(1280) for _ in range(100)]
    voice = noise[0] + 0.1 * np.sin(np.arange(1280) * 0.1)
    found = heard([*noise, voice, *noise[:20]])
    assert not any(found[50:100])
    assert found[100:] == [True] * HANGOVER + [False] * (21 - HANGOVER)


def test_a_long_loud_tone_is_not_taken_for_noise() -> None:
    tone = 0.1 * np.sin(np.arange(1280) * 0.1)
    assert all(heard([tone] * 300))


def test_digital_silence_is_a_pause() -> None:
    assert heard([np.zeros(1280)] * 6) == [True] * (HANGOVER - 1) + [False] * (7 - HANGOVER)


def test_comfort_noise_is_as_loud_as_the_pauses(rng) -> None:
    state = None
    for i in range(50):
        state = learn((0.2 if i % 2 else 0.003) * rng.standard_normal(1280).astype(np.float32), state)
    made, after = comfort_noise(16000, state)
    assert made.dtype == np.float32
    assert loudness(made) == pytest.approx(0.003, rel=0.2)
    assert len(np.unique(made)) > 1000
    again, _ = comfort_noise(16000, after)
    assert abs(np.corrcoef(made, again)[0, 1]) < 0.1


def test_nothing_heard_yet_is_silence() -> None:
    made, _ = comfort_noise(100, None)
    assert not made.any()
    assert loudness(np.zeros(0, np.float32)) == 0
