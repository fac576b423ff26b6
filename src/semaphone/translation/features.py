"""Whisper's log-mel spectrum, streamed: 80 bands every 10 ms, from 16 kHz samples, with explicit state.

A device computes `log10` of the mel energies (floor 1e-10), which needs nothing but the samples around a frame.
What Whisper adds, a floor 8 below the loudest value of the window and a shift, is done by `normalise` where the
window is known, on the edge.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 16_000
BANDS = 80
HOP = 160  # samples between frames, 10 ms
WINDOW = 400  # samples of one frame, 25 ms
SILENCE = -10.0  # log10 of the energy floor


@dataclass(frozen=True)
class MelState:
    """Samples that later frames still need; half a window of silence stands before a talk."""

    pending: NDArray[np.float32] = field(default_factory=lambda: np.zeros(WINDOW // 2, np.float32))


def _hertz_to_mel(hertz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Slaney's scale: linear up to 1 kHz (15 mel), logarithmic above."""
    linear = hertz * 3.0 / 200.0
    above = 15.0 + np.log(np.maximum(hertz, 1.0) / 1000.0) * 27.0 / np.log(6.4)
    return np.where(hertz < 1000.0, linear, above)


def _mel_to_hertz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(mel < 15.0, mel * 200.0 / 3.0, 1000.0 * np.exp((mel - 15.0) * np.log(6.4) / 27.0))


@functools.lru_cache(maxsize=1)
def mel_filters() -> NDArray[np.float32]:
    """Triangular filters of unit area [80, 201] from 0 to 8 kHz."""
    top = _hertz_to_mel(np.array([SAMPLE_RATE / 2.0]))[0]
    corners = _mel_to_hertz(np.linspace(0.0, top, BANDS + 2))
    bins = np.linspace(0.0, SAMPLE_RATE / 2.0, WINDOW // 2 + 1)
    rising = (bins[None] - corners[:-2, None]) / (corners[1:-1] - corners[:-2])[:, None]
    falling = (corners[2:, None] - bins[None]) / (corners[2:] - corners[1:-1])[:, None]
    area = 2.0 / (corners[2:] - corners[:-2])
    return (np.clip(np.minimum(rising, falling), 0.0, None) * area[:, None]).astype(np.float32)


@functools.lru_cache(maxsize=1)
def _hann() -> NDArray[np.float32]:
    window: NDArray[np.float32] = (0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(WINDOW) / WINDOW)).astype(np.float32)
    return window


def log_mel(
    samples: NDArray[np.float32], state: MelState | None = None, last: bool = False
) -> tuple[NDArray[np.float32], MelState]:
    """log10 mel energies [frames, 80] of the frames that `samples` complete, and the next state.

    Frame i is centred on sample 160 · i. With `last`, silence follows and every sample is covered:
    a talk of n samples has ceil(n / 160) frames.
    """
    state = state or MelState()
    waiting = np.concatenate([state.pending, samples.astype(np.float32)])
    if last:
        real = len(waiting) - WINDOW // 2  # samples from the centre of the next frame on
        frames = max(0, -(-real // HOP))
        waiting = np.pad(waiting, (0, max(0, frames * HOP + WINDOW - len(waiting))))
    else:
        frames = max(0, (len(waiting) - WINDOW) // HOP + 1)
    if frames == 0:
        return np.zeros((0, BANDS), np.float32), MelState(waiting)
    cut = np.lib.stride_tricks.sliding_window_view(waiting, WINDOW)[: frames * HOP : HOP]
    power = np.abs(np.fft.rfft(cut * _hann(), axis=1)) ** 2
    energy = power.astype(np.float32) @ mel_filters().T
    mel: NDArray[np.float32] = np.log10(np.maximum(energy, 1e-10))
    return mel, MelState(waiting[frames * HOP :].copy())


def normalise(mel: NDArray[np.float32]) -> NDArray[np.float32]:
    """Whisper's scaling of a window [frames, 80]: at most 8 below the maximum, then (x + 4) / 4."""
    if not len(mel):
        return mel
    scaled: NDArray[np.float32] = ((np.maximum(mel, mel.max() - 8.0) + 4.0) / 4.0).astype(np.float32)
    return scaled
