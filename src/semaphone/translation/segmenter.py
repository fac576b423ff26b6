"""Speech is cut into short segments, fixed or of a duration that follows its loudness (LSSC-ST eq 8).

The slope k of eq 8 is defined here as the least-squares slope of the amplitude (RMS of 20 ms frames) against
time, the segment's length being 1, divided by six times the mean amplitude. A non-negative sequence of N frames
has a slope of at most 6 (N − 1)/(N + 1) times its mean, so −1 < k < 1: ln(k + 1) always exists, and k does not
change with the level of the microphone. k = 0 is steady (or silent) speech.

Eq 8 as printed makes the next segment *shorter* when the amplitude rises; the text of the paper says *longer*.
The rule `printed` is the default, `text` swaps the sign of k. Both are held within [m, n] = [0.65, 0.85] s.

Nothing is lost and nothing comes twice: the segments, joined, are the input. Segments in which the detector
hears no speech are marked `silent`; Algorithm 2 skips those (its `Break` means skip).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from semaphone.errors import InputError
from semaphone.translation.vad import VadState, speech_probability

SAMPLE_RATE = 16_000
_FRAME = 320  # samples of one amplitude, 20 ms


@dataclass(frozen=True)
class SegmenterConfig:
    """Settings of Table I and section IV unless said otherwise."""

    mode: str = "dynamic"  # "dynamic" (eq 8) or "fixed"
    rule: str = "printed"  # sign of k in eq 8: as "printed", or as the paper's "text" says
    first: float = 0.75  # s, duration of the first segment, and of all when fixed
    shortest: float = 0.65  # s, m
    longest: float = 0.85  # s, n
    p: float = 0.05
    q: float = 0.05
    speech: float = 0.5  # probability from which a 32 ms frame counts as speech; 0 keeps every segment

    def __post_init__(self) -> None:
        if self.mode not in ("fixed", "dynamic"):
            raise InputError(f"Segments are fixed or dynamic, not {self.mode!r}.")
        if self.rule not in ("printed", "text"):
            raise InputError(f"The rule of eq 8 is printed or text, not {self.rule!r}.")
        if not 0.1 <= self.first <= 30.0:
            raise InputError(f"A segment lasts 0.1 to 30 s, not {self.first} s.")
        if not 0.1 <= self.shortest <= self.longest <= 30.0:
            raise InputError("The shortest segment must be from 0.1 s up to the longest, and that at most 30 s.")
        if not (0 <= self.p < 1 and 0 <= self.q < 1 and 0 <= self.speech <= 1):
            raise InputError("p and q of eq 8 lie in [0, 1), the speech threshold in [0, 1].")


@dataclass(frozen=True)
class Segment:
    """One piece of the input."""

    index: int
    start: int  # first sample within the talk
    samples: NDArray[np.float32]  # 16 kHz
    silent: bool  # no speech in it
    slope: float  # k of eq 8

    @property
    def end(self) -> int:
        """One past the last sample within the talk."""
        return self.start + len(self.samples)


@dataclass(frozen=True)
class SegmenterState:
    """What the segmenter carries from call to call."""

    duration: int  # samples of the segment that is being filled
    pending: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    start: int = 0
    index: int = 0
    vad: VadState = field(default_factory=VadState)


def amplitude_slope(samples: NDArray[np.float32]) -> float:
    """k of eq 8 in (−1, 1): the normalised slope of the amplitude within a segment."""
    frames = len(samples) // _FRAME
    if frames < 2:
        return 0.0
    cut = samples[: frames * _FRAME].astype(np.float64).reshape(frames, _FRAME)
    amplitude = np.sqrt((cut**2).mean(1))
    mean = float(amplitude.mean())
    if mean < 1e-7:
        return 0.0
    time = (np.arange(frames) + 0.5) / frames - 0.5
    return float((time * amplitude).sum() / (time**2).sum() / (6.0 * mean))


def next_duration(duration: float, slope: float, config: SegmenterConfig) -> float:
    """Eq 8: the duration in seconds of the segment after one of `duration` s and slope k."""
    if config.mode == "fixed":
        return config.first
    k = slope if config.rule == "printed" else -slope
    if k > 0:
        wanted = (1.0 - config.p * math.exp(k)) * duration
    else:
        wanted = (1.0 - config.q * math.log(k + 1.0)) * duration
    return min(max(wanted, config.shortest), config.longest)


class Segmenter:
    """Cuts a stream of 16 kHz samples into segments."""

    def __init__(self, config: SegmenterConfig | None = None) -> None:
        self.config = config or SegmenterConfig()

    def start(self) -> SegmenterState:
        """The state of a fresh talk."""
        return SegmenterState(round(self.config.first * SAMPLE_RATE))

    def step(
        self, samples: NDArray[np.float32], state: SegmenterState | None = None
    ) -> tuple[list[Segment], SegmenterState]:
        """The segments that `samples` (any number of them) complete, and the next state."""
        state = state or self.start()
        found: list[Segment] = []
        state = replace(state, pending=np.concatenate([state.pending, samples.astype(np.float32)]))
        while len(state.pending) >= state.duration:
            segment, state = self._cut(state.duration, state)
            found.append(segment)
        return found, state

    def finish(self, state: SegmenterState) -> tuple[list[Segment], SegmenterState]:
        """What is left at the end of a talk: one shorter segment, or none."""
        if not len(state.pending):
            return [], state
        segment, state = self._cut(len(state.pending), state)
        return [segment], state

    def _cut(self, count: int, state: SegmenterState) -> tuple[Segment, SegmenterState]:
        samples, rest = state.pending[:count], state.pending[count:]
        if self.config.speech > 0:
            probability, vad = speech_probability(samples, state.vad)
            silent = bool((probability < self.config.speech).all())
        else:
            silent, vad = False, state.vad
        slope = amplitude_slope(samples)
        segment = Segment(state.index, state.start, samples, silent, slope)
        seconds = next_duration(count / SAMPLE_RATE, slope, self.config)
        return segment, SegmenterState(round(seconds * SAMPLE_RATE), rest, state.start + count, state.index + 1, vad)
