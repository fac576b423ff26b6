"""What enters the codec's sum for a guessed token: the entry that is to be expected.

A token is a point in the codec's space of latents, and a model that is not sure of it spreads its bets. Nearest to
the true entry on average is not the likeliest one but the mean of all of them,

    ē = Σ_i p_i e_i

(least mean squares). Bets on entries that are alike add up, so a vowel that is nearly right counts in full; bets on
entries that lie everywhere cancel, and a codebook that nobody can guess stays out of the sum.
"""

from __future__ import annotations

import torch
from torch import Tensor


def expected_entries(logits: Tensor, guessed: Tensor, points: Tensor, sharpness: float = 1.0) -> Tensor:
    """ē of guessed tokens and 0 for the others: [B, N_Q, C].

    logits [B, N_Q, K], guessed [B, N_Q] (bool), points [N_Q, K, C] the codec's entries; `sharpness` multiplies the
    logits first: above 1 the model seems surer than it is.
    """
    mean = torch.zeros(*guessed.shape, points.shape[-1], device=logits.device)
    for k in guessed.any(0).nonzero()[:, 0].tolist():
        rows = guessed[:, k].nonzero()[:, 0]
        mean[rows, k] = torch.softmax(sharpness * logits[rows, k].float(), -1) @ points[k]
    return mean
