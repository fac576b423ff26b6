"""Recovery: from the tokens that survived to all tokens (LargeSC eq 8), one chunk at a time, causally."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from semaphone.packet.status import TokenStatus as TokenStatus

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Recovered:
    """One chunk made whole, for a batch of B streams."""

    tokens: Tensor  # [B, N_Q] int64
    weight: Tensor  # [B, N_Q] in [0, 1]: how much of a token's embedding enters the decoder's sum
    gain: Tensor  # [B] in [0, 1]: loudness of the decoded chunk, so that long losses fade out
    entries: Tensor | None = None  # [B, N_Q, C], what enters that sum besides: of guesses that are not one token


class Recovery(Protocol):
    """Fills what was lost. `state` is `None` for a fresh stream."""

    def step(
        self, tokens: Tensor, status: Tensor, state: Any, *, coming: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Recovered, Any]:
        """Tokens [B, N_Q] and TokenStatus [B, N_Q] of one chunk → the recovered chunk and the next state.

        coming: the same of the next chunk, as far as it has arrived by now. Received tokens come out untouched with
        weight 1.
        """
        ...
