"""What a recogniser hears in decoded speech: the distance of its features, a loss for the nano decoder."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from semaphone.training.compressor import whisper_input
from semaphone.training.whisper_weights import WhisperEncoder, decoder_metric, seen_error
from semaphone.translation.features import HOP, SILENCE, WINDOW, mel_filters

QUIET = 40  # frames of silence after a crop: Whisper expects speech to end


class HeardLoss(nn.Module):
    """Error of the rows of Whisper's encoder as its decoder sees them, relative to their variance."""

    taper: Tensor
    filters: Tensor
    metric: Tensor

    def __init__(self, variables: dict[str, NDArray[np.generic]]) -> None:
        """`variables` of a CTranslate2 Whisper model, as `read_variables` gives them."""
        super().__init__()
        self.encoder = WhisperEncoder(variables)
        self.register_buffer("metric", decoder_metric(variables).float())
        self.register_buffer("taper", torch.hann_window(WINDOW))
        self.register_buffer("filters", torch.from_numpy(mel_filters()))

    def forward(self, made: Tensor, truth: Tensor) -> Tensor:
        """Speech [B, T] against speech [B, T] at 16 kHz → scalar; gradients reach `made` alone."""
        with torch.no_grad():
            wanted = self.rows(truth)
        return self.error(self.rows(made), wanted)

    def error(self, rows: Tensor, wanted: Tensor) -> Tensor:
        """Rows [B, N, D] against rows [B, N, D] → scalar."""
        return seen_error(rows, wanted, self.metric)

    def rows(self, speech: Tensor) -> Tensor:
        """[B, T] → rows [B, T / 320, D] of the part that is speech."""
        with torch.autocast(speech.device.type, enabled=False):
            spectrum = torch.stft(speech.float(), WINDOW, HOP, window=self.taper, center=True, return_complex=True)
            power = spectrum.real.square() + spectrum.imag.square()
            mel = torch.log10((power.transpose(1, 2) @ self.filters.T).clamp(min=10**SILENCE))
        frames = mel.shape[1] // 2 * 2
        rows: Tensor = self.encoder(whisper_input(mel[:, :frames], QUIET))
        return rows[:, : frames // 2].float()
