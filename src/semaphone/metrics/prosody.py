"""Melody: how far the pitch of degraded speech is from the original's."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semaphone.errors import COMPILED, MissingExtraError
from semaphone.metrics.memo import MEMO
from semaphone.metrics.pair import SCORING_RATE, NotScorable, Speech, is_silent

FRAME_S = 0.01  # a pitch every 10 ms
_FEWEST = 10  # frames voiced in both, for a mean that says something
_QUIET_DB = 40.0  # frames this far under the loudest are unvoiced: harvest finds a pitch in room noise too


def pitch(speech: Speech) -> NDArray[np.float64]:
    """F0 in Hz every 10 ms of speech [N] at 16 kHz, 0 where it is unvoiced (WORLD's harvest)."""
    return MEMO.get("pitch", speech, lambda: _pitch(speech))


def log_f0_rmse(reference: Speech, degraded: Speech) -> float:
    """Root mean square of ln F0 - ln F0' over frames voiced in both, of two recordings in step.

    0.06 is a semitone, 0.69 an octave. Raises NotScorable if less than 0.1 s is voiced in both.
    """
    original, arrived = pitch(reference), pitch(degraded)
    frames = min(len(original), len(arrived))
    original, arrived = original[:frames], arrived[:frames]
    both = (original > 0) & (arrived > 0)
    if np.count_nonzero(both) < _FEWEST:
        raise NotScorable("less than 0.1 s is voiced in both")
    return float(np.sqrt(np.mean(np.log(original[both] / arrived[both]) ** 2)))


def _pitch(speech: Speech) -> NDArray[np.float64]:
    engine = world()
    if is_silent(speech):
        return np.zeros(int(len(speech) / SCORING_RATE / FRAME_S) + 1)
    f0, times = engine.harvest(speech.astype(np.float64), SCORING_RATE, frame_period=FRAME_S * 1000)
    hop = round(FRAME_S * SCORING_RATE)
    padded = np.pad(speech.astype(np.float64), (hop, 2 * hop))
    starts = np.minimum((times * SCORING_RATE).round().astype(int), len(padded) - 2 * hop)
    energy = np.cumsum(np.concatenate([[0.0], padded**2]))
    level = (energy[starts + 2 * hop] - energy[starts]) / (2 * hop)  # of 20 ms around each frame
    f0[level < level.max() * 10 ** (-_QUIET_DB / 10)] = 0.0
    return np.asarray(f0, dtype=np.float64)


def world() -> Any:
    """The package pyworld, without what it says when it is imported. Raises MissingExtraError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it imports pkg_resources, which says farewell
            import pyworld
    except ImportError as error:  # no pyworld, or no pkg_resources under it (setuptools 81 dropped that)
        raise MissingExtraError("Pitch", "metrics", COMPILED) from error
    return pyworld
