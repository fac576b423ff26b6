"""How much of a guessed token to believe: the share of its entry that is to be expected.

A token is a point in the codec's space of latents, and a model that is not sure of it spreads its bets. Of all
multiples of the chosen entry e the one nearest to the true entry on average is w e with

    w = ⟨e, Σ_i p_i e_i⟩ / |e|²

(least mean squares). Bets on entries that are alike add up, so a vowel that is nearly right counts in full; bets on
entries that lie everywhere cancel, and a codebook that nobody can guess stays out of the sum.
"""

from __future__ import annotations

import torch
from torch import Tensor


def expected_share(logits: Tensor, tokens: Tensor, guessed: Tensor, points: Tensor, sharpness: float = 1.0) -> Tensor:
    """w of guessed tokens, in [0, 1], and 1 for the others: [B, N_Q].

    logits [B, N_Q, K], tokens and guessed (bool) [B, N_Q], points [N_Q, K, C] the codec's entries; `sharpness`
    multiplies the logits first: above 1 the model seems surer than it is.
    """
    share = torch.ones(tokens.shape, device=tokens.device)
    for k in guessed.any(0).nonzero()[:, 0].tolist():
        rows = guessed[:, k].nonzero()[:, 0]
        chosen = points[k, tokens[rows, k]]
        mean = torch.softmax(sharpness * logits[rows, k].float(), -1) @ points[k]
        part = (mean * chosen).sum(-1) / chosen.square().sum(-1).clamp(min=1e-9)
        share[rows, k] = part.clamp(0.0, 1.0)
    return share
