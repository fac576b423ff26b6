"""Recovery without a model: `none` leaves a lost token out of the sum, `hold` repeats the last one.

Both are what a language model is to be compared with, and what a receiver falls back on.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from semaphone.recovery.base import Recovered, TokenStatus

FADE = 0.7  # a held token counts this much less with each chunk it is held
QUIET_AFTER = 2  # chunks lost wholly, in a row, before the loudness falls
QUIETER = 0.5  # by this factor a chunk


class LossState(NamedTuple):
    """How long nothing at all has come, by stream."""

    missing: Tensor  # [B] chunks in a row without a single token


def loudness(status: Tensor, state: LossState | None) -> tuple[Tensor, LossState]:
    """Gain [B] of a chunk with status [B, N_Q]: full, but fading once several chunks were lost wholly.

    A chunk whose tokens were all left out by the sender is silence, not loss: it does not count.
    """
    before = state.missing if state is not None else torch.zeros(len(status), dtype=torch.long)
    gone = ((status == TokenStatus.LOST) | (status == TokenStatus.UNKNOWN)).any(1)
    here = (status == TokenStatus.RECEIVED).any(1)
    missing = torch.where(gone & ~here, before + 1, torch.zeros_like(before))
    return QUIETER ** (missing - QUIET_AFTER).clamp(min=0).float(), LossState(missing)


class NoRecovery:
    """Lost tokens add nothing to the sum of eq 3."""

    def step(
        self, tokens: Tensor, status: Tensor, state: Any, *, coming: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Recovered, Any]:
        """See `Recovery.step`."""
        gain, state = loudness(status, state)
        received = status == TokenStatus.RECEIVED
        return Recovered(torch.where(received, tokens, 0), received.float(), gain), state


class HoldState(NamedTuple):
    """The last token of each codebook and how much it still counts."""

    tokens: Tensor  # [B, N_Q]
    weight: Tensor  # [B, N_Q]
    loss: LossState


class HoldRecovery:
    """The last received token of that codebook, counting less from chunk to chunk.

    Tokens that the sender left out are not held: what it did not find worth sending adds nothing. A chunk of
    which it left out everything, between others, is held as a whole.
    """

    def step(
        self,
        tokens: Tensor,
        status: Tensor,
        state: HoldState | None,
        *,
        coming: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Recovered, HoldState]:
        """See `Recovery.step`."""
        gain, loss = loudness(status, state.loss if state is not None else None)
        held = state if state is not None else HoldState(torch.zeros_like(tokens), torch.zeros(tokens.shape), loss)
        received, unsent = status == TokenStatus.RECEIVED, status == TokenStatus.UNSENT
        kept = torch.where(received, tokens, held.tokens)
        weight = torch.where(received, torch.ones_like(held.weight), held.weight * FADE)
        weight = torch.where(unsent & ~unsent.all(1, keepdim=True), torch.zeros_like(weight), weight)
        return Recovered(kept, weight, gain), HoldState(kept, weight, loss)
