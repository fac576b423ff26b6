"""The harmonic-plus-noise source of the nano decoder, and the spectra that travel through it.

Per 10 ms the decoder predicts F0 and voicing; they drive a sum of equally strong cosines up to
7.5 kHz plus noise. The network then shapes the source's spectrum instead of inventing one.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

NOISE_LENGTH = 1 << 16


class SourceState(NamedTuple):
    """Where a source stands between two calls."""

    phase: Tensor  # [B] in cycles, float64
    f0: Tensor  # [B] Hz, of the last frame
    voicing: Tensor  # [B] of the last frame
    position: int  # samples made so far


def _ramp(values: Tensor, last: Tensor, hop: int) -> Tensor:
    """Frame values [B, T] → samples [B, T * hop], linear from each frame to the next."""
    before = torch.cat([last[:, None], values[:, :-1]], 1)
    steps = torch.arange(1, hop + 1, device=values.device, dtype=values.dtype) / hop
    return (before[..., None] + (values - before)[..., None] * steps).flatten(1)


class HarmonicSource(nn.Module):
    """F0 and voicing per frame → excitation, sample by sample."""

    noise: Tensor

    def __init__(self, sample_rate: int, hop: int, highest: float = 7500.0, breath: float = 0.03) -> None:
        super().__init__()
        self.sample_rate, self.hop, self.highest, self.breath = sample_rate, hop, highest, breath
        # A fixed noise that every stream reads from its start: decoding is a function of the tokens alone.
        noise = torch.randn(NOISE_LENGTH, generator=torch.Generator().manual_seed(20))
        self.register_buffer("noise", noise, persistent=False)

    def start(self, batch: int, like: Tensor) -> SourceState:
        """The state of a fresh stream."""
        zero = like.new_zeros(batch)
        return SourceState(zero.double(), zero + 100.0, zero, 0)

    @torch.no_grad()
    def forward(self, f0: Tensor, voicing: Tensor, state: SourceState | None = None) -> tuple[Tensor, SourceState]:
        """f0 [B, T] in Hz, voicing [B, T] in [0, 1] → excitation [B, T * hop] as fine as f0, next state."""
        state = state if state is not None else self.start(f0.shape[0], f0)
        pitch = _ramp(f0.double(), state.f0.double(), self.hop)
        phase = (state.phase[:, None] + torch.cumsum(pitch / self.sample_rate, 1)) % 1.0
        count = torch.floor(self.highest / pitch)
        # Σ cos(kθ), k = 1 … K, in closed form, scaled to unit power.
        half = math.pi * phase
        sine = torch.sin(half)
        safe = torch.where(sine.abs() < 1e-6, torch.full_like(sine, 1e-6), sine)
        total = torch.sin(count * half) * torch.cos((count + 1) * half) / safe
        harmonic = torch.where(sine.abs() < 1e-6, count, total) * torch.sqrt(2.0 / count)
        length = pitch.shape[1]
        at = (torch.arange(length, device=f0.device) + state.position) % NOISE_LENGTH
        noise = self.noise[at].to(f0.dtype)
        mix = _ramp(voicing, state.voicing, self.hop)
        excitation = mix * harmonic.to(f0.dtype) + (1.0 - mix + self.breath) * noise
        last = (phase[:, -1], f0[:, -1], voicing[:, -1], (state.position + length) % NOISE_LENGTH)
        return 0.1 * excitation, SourceState(*last)


class CausalSpectrum(nn.Module):
    """Short-time spectra whose windows end with their hop, and the overlap-add back."""

    taper: Tensor

    def __init__(self, window: int, hop: int) -> None:
        super().__init__()
        self.window, self.hop, self.past = window, hop, window - hop
        self.register_buffer("taper", torch.hann_window(window), persistent=False)

    def analyse(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """[B, T * hop], last samples [B, window - hop] → spectra [B, T, window / 2 + 1], last samples."""
        if state is None:
            state = x.new_zeros(x.shape[0], self.past)
        seen = torch.cat([state, x], 1)
        return torch.fft.rfft(seen.unfold(1, self.window, self.hop) * self.taper.to(x.dtype)), seen[:, -self.past :]

    def synthesise(self, spectra: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Spectra [B, T, bins], unfinished samples [B, window - hop] → [B, T * hop], unfinished samples.

        The first `window - hop` samples of a stream have no predecessors and fade in.
        """
        frames = torch.fft.irfft(spectra, self.window) * self.taper  # [B, T, window]
        b, t, _ = frames.shape
        total = torch.nn.functional.fold(
            frames.transpose(1, 2), (1, (t - 1) * self.hop + self.window), (1, self.window), stride=(1, self.hop)
        ).reshape(b, -1)
        if state is not None:
            total = torch.cat([total[:, : self.past] + state, total[:, self.past :]], 1)
        gain = self.taper.square().sum() / self.hop
        return total[:, : t * self.hop] / gain, total[:, t * self.hop :]
