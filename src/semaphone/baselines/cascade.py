"""The paper's benchmark: speech to text over the radio, then text to speech, nothing streamed (DeepSC-S2T and VITS).

The whole talk is one segment: its features are extracted when the speaker has finished, cross the channel, are
translated, and the text is spoken. Everything is the same as in the streamed chain but the waiting, so that a
comparison shows just that.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from semaphone.translation.models.base import Burst, Phrase
from semaphone.translation.models.whisper import WhisperConfig, WhisperTranslator
from semaphone.translation.radio import Radio
from semaphone.translation.segmenter import Segment

_LONGEST = 25.0  # s that Whisper hears at once; a longer talk is cut there


@dataclass(frozen=True)
class CascadeResult:
    """What came out of a talk, and how long that took once the talk was over."""

    text: str
    speech: NDArray[np.float32]  # 24 kHz
    seconds: float  # of the talk
    compute: float  # s
    symbols: int

    @property
    def delay(self) -> float:
        """Seconds from the first word spoken to the first word heard: the talk and the computing."""
        return self.seconds + self.compute


@dataclass(frozen=True)
class Cascade:
    """Whisper and hibari, one after the other, over the given radio."""

    config: WhisperConfig = field(default_factory=WhisperConfig)
    radio: Radio = field(default_factory=Radio)

    def run(self, speech: NDArray[np.float32], seed: int = 0) -> CascadeResult:
        """Translates 16 kHz speech given at once."""
        model = WhisperTranslator(replace(self.config, context="none", window=_LONGEST))
        begin = time.perf_counter()
        state, phrases = self.radio.start(seed), list[Phrase]()
        longest = round(_LONGEST * 16_000)
        for index, first in enumerate(range(0, max(1, len(speech)), longest)):
            piece = speech[first : first + longest]
            upload, _ = model.compress(Segment(index, first, piece, False, 0.0), True, None)
            bursts, _ = model.extract(upload, None)
            for burst in bursts:
                rows, state = self.radio.carry(burst.rows, state)
                more, _ = model.generate(Burst(index, 0, rows, True), None)
                phrases += more
        spoken = [model.speak(phrase) for phrase in phrases]
        done = time.perf_counter() - begin
        out = np.concatenate([np.zeros(0, np.float32), *spoken])
        text = " ".join(phrase.text.strip() for phrase in phrases)
        return CascadeResult(text, out, len(speech) / 16_000, done, state.symbols)
