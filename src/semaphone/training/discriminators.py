"""Discriminators of speech: convolutions over complex spectra at several window lengths (as in EnCodec)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

SLOPE = 0.2  # of leaky rectifiers below zero
# (window, hop) in samples: 64, 32 and 16 ms at 16 kHz.
RESOLUTIONS = ((1024, 256), (512, 128), (256, 64))


def _convolution(layer: nn.Conv2d) -> nn.Module:
    """Weight-normalised, with weights that keep the size of signals.

    As layers come, each would halve them, and the last ones would see little but biases: hundreds of steps are lost.
    """
    nn.init.kaiming_normal_(layer.weight, a=SLOPE)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    normalised: nn.Module = weight_norm(layer)
    return normalised


class SpectrumDiscriminator(nn.Module):
    """Judges one resolution: [B, T] → logits over time and frequency, and what its layers saw."""

    taper: Tensor

    def __init__(self, window: int, hop: int, channels: int) -> None:
        super().__init__()
        self.window, self.hop = window, hop
        self.register_buffer("taper", torch.hann_window(window) / window**0.5, persistent=False)
        layers: list[nn.Module] = [_convolution(nn.Conv2d(2, channels, (3, 9), padding=(1, 4)))]
        for dilation in (1, 2, 4):
            padding = (dilation, 4)
            layers.append(
                _convolution(
                    nn.Conv2d(channels, channels, (3, 9), stride=(1, 2), dilation=(dilation, 1), padding=padding)
                )
            )
        layers.append(_convolution(nn.Conv2d(channels, channels, (3, 3), padding=(1, 1))))
        self.layers = nn.ModuleList(layers)
        self.judge = _convolution(nn.Conv2d(channels, 1, (3, 3), padding=(1, 1)))

    def spectrum(self, speech: Tensor) -> Tensor:
        """[B, T] → [B, 2, frames, bins], magnitudes compressed to their square roots."""
        with torch.autocast(speech.device.type, enabled=False):
            x = torch.stft(
                speech.float(), self.window, self.hop, window=self.taper, center=False, return_complex=True
            ).transpose(1, 2)
            power = x.real.square() + x.imag.square() + 1e-7
            return torch.stack([x.real, x.imag], 1) * power.pow(-0.25)[:, None]

    def forward(self, speech: Tensor) -> tuple[Tensor, list[Tensor]]:
        x = self.spectrum(speech)
        if x.is_cuda:  # what tensor cores convolve
            x = x.contiguous(memory_format=torch.channels_last)
        seen: list[Tensor] = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), SLOPE)
            seen.append(x)
        return self.judge(x), seen


class Discriminators(nn.Module):
    """One judge a resolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.judges = nn.ModuleList(SpectrumDiscriminator(*r, channels) for r in RESOLUTIONS)

    def forward(self, speech: Tensor) -> list[tuple[Tensor, list[Tensor]]]:
        return [judge(speech) for judge in self.judges]


Judged = list[tuple[Tensor, list[Tensor]]]


def judges_loss(real: Judged, made: Judged) -> Tensor:
    """Hinge loss of the discriminators."""
    losses = [
        F.relu(1 - a.float()).mean() + F.relu(1 + b.float()).mean() for (a, _), (b, _) in zip(real, made, strict=True)
    ]
    return torch.stack(losses).mean()


def maker_losses(real: Judged, made: Judged) -> tuple[Tensor, Tensor]:
    """(adversarial, feature matching) losses of who makes the speech; `real` needs no gradient."""
    fooled = torch.stack([-logits.float().mean() for logits, _ in made]).mean()
    matched = [
        F.l1_loss(b.float(), a.float()) / a.float().abs().mean().clamp(min=1e-3)
        for (_, seen), (_, saw) in zip(real, made, strict=True)
        for a, b in zip(seen, saw, strict=True)
    ]
    return fooled, torch.stack(matched).mean()
