"""Voices are told apart."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

from semaphone.metrics import speaker
from semaphone.metrics.pair import NotScorable


def test_mel_filters_are_triangles_of_equal_area() -> None:
    filters = speaker._filters()
    assert filters.shape == (40, 201)
    assert filters.min() == 0
    wide = filters[20:].sum(axis=1) * 40.0  # bins of 40 Hz
    assert wide == pytest.approx(np.ones(20), rel=0.1)


def test_a_tone_lies_in_its_band() -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000).astype(np.float32)
    bands = speaker.mel_power(tone)
    assert bands.shape == (101, 40)
    assert len(set(np.argmax(bands[5:-5], axis=1))) == 1


def test_a_voice_is_like_itself_and_less_like_another(speech: np.ndarray) -> None:
    if not find_spec("resemblyzer"):
        pytest.skip("the weights are not installed")
    from semaphone.audio import Resampler

    higher = Resampler(20000, 16000).push(speech, last=True)  # a fourth up: a smaller person
    assert speaker.speaker_similarity(speech, speech) == pytest.approx(1, abs=1e-5)
    assert speaker.speaker_similarity(speech, speech * np.float32(0.5)) == pytest.approx(1, abs=1e-5)
    assert speaker.speaker_similarity(speech, higher) < 0.8
    with pytest.raises(NotScorable, match="half a second"):
        speaker.speaker_similarity(speech, np.zeros(16000, np.float32))
