"""What the nano encoder listens to: log-mel energies and the periodicity of the last 64 ms."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def mel_filters(sample_rate: int, n_fft: int, bands: int, low: float = 0.0, high: float | None = None) -> Tensor:
    """Triangular filters [n_fft / 2 + 1, bands], evenly spaced on the mel scale 2595 log10(1 + f / 700)."""
    top = high if high is not None else sample_rate / 2

    def mel(f: float) -> float:
        return 2595.0 * math.log10(1.0 + f / 700.0)

    edges = 700.0 * (10.0 ** (torch.linspace(mel(low), mel(top), bands + 2, dtype=torch.float64) / 2595.0) - 1.0)
    bins = torch.linspace(0, sample_rate / 2, n_fft // 2 + 1, dtype=torch.float64)[:, None]
    rise = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    filters = torch.minimum(rise, fall).clamp(min=0)
    # A band narrower than a bin would be deaf: give it its nearest bin.
    for band in (filters.sum(0) == 0).nonzero().flatten().tolist():
        filters[int((bins[:, 0] - edges[band + 1]).abs().argmin()), band] = 1.0
    return filters.float()


def _power(spectrum: Tensor) -> Tensor:
    return (spectrum * spectrum.conj()).real  # a sixth of the time that the square of abs() takes


class SpeechFeatures(nn.Module):
    """Speech → frames at 100 Hz, causally: each frame's windows end with the frame.

    80 log-mel energies (32 ms window) and the normalised autocorrelation (64 ms window) at the
    lags of 62 to 640 Hz, so that pitch, which mel bands blur, is plain to see.
    """

    hop = 160
    short, long = 512, 1024
    lags = (25, 257)
    filters: Tensor
    short_window: Tensor
    long_window: Tensor
    window_correlation: Tensor

    def __init__(self, sample_rate: int, bands: int) -> None:
        super().__init__()
        self.register_buffer("filters", mel_filters(sample_rate, self.short, bands), persistent=False)
        self.register_buffer("short_window", torch.hann_window(self.short), persistent=False)
        self.register_buffer("long_window", torch.hann_window(self.long), persistent=False)
        own = torch.fft.irfft(torch.fft.rfft(torch.hann_window(self.long), 2 * self.long).abs() ** 2)
        self.register_buffer("window_correlation", own[: self.lags[1]] / own[0], persistent=False)
        self.width = bands + self.lags[1] - self.lags[0]

    def forward(self, speech: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """[B, T * 160], last samples [B, 864] → frames [B, T, width], last samples."""
        past = self.long - self.hop
        if state is None:
            state = speech.new_zeros(speech.shape[0], past)
        seen = torch.cat([state, speech], 1)
        frames = seen.unfold(1, self.long, self.hop)  # [B, T, 1024]
        power = _power(torch.fft.rfft(frames[..., -self.short :] * self.short_window))
        mel = 0.5 * torch.log10((power @ self.filters).clamp(min=1e-5)) + 1.0  # about -1.5 to 2
        spectrum = _power(torch.fft.rfft(frames * self.long_window, 2 * self.long))
        correlation = torch.fft.irfft(spectrum)[..., : self.lags[1]]
        periodicity = correlation / (correlation[..., :1] + 1e-4) / self.window_correlation
        return torch.cat([mel, periodicity[..., self.lags[0] :]], -1), seen[:, -past:]
