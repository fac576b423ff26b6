"""Makes an original and what arrived of it comparable: one sample rate, in step, of one length."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from semaphone.errors import InputError, SemaphoneError

if TYPE_CHECKING:
    from collections.abc import Callable

Speech: TypeAlias = NDArray[np.float32]

SCORING_RATE = 16000  # Hz, what every metric here is defined for
SILENCE_PEAK = 1e-4  # -80 dBFS: under this nothing is to be heard

# A shift must earn its place: this much more correlation than without one.
_WORTH_SHIFTING = 0.02
_ENVELOPE_HOP = 16  # samples, 1 ms
_REFINE_SAMPLES = 80  # ±5 ms around the delay of the envelopes


class NotScorable(SemaphoneError):
    """A metric can't judge this speech; the text says why in one sentence."""


@dataclass(frozen=True)
class Pair:
    """An original and its degraded version at `SCORING_RATE`, within ±1."""

    reference: Speech  # [N]
    degraded: Speech  # [M], as it came
    in_step: Speech | None  # [N], the degraded speech shifted by the delay, padded or cut; None if the two can't match
    delay_s: float  # by how much the degraded speech lags behind, s

    def matched(self) -> Speech:
        """The degraded speech in step with the reference. Raises NotScorable if there is none."""
        if self.in_step is None:
            raise NotScorable("the two recordings don't run in step, so they can't be compared moment by moment")
        return self.in_step


def is_silent(speech: Speech) -> bool:
    """True if nothing is to be heard, or there is nothing at all."""
    return speech.size == 0 or float(np.max(np.abs(speech))) < SILENCE_PEAK


def make_pair(
    reference: NDArray[np.floating],
    degraded: NDArray[np.floating],
    sample_rate: int,
    max_delay_s: float = 0.5,
    same_timing: bool = True,
) -> Pair:
    """Pair two mono recordings [N] and [M] of one sample rate (Hz).

    A constant delay of at most `max_delay_s` seconds, either way, is estimated and taken out (codecs look ahead);
    0 takes the recordings as they are. `same_timing=False` says that the degraded speech was spoken anew (a text
    link) and can't be compared moment by moment. Raises InputError for empty, non-finite or many-channel input.
    """
    original = _at_scoring_rate(reference, sample_rate, "reference")
    arrived = _at_scoring_rate(degraded, sample_rate, "degraded recording")
    if not same_timing:
        return Pair(original, arrived, None, 0.0)
    limit = round(max_delay_s * SCORING_RATE)
    delay = estimate_delay(original, arrived, limit) if limit > 0 else 0
    return Pair(original, arrived, shift(arrived, delay, len(original)), delay / SCORING_RATE)


def _at_scoring_rate(speech: NDArray[np.floating], sample_rate: int, what: str) -> Speech:
    array = np.asarray(speech)
    if array.ndim != 1:
        raise InputError(f"The {what} has the shape {array.shape}; one channel of samples is expected.")
    if array.size == 0:
        raise InputError(f"The {what} is empty.")
    if not np.issubdtype(array.dtype, np.floating):
        raise InputError(f"The {what} holds {array.dtype} samples; floating-point samples within ±1 are expected.")
    if not np.all(np.isfinite(array)):
        raise InputError(f"The {what} holds samples that are not finite numbers.")
    if sample_rate != SCORING_RATE:
        from semaphone.audio import HIGHEST_RATE, LOWEST_RATE, Resampler

        if not LOWEST_RATE <= sample_rate <= HIGHEST_RATE:
            raise InputError(f"A sample rate of {sample_rate} Hz is not within {LOWEST_RATE} to {HIGHEST_RATE} Hz.")
        array = Resampler(sample_rate, SCORING_RATE).push(array.astype(np.float32), last=True)
    return np.ascontiguousarray(np.clip(array, -1.0, 1.0), dtype=np.float32)


def shift(speech: Speech, delay: int, length: int) -> Speech:
    """`speech` advanced by `delay` samples (negative: put off), padded with silence or cut to `length` samples."""
    start = max(delay, 0)
    out = np.zeros(length, dtype=np.float32)
    at = max(-delay, 0)
    part = speech[start : start + max(length - at, 0)]
    out[at : at + len(part)] = part
    return out


