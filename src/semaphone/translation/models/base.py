"""What a speech translation model offers, in the four steps of LSSC-ST, each with explicit state.

    device          edge            edge             device
    compress → P    extract → F     generate(F̂) → P̂   speak → ŝ

P goes up to the near edge without errors, F crosses the radio channel as rows of real numbers, P̂ (text or units)
goes down to the listening device without errors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from semaphone.translation.segmenter import Segment

# What a model carries from step to step; its contents are the model's own business.
State = Any


@dataclass(frozen=True)
class ModelInfo:
    """The facts of a model that the rest of the chain needs."""

    name: str
    row_width: int  # real numbers in a row of F
    row_rate: float  # rows a second of speech
    sample_rate: int  # Hz of the speech that `speak` gives
    sources: tuple[str, ...]  # ISO 639-3 codes it understands
    targets: tuple[str, ...]  # ISO 639-3 codes it speaks


@dataclass(frozen=True)
class Upload:
    """What the device sends to the edge for one segment: P of eq 1."""

    index: int  # of the segment
    start: int  # first sample of the segment within the talk
    end: int  # one past its last sample
    silent: bool  # nothing to translate; an utterance that was open ends here
    last: bool  # the talk ends here
    frames: int  # frames that the payload holds
    payload: bytes  # the compressed features; empty when silent

    @property
    def bits(self) -> int:
        """Bits of the payload."""
        return 8 * len(self.payload)


@dataclass(frozen=True)
class Burst:
    """Rows of F that cross the channel together."""

    utterance: int  # number of the utterance they belong to
    first: int  # position of the first row within the utterance
    rows: NDArray[np.float32]  # [N, row_width]
    last: bool  # the utterance ends with them


@dataclass(frozen=True)
class Phrase:
    """P̂: a stretch of the translation that will not change any more."""

    utterance: int
    text: str  # may be empty when the model speaks from units
    units: tuple[int, ...] = ()
    confidence: float | None = None  # 0 to 1, how sure the model is that this was said; None: not known


class TranslationModel(Protocol):
    """The four steps. Every state starts as None; one model serves many talks at the same time."""

    @property
    def info(self) -> ModelInfo: ...

    def compress(self, segment: Segment, last: bool, state: State) -> tuple[Upload, State]:
        """On the device: one segment → what is uploaded (eq 1)."""
        ...

    def extract(self, upload: Upload, state: State) -> tuple[list[Burst], State]:
        """On the near edge: upload → rows of F for the channel encoder (eq 2)."""
        ...

    def generate(self, burst: Burst, state: State) -> tuple[list[Phrase], State]:
        """On the far edge: rows of F̂ → phrases that are certain."""
        ...

    def speak(self, phrase: Phrase) -> NDArray[np.float32]:
        """On the listening device: a phrase → speech at `info.sample_rate` (eq 5)."""
        ...
