"""What the recovery model remembers of its streams, and what a step of it gives."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from semaphone.codec.attention import Window, merge, select

# What the temporal transformer is told of a token of the past.
HEARD, GUESSED, ABSENT = 0, 1, 2


@dataclass(frozen=True)
class RQState:
    """What the model remembers of B streams; the batch is always the first dimension."""

    window: Window  # of the temporal transformer
    past: Tensor  # [B, N_Q] int64, tokens of the last time step; K: none
    heard: Tensor  # [B, N_Q] int64, HEARD, GUESSED or ABSENT
    text: Tensor  # [B] int64, text token of the last time step
    late: Late | None = None  # with an acoustic delay


@dataclass(frozen=True)
class Late:
    """What an acoustic delay adds to the state: a chunk whose acoustic tokens belong to the coming time step."""

    context: Tensor  # [B, width], A_n of the coming time step
    known: Tensor  # [B, N_Q] int64, the chunk's tokens as received; K: none
    wanted: Tensor  # [B, N_Q] bool, which of them are to be predicted
    semantic: Filled  # the chunk's first token, already decided


@dataclass(frozen=True)
class Filled:
    """The outcome of a depth pass over n codebooks of B streams."""

    ids: Tensor  # [B, n] int64; K: neither received nor predicted
    probability: Tensor  # [B, n], of each token under the model; 1 for received ones, 0 for absent ones
    logits: Tensor  # [B, n, K]; 0 where they were not needed

    def columns(self, first: int, last: int | None = None) -> Filled:
        """Some of the codebooks."""
        part = slice(first, last)
        return Filled(self.ids[:, part], self.probability[:, part], self.logits[:, part])

    def then(self, other: Filled) -> Filled:
        """These codebooks, then the other ones."""
        return Filled(
            torch.cat([self.ids, other.ids], 1),
            torch.cat([self.probability, other.probability], 1),
            torch.cat([self.logits, other.logits], 1),
        )


@dataclass(frozen=True)
class Step:
    """One chunk of B streams made whole."""

    tokens: Tensor  # [B, N_Q] int64; where nothing was received and nothing predicted: 0
    guessed: Tensor  # [B, N_Q] bool, the model's own tokens
    absent: Tensor  # [B, N_Q] bool, neither received nor predicted
    probability: Tensor  # [B, N_Q], of each guessed token under the model; 1 for received ones, 0 for absent ones
    logits: Tensor  # [B, N_Q, K]; 0 where they were not needed
    state: RQState


def filled(known: Tensor, wanted: Tensor, ids: Tensor, logits: Tensor) -> Filled:
    """With the probability of each token: known, wanted, ids [B, n], logits [B, n, K]."""
    chosen = ids.clamp(max=logits.shape[-1] - 1)[..., None]
    chance = (logits.gather(-1, chosen)[..., 0] - logits.logsumexp(-1)).exp()
    received = (known < logits.shape[-1]).float()
    return Filled(ids, torch.where(wanted, chance, received), logits)


def merge_states(streams: Tensor, new: RQState, old: RQState) -> RQState:
    """The state of `new` for some streams ([B] bool), of `old` for the others."""

    def both(a: Tensor, b: Tensor) -> Tensor:
        return select(streams, a, b)

    late = None
    if new.late is not None and old.late is not None:
        a, b = new.late, old.late
        semantic = Filled(
            both(a.semantic.ids, b.semantic.ids),
            both(a.semantic.probability, b.semantic.probability),
            both(a.semantic.logits, b.semantic.logits),
        )
        late = Late(both(a.context, b.context), both(a.known, b.known), both(a.wanted, b.wanted), semantic)
    return RQState(
        merge(streams, new.window, old.window),
        both(new.past, old.past),
        both(new.heard, old.heard),
        both(new.text, old.text),
        late,
    )
