"""Pauses: is anybody speaking, and the noise that a listener gets while nobody is.

Both follow the noise floor, the quietest 20 ms of the last seconds. States are values: `None` is a fresh stream.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]

QUIETEST = 1e-4  # of full scale, -80 dB: below it nothing is ever speech
LOUDEST = 1e-2  # -40 dB: what is louder is never taken for noise
MARGIN = 1.7  # speech is louder than the floor by this factor, 4.6 dB
RISE = 1.03  # the floor rises by this factor a chunk where everything is louder, 3 dB a second
HANGOVER = 4  # chunks from the last loud one on, of which all but the last count as speech
PARTS = 4  # of a chunk, 20 ms each


def loudness(speech: Samples) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(speech, dtype=np.float64)))) if len(speech) else 0.0


def _parts(chunk: Samples) -> list[float]:
    return [loudness(part) for part in np.array_split(chunk, PARTS)]


@dataclass(frozen=True)
class VoiceState:
    """What the detector remembers."""

    floor: float = LOUDEST  # nothing is known yet
    left: int = HANGOVER  # chunks


def talks(chunk: Samples, state: VoiceState | None) -> tuple[bool, VoiceState]:
    """Does anybody speak in the next chunk?"""
    state = state or VoiceState()
    parts = _parts(chunk)
    floor = min(max(min(state.floor * RISE, min(parts)), QUIETEST), LOUDEST)
    left = HANGOVER if max(parts) > MARGIN * floor else max(state.left - 1, 0)
    return left > 0, VoiceState(floor, left)


@dataclass(frozen=True)
class NoiseState:
    """What comfort noise is to be like."""

    floor: float = 0.0  # root mean square
    made: int = 0  # samples so far


def learn(speech: Samples, state: NoiseState | None) -> NoiseState:
    """From the next chunk that was decoded."""
    state = state or NoiseState()
    quiet = min(_parts(speech))
    return NoiseState(quiet if state.floor == 0.0 else min(state.floor * RISE, quiet), state.made)


def comfort_noise(length: int, state: NoiseState | None) -> tuple[Samples, NoiseState]:
    """[length] of noise as loud as the pauses that were heard, so that the line does not seem dead.

    Most of its power is in low frequencies, as rooms have it. It depends on its place in the stream alone.
    """
    state = state or NoiseState()
    bits = np.random.Generator(np.random.Philox(key=[0x50415553, state.made]))
    white = bits.standard_normal(length + 1)
    noise = (state.floor * np.sqrt(0.5)) * (white[1:] + white[:-1])
    return noise.astype(np.float32), NoiseState(state.floor, state.made + length)
