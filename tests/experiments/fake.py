"""A system and recordings for tests of the sweep; a module of its own, so that worker processes can import it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import soundfile

from semaphone.experiments.corpus import load_corpus, read_recordings
from semaphone.experiments.systems import Sent, System


@dataclass(frozen=True)
class Muted(System):
    """Packets of 20 ms, as they are; lost ones are silent. `weights` stands for what decides the result."""

    weights: str = "a"

    def identity(self, channel: Any) -> dict[str, Any]:
        return {"weights": self.weights}

    def send(self, speech: Any, channel: Any, seed: int, language: str | None = None) -> Sent:
        sampler = channel.sampler(np.random.default_rng(seed))
        heard = speech.copy()
        lost = [sampler.lost(start / 16_000) for start in range(0, len(speech), 320)]
        for number, gone in enumerate(lost):
            if gone:
                heard[320 * number : 320 * (number + 1)] = 0
        return Sent(heard, 1000.0, 1100.0, 5000.0, len(lost), sum(lost))


def write_recordings(folder, rng, number=2, seconds=1.0):
    """Recordings of tones and noise."""
    folder.mkdir(parents=True, exist_ok=True)
    time = np.arange(int(seconds * 16_000)) / 16_000
    for i in range(number):
        speech = 0.2 * np.sin((900 + 100 * i) * time) * (1 + np.sin(20 * time)) + 0.01 * rng.standard_normal(len(time))
        soundfile.write(folder / f"{i}.wav", speech, 16_000)
    return folder


def recordings(folder, rng, number=2):
    return read_recordings(load_corpus(write_recordings(folder, rng, number)))
