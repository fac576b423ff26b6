"""Something voiced to send."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def speech() -> np.ndarray:
    """A second and a half at 16 kHz: a gliding pitch with syllables and pauses, which codecs take for a voice."""
    time = np.arange(24000) / 16000
    pitch = 2 * np.pi * np.cumsum(130 + 30 * np.sin(2 * np.pi * 0.7 * time)) / 16000
    voice = sum(np.sin(h * pitch) / h for h in range(1, 20))
    syllables = np.clip(np.sin(2 * np.pi * 2.5 * time), 0, 1)
    noise = 0.003 * np.random.default_rng(0).standard_normal(len(time))
    return (0.15 * voice * syllables + noise).astype(np.float32)
