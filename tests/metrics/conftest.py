"""Speech for the metrics: a sentence that a small synthesiser says, so no recording is needed."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest

SENTENCE = "The peasants came to the first village and asked for bread and water."


@lru_cache(maxsize=1)
def _say() -> np.ndarray:
    hibari = pytest.importorskip("hibari")
    from semaphone.audio import Resampler

    spoken = hibari.Hibari()(SENTENCE)
    return Resampler(24000, 16000).push(np.asarray(spoken, dtype=np.float32), last=True)


@pytest.fixture
def speech() -> np.ndarray:
    """About four seconds at 16 kHz."""
    return _say().copy()


@pytest.fixture
def noisy(speech: np.ndarray) -> np.ndarray:
    """The same at a signal-to-noise ratio of about 10 dB."""
    noise = np.random.default_rng(1).standard_normal(len(speech))
    return (speech + noise * np.std(speech) * 0.3).astype(np.float32)


@pytest.fixture
def sentence() -> str:
    """What is said in `speech`."""
    return SENTENCE
