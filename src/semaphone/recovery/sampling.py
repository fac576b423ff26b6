"""How a token is chosen from its logits: the likeliest one, or a seeded draw (LargeSC eq 17).

A draw depends on the seed, the time step and the codebook alone. So there is no hidden generator,
and a stream gives the same tokens whatever else is in its batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from semaphone.errors import InputError


@dataclass(frozen=True)
class Sampling:
    """Temperature 0 takes the likeliest token; otherwise softmax(logits / temperature) is drawn from."""

    temperature: float = 0.0  # 0: arg-max; 1: the model's own probabilities
    top_k: int = 0  # draw from the k likeliest tokens only; 0: all
    seed: int = 0  # of every draw

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise InputError(f"The sampling temperature is 0 or more, not {self.temperature}.")
        if self.top_k < 0:
            raise InputError(f"top_k is 0 (all tokens) or more, not {self.top_k}.")

    def choose(self, logits: Tensor, step: Tensor, codebook: int) -> Tensor:
        """Logits [B, K] at time steps [B] → tokens [B]."""
        if self.temperature == 0:
            return logits.argmax(-1)
        scaled = logits / self.temperature
        if 0 < self.top_k < logits.shape[-1]:
            least = scaled.topk(self.top_k, -1).values[:, -1:]
            scaled = scaled.masked_fill(scaled < least, float("-inf"))
        return (scaled + self._noise(logits, step, codebook)).argmax(-1)

    def _noise(self, logits: Tensor, step: Tensor, codebook: int) -> Tensor:
        """Gumbel noise, with which arg-max becomes a draw from the softmax."""
        rows = []
        for n in step.tolist():
            mixed = (self.seed * 0x9E3779B97F4A7C15 + n * 0xBF58476D1CE4E5B9 + codebook * 0x94D049BB133111EB) % 2**63
            generator = torch.Generator().manual_seed(mixed)
            rows.append(torch.rand(logits.shape[-1], generator=generator))
        uniform = torch.stack(rows).to(logits.device).clamp(1e-20, 1 - 1e-7)
        return -torch.log(-torch.log(uniform))
