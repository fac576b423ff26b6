"""From importance to masks: the step function, its soft stand-in, and the straight-through estimator.

Everything here works on importance times rate, i = L · I, of any shape [...], and gives masks
[..., N_Q] over the codebooks j = 1 … N_Q.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def hard_mask(level: Tensor, num_codebooks: int) -> Tensor:
    """H^j(i): 1 where j <= i, else 0 (eqs 5-6). level [...] → [..., N_Q]."""
    j = torch.arange(1, num_codebooks + 1, device=level.device, dtype=level.dtype)
    return (j <= level[..., None]).to(level.dtype)


def soft_mask(level: Tensor, num_codebooks: int, sharpness: float) -> Tensor:
    """H_soft^j(i) of eq 11 with τ = `sharpness`. level [...] → [..., N_Q].

    The equation as printed, log(cosh τ(i − j) / cosh τ(−i + j + 1)), is centred on j = i − 1/2,
    where it equals 1/2; log cosh is computed without overflow.
    """
    j = torch.arange(1, num_codebooks + 1, device=level.device, dtype=level.dtype)
    distance = level[..., None] - j

    def log_cosh(x: Tensor) -> Tensor:
        return x.abs() + torch.nn.functional.softplus(-2.0 * x.abs()) - math.log(2.0)

    return (log_cosh(sharpness * distance) - log_cosh(sharpness * (1.0 - distance))) / (2.0 * sharpness) + 0.5


def straight_through(level: Tensor, num_codebooks: int, sharpness: float, ahead: float = 0.0) -> Tensor:
    """The hard mask forwards, the soft mask's gradient backwards (eq 13).

    As printed, eq 11 slopes for j < i < j + 1, where token j is sent already; below i = 1 nothing has a gradient, and
    a mask that is empty stays so. `ahead` = 1 lets i's gradient be that of the next token.
    """
    soft = soft_mask(level + ahead, num_codebooks, sharpness)
    return soft + (hard_mask(level, num_codebooks) - soft).detach()
