"""Pauses: a voice detector for the sender, comfort noise for the receiver.

Both follow the noise floor, the quietest that was heard in the last seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]

QUIETEST = 1e-4  # of full scale, -80 dB: below it nothing is ever speech
MARGIN = 2.5  # speech is louder than the floor by this factor, 8 dB
RISE = 1.02  # the floor rises by this factor a block where everything is louder
HANGOVER = 3  # blocks that still count as speech after the last loud one


def loudness(speech: Samples) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(speech, dtype=np.float64)))) if len(speech) else 0.0


@dataclass
class VoiceDetector:
    """Is anybody speaking?"""

    floor: float = QUIETEST
    _left: int = HANGOVER

    def speaks(self, block: Samples) -> bool:
        """Of the next block."""
        parts = [loudness(part) for part in np.array_split(block, 8)]
        self.floor = max(min(self.floor * RISE, min(parts)), QUIETEST)
        self._left = HANGOVER if max(parts) > MARGIN * self.floor else self._left - 1
        return self._left > 0


@dataclass
class ComfortNoise:
    """Noise as loud as the pauses that were heard, so that the line does not seem dead."""

    generator: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    floor: float = 0.0

    def learn(self, speech: Samples) -> None:
        """From a decoded block."""
        quiet = min(loudness(part) for part in np.array_split(speech, 8))
        self.floor = quiet if self.floor == 0.0 else min(self.floor * RISE, quiet)

    def make(self, length: int) -> Samples:
        """[length] of noise with most of its power in low frequencies, as rooms have it."""
        white = self.generator.standard_normal(length + 1)
        noise = 0.5 * (white[1:] + white[:-1])
        samples: Samples = (self.floor * noise / np.sqrt(0.5)).astype(np.float32)
        return samples
