"""A translation model of a few lines, exact and fast: rows are loudnesses, the translation counts them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semaphone.errors import InputError
from semaphone.translation.models.base import Burst, ModelInfo, Phrase, Upload
from semaphone.translation.segmenter import Segment

WIDTH = 8


@dataclass(frozen=True)
class FakeModel:
    """Each segment becomes one burst of rows and one phrase that says how many rows came and how loud they were."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "info", ModelInfo("fake", WIDTH, 20.0, 16_000, ("fra",), ("eng",)))

    info: Any = None

    def compress(self, segment: Segment, last: bool, state: Any) -> tuple[Upload, Any]:
        if segment.silent:
            return Upload(segment.index, segment.start, segment.end, True, last, 0, b""), state
        count = len(segment.samples) // 800
        loud = np.abs(segment.samples[: count * 800].reshape(count, 800)).mean(1).astype("<f4")
        return Upload(segment.index, segment.start, segment.end, False, last, count, loud.tobytes()), state

    def extract(self, upload: Upload, state: Any) -> tuple[list[Burst], Any]:
        if upload.silent:
            return [], state
        if len(upload.payload) % 4:
            raise InputError("The payload is cut short.")
        loud = np.frombuffer(upload.payload, "<f4")
        rows = np.repeat(loud[:, None], WIDTH, 1).astype(np.float32)
        return [Burst(upload.index, 0, rows, True)], (state or 0) + 1

    def generate(self, burst: Burst, state: Any) -> tuple[list[Phrase], Any]:
        text = f"{len(burst.rows)} rows at {burst.rows.mean() if len(burst.rows) else 0:.3f}."
        return [Phrase(burst.utterance, text)], (state or 0) + 1

    def speak(self, phrase: Phrase) -> NDArray[np.float32]:
        return np.full(10 * len(phrase.text), 0.1, np.float32)


def voice(seconds: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Noise whose loudness wanders, at 16 kHz."""
    n = round(seconds * 16_000)
    level = 0.3 + 0.2 * np.sin(np.arange(n) / 5_000)
    out: NDArray[np.float32] = (rng.standard_normal(n) * level * 0.3).clip(-1, 1).astype(np.float32)
    return out
