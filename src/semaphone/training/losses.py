"""What the codec's training compares: mel spectra at several resolutions, pitch, taught features."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semaphone.codec.features import mel_filters

# Mel magnitudes below it are as good as silence: noise 75 dB below full scale, in the 32 ms window.
FLOOR = 5e-3


class MelLoss(nn.Module):
    """L1 distance of log-mel spectra, averaged over window lengths from 8 to 128 ms."""

    def __init__(self, sample_rate: int, depth_db: float | None = None) -> None:
        """`depth_db`: how far below the loudest part of each signal a difference still counts (default: any depth)."""
        super().__init__()
        self.depth_db = depth_db
        self.resolutions = ((128, 12), (256, 24), (512, 48), (1024, 96), (2048, 128))  # window, bands
        for window, bands in self.resolutions:
            self.register_buffer(f"taper{window}", torch.hann_window(window), persistent=False)
            self.register_buffer(f"filters{window}", mel_filters(sample_rate, window, bands), persistent=False)

    def forward(self, made: Tensor, truth: Tensor) -> Tensor:
        """Speech [B, T] against speech [B, T] → scalar."""
        total = made.new_zeros(())
        for window, _ in self.resolutions:
            taper, filters = getattr(self, f"taper{window}"), getattr(self, f"filters{window}")

            def mel(x: Tensor, window: int = window, taper: Tensor = taper, filters: Tensor = filters) -> Tensor:
                spectrum = torch.stft(x, window, window // 4, window=taper, center=False, return_complex=True)
                # Magnitude with a floor, so that the gradient at silence stays finite.
                magnitude = (spectrum.real.square() + spectrum.imag.square() + 1e-9).sqrt()
                return magnitude.transpose(1, 2) @ filters

            said = mel(truth)
            least = self._least(said)
            total = total + F.l1_loss(torch.log10(mel(made).clamp(min=least)), torch.log10(said.clamp(min=least)))
        return total / len(self.resolutions)

    def _least(self, mel: Tensor) -> Tensor:
        """The magnitude below which everything is alike, of signals [B, T, bands]: [B, 1, 1]."""
        least = mel.new_full((len(mel), 1, 1), FLOOR)
        if self.depth_db is None:
            return least
        return torch.maximum(least, mel.amax((1, 2), keepdim=True) * 10 ** (-self.depth_db / 20))


def pitch_loss(log_f0: Tensor, voicing: Tensor, f0: Tensor) -> tuple[Tensor, Tensor]:
    """Predicted log F0 and voicing logit [B, T] against F0 in Hz (0: unvoiced) → (F0 loss, voicing loss)."""
    voiced = (f0 > 0).float()
    distance = (log_f0 - f0.clamp(min=50.0).log()).abs() * voiced
    return distance.sum() / voiced.sum().clamp(min=1.0), F.binary_cross_entropy_with_logits(4.0 * voicing, voiced)


def taught_loss(made: Tensor, features: Tensor) -> Tensor:
    """1 - cosine similarity of features [B, T, C], averaged over the chunks that have any (not all zero)."""
    known = (features.square().sum(-1) > 0).float()
    distance = 1.0 - F.cosine_similarity(made, features, dim=-1)
    return (distance * known).sum() / known.sum().clamp(min=1.0)
