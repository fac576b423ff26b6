"""The pitch of tones that are known."""

from __future__ import annotations

import numpy as np
import pytest

from semaphone.metrics.pair import NotScorable
from semaphone.metrics.prosody import log_f0_rmse, pitch

pytest.importorskip("pyworld")


def voice(f0: float, seconds: float = 1.0) -> np.ndarray:
    """Ten harmonics of a steady pitch, silent at both ends."""
    time = np.arange(round(seconds * 16000)) / 16000
    tone = sum(np.sin(2 * np.pi * f0 * h * time) / h for h in range(1, 11))
    return np.pad(0.2 * tone, 4000).astype(np.float32)


def test_the_pitch_of_a_tone_is_its_frequency() -> None:
    found = pitch(voice(150.0))
    assert np.median(found[found > 0]) == pytest.approx(150, rel=0.01)
    assert found[0] == found[-1] == 0


def test_a_semitone_is_a_semitone() -> None:
    semitone = 2 ** (1 / 12)
    assert log_f0_rmse(voice(150.0), voice(150.0)) == 0
    assert log_f0_rmse(voice(150.0), voice(150.0 * semitone)) == pytest.approx(np.log(semitone), rel=0.1)


def test_without_voice_there_is_no_melody() -> None:
    with pytest.raises(NotScorable, match="voiced in both"):
        log_f0_rmse(voice(150.0), np.zeros(24000, np.float32))