def estimate_delay(reference: Speech, degraded: Speech, max_delay: int) -> int:
    """Samples (at 16 kHz) by which `degraded` lags behind `reference`, in ±`max_delay`; 0 when in doubt.

    The waveforms decide where they agree; generative codecs keep the envelope but not the phase, so otherwise the
    envelopes (1 ms steps) find the place and the waveforms near it, where they agree a little, refine it.
    """
    if is_silent(reference) or is_silent(degraded):
        return 0
    waves = _correlation(reference, degraded, max_delay)
    best = _best_lag(waves)
    if abs(waves[best + max_delay]) >= 0.7:
        return best if _worth(waves, best) else 0
    reach = max(max_delay // _ENVELOPE_HOP, 1)
    envelopes = _correlation(_envelope(reference), _envelope(degraded), reach)
    coarse = _best_lag(envelopes)
    if envelopes[coarse + reach] < 0.5 or not _worth(envelopes, coarse):
        return 0
    centre = coarse * _ENVELOPE_HOP
    low = max(centre - _REFINE_SAMPLES, -max_delay)
    high = min(centre + _REFINE_SAMPLES, max_delay)
    near = np.abs(waves[low + max_delay : high + max_delay + 1])
    return low + int(np.argmax(near)) if near.max() >= 0.3 else centre


def _worth(correlation: NDArray[np.float64], lag: int) -> bool:
    middle = len(correlation) // 2
    return bool(abs(correlation[middle + lag]) >= abs(correlation[middle]) + _WORTH_SHIFTING)


def _best_lag(correlation: NDArray[np.float64]) -> int:
    return int(np.argmax(np.abs(correlation))) - len(correlation) // 2


def _envelope(speech: Speech) -> NDArray[np.float64]:
    """Loudness in windows of 10 ms every 1 ms, without its mean."""
    energy = np.cumsum(np.concatenate([np.zeros(1), speech.astype(np.float64) ** 2]))
    starts = np.arange(0, max(len(speech) - 160, 1), _ENVELOPE_HOP)
    ends = np.minimum(starts + 160, len(speech))
    level = np.sqrt(np.maximum(energy[ends] - energy[starts], 0.0))
    return np.asarray(level - level.mean(), dtype=np.float64)


def _correlation(a: NDArray[np.floating], b: NDArray[np.floating], reach: int) -> NDArray[np.float64]:
    """Σ a[n] b[n + lag] / (|a| |b|) for lag = -reach … reach."""
    from scipy.signal import correlate

    left, right = a.astype(np.float64), b.astype(np.float64)
    scale = float(np.sqrt(np.sum(left**2) * np.sum(right**2))) or 1.0
    full = correlate(right, left, mode="full", method="fft") / scale  # index i is lag i - (len(a) - 1)
    padded = np.pad(full, (reach, reach))
    middle = reach + len(left) - 1
    return np.asarray(padded[middle - reach : middle + reach + 1], dtype=np.float64)


def mean_over_pieces(
    reference: Speech, degraded: Speech, piece_s: float, score: Callable[[Speech, Speech], float]
) -> float:
    """Mean of `score` over equal pieces of at most `piece_s` seconds; those that can't be scored are left out.

    Long recordings overflow PESQ's tables and make ViSQOL's search grow with the square of the length.
    Raises NotScorable with the first reason if no piece can be scored.
    """
    pieces = max(int(np.ceil(len(reference) / (piece_s * SCORING_RATE))), 1)
    edges = np.linspace(0, len(reference), pieces + 1).round().astype(int)
    reasons: list[NotScorable] = []

    def attempt(start: int, end: int) -> float | None:
        try:
            return score(reference[start:end], degraded[start:end])
        except NotScorable as error:
            reasons.append(error)
            return None

    values = [value for start, end in pairwise(edges) if (value := attempt(start, end)) is not None]
    if not values:
        raise reasons[0]
    return float(np.mean(values))
