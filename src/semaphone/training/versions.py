"""The same speech said differently: what a model of tokens hears when its corpus is small.

The speed (and with it the pitch), the level, the tone, and where the borders of chunks fall: for the codec all of
them make other tokens, for the listener hardly another recording.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SPEED = 0.12  # most by which speech gets faster or slower
GAIN_DB = (-10.0, 5.0)
TILT_DB = 4.0  # most by which the upper half of the spectrum gets louder or softer


def timing(version: int, number: int) -> tuple[int, float]:
    """Of a version of recording `number`: samples of silence put before it (16 kHz), and then how much faster it is."""
    speed, _, _, shift = _draws(version, number)
    return shift, speed


def _draws(version: int, number: int) -> tuple[float, float, float, int]:
    rng = np.random.default_rng([version, number])
    speed = 1.0 + rng.uniform(-SPEED, SPEED)
    gain = 10.0 ** (rng.uniform(*GAIN_DB) / 20.0)
    tilt = 10.0 ** (rng.uniform(-TILT_DB, TILT_DB) / 20.0) - 1.0
    return speed, gain, tilt, int(rng.integers(0, 1_280))


def another(speech: NDArray[np.float32], version: int, number: int, sample_rate: int = 16_000) -> NDArray[np.float32]:
    """Version 1, 2, ... of recording `number` of a corpus: speech [T] at 16 kHz → [T'] at `sample_rate`, in [-1, 1].

    The same numbers give the same version.
    """
    import soxr

    speed, gain, tilt, shift = _draws(version, number)
    x = soxr.resample(np.pad(speech, (shift, 0)), 16_000 * speed, sample_rate)
    high = x - 0.5 * (x + np.pad(x, (1, 0))[:-1])  # half of the difference: nothing at 0 Hz, everything at the top
    x = gain * (x + tilt * high)
    out: NDArray[np.float32] = (x / max(1.0, float(np.abs(x).max(initial=0.0)))).astype(np.float32)
    return out


def write_others(
    audio: Path, places: Sequence[tuple[int, int, int]], version: int, sample_rate: int, target: Path
) -> list[int]:
    """Versions of recordings (number, first sample, samples) of a file of 16-bit samples at 16 kHz → their lengths.

    They are written to `target` one after another, as float32. It is work for a process of a pool.
    """
    lengths = []
    with open(target, "wb") as out:
        for number, first, count in places:
            samples = np.fromfile(audio, np.int16, count, offset=2 * first)
            made = another(samples.astype(np.float32) / 32768.0, version, number, sample_rate)
            out.write(made.tobytes())
            lengths.append(len(made))
    return lengths
