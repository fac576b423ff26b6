"""How long translated speech takes: the paper's average latency, its parts, and what a listener waits.

LSSC-ST eq 7 is the mean time between neighbouring translated segments, AL = (TL_T − TL_1) / (T − 1): the sum
telescopes. With input that is not paced (a file read as fast as the machine can) it is the computing time of a
segment, and that is what the paper's Table II shows; played live it could not be less than a segment lasts.

A listener cares for something else: how long after the words were spoken does their translation sound? `listener_lag`
replays a talk live from its measured computing times: a segment is worked on when it has been spoken and the last
one is done, and a phrase sounds when it is ready and the phrase before it has ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class TimedSegment:
    """The times of one segment that was not silent."""

    start: float  # s within the talk
    end: float  # s
    compute: float  # s of computing, device to loudspeaker
    speech: float  # s of translated speech that came out with it; 0 if nothing was certain yet


def average_latency(emitted: Sequence[float]) -> float:
    """Eq 7 over the times (s) at which translated segments came out; NaN for fewer than two."""
    if len(emitted) < 2:
        return float("nan")
    return (emitted[-1] - emitted[0]) / (len(emitted) - 1)


def unpaced_emissions(segments: Sequence[TimedSegment]) -> list[float]:
    """TL of eq 7: the clock at which each segment was done, input taken as fast as it can be."""
    return [float(t) for t in np.cumsum([s.compute for s in segments])]


def live_starts(segments: Sequence[TimedSegment]) -> list[tuple[int, float]]:
    """(index of the segment, s at which its phrase starts to sound) of every phrase of a live talk."""
    ready = playing_until = 0.0
    sounding: list[tuple[int, float]] = []
    for i, segment in enumerate(segments):
        ready = max(ready, segment.end) + segment.compute
        if segment.speech > 0:
            begin = max(ready, playing_until)
            playing_until = begin + segment.speech
            sounding.append((i, begin))
    return sounding


def listener_lag(segments: Sequence[TimedSegment]) -> list[float]:
    """Lag (s) of every phrase of a live talk, computing included.

    A phrase translates what was spoken since the phrase before it; its lag runs from the start of the first such
    segment to the moment the phrase starts to sound. It cannot be less than the length of a segment.
    """
    lags: list[float] = []
    first = 0
    for index, begin in live_starts(segments):
        lags.append(begin - segments[first].start)
        first = index + 1
    return lags


@dataclass(frozen=True)
class LatencyReport:
    """Figures over one talk or many."""

    average_latency: float  # s, eq 7, mean over talks of two segments or more
    lag_p50: float  # s, listener
    lag_p99: float  # s, listener
    segments: int
    phrases: int

    def as_dict(self) -> dict[str, float]:
        """For JSON."""
        return {
            "average_latency_s": self.average_latency,
            "listener_lag_p50_s": self.lag_p50,
            "listener_lag_p99_s": self.lag_p99,
            "segments": self.segments,
            "phrases": self.phrases,
        }


def report(talks: Sequence[Sequence[TimedSegment]]) -> LatencyReport:
    """The figures of several talks; NaN where there is nothing to average."""
    means = [average_latency(unpaced_emissions(talk)) for talk in talks if len(talk) > 1]
    lags = [lag for talk in talks for lag in listener_lag(talk)]
    p50, p99 = (float(np.percentile(lags, q)) for q in (50, 99)) if lags else (float("nan"), float("nan"))
    mean = float(np.mean(means)) if means else float("nan")
    return LatencyReport(mean, p50, p99, sum(len(talk) for talk in talks), len(lags))


def model_time(lost_tokens: float, token_seconds: float) -> float:
    """LargeSC eq 23: time the large model takes for a chunk. The paper says received tokens and means lost ones."""
    return lost_tokens * token_seconds


def end_to_end(
    context: float, coder: float, transmit: float, controller: float = 0.0, large_model: float = 0.0
) -> float:
    """LargeSC eqs 21 and 22: s from speaking to hearing; all parts in s."""
    return context + coder + controller + large_model + transmit
