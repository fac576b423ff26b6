"""A controller without a model: a bit rate is spent on more codebooks or on copies, as the losses ask for.

With L transmissions a chunk, S codebooks go and C of them go twice, S + C = L. Of the two packets of a block both
arrive with 1 − 2p + p·r, exactly one with 2 (p − p·r), r = P(second lost | first lost). Then the tokens that go
twice are there, and every other one of the rest. A stage of the quantiser refines those before it, so what counts
is the unbroken beginning of the codebooks. The split is taken that lets most arrive. So a link that gets worse
first turns codebooks into copies. Where losses are so heavy that the link seems to be full, L falls, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from semaphone.controller.base import Demand, LinkLoss, Mask, silenced

if TYPE_CHECKING:
    from torch import Tensor

FIRST = 2.0  # worth of the first codebook, the semantic one, by that of the second
WORTH = 0.8  # of a later codebook, by that of the one before it: each stage leaves less of the error to the next
HEAVY = 0.3  # a loss rate beyond which sending less may help
BACK_OFF, RECOVER = 0.98, 1.005  # by which L changes with each chunk, in heavy loss and without it
LEAST = 0.5  # of L that is always sent


def best_split(transmissions: int, num_codebooks: int, loss_rate: float, conditional: float) -> Mask:
    """(S, C) with S + C = `transmissions` (as far as the codec has codebooks) that lets most arrive."""
    most = max(1, min(transmissions, 2 * num_codebooks))
    one = 2 * (loss_rate - loss_rate * conditional)
    both = max(1.0 - one - loss_rate * conditional, 0.0)
    best, found = -1.0, Mask(1, 0)
    for sent in range(min(most, num_codebooks), -(-most // 2) - 1, -1):
        copied = most - sent
        every_other = 0.5 * (_worth(copied + 1) - _worth(copied)) if copied < sent else 0.0
        value = both * _worth(sent) + one * (_worth(copied) + every_other)
        if value > best + 1e-12:
            best, found = value, Mask(sent, copied)
    return found


def best_history(transmissions: int, num_codebooks: int, packets: int, loss_rate: float, conditional: float) -> Mask:
    """Prefixes of a chunk in `packets` packets in a row, of `transmissions` tokens in all, that let most arrive.

    A packet is lost with p, and with r if the one before is lost. A token that rides in m packets is lost with
    p r^(m-1), and whatever arrives is an unbroken beginning, so each transmission goes where it helps most by itself.
    """
    rides = [0] * num_codebooks
    lost = [1.0, *(loss_rate * conditional**m for m in range(packets))]
    for _ in range(max(1, min(transmissions, num_codebooks * packets))):
        open_ones = (k for k in range(num_codebooks) if rides[k] < packets)
        best = max(open_ones, key=lambda k: (_worth_of(k) * (lost[rides[k]] - lost[rides[k] + 1]), -rides[k], -k))
        rides[best] += 1
    return Mask(*(sum(m > age for m in rides) for age in range(packets)))


def _worth_of(codebook: int) -> float:
    return _worth(codebook + 1) - _worth(codebook)


def _worth(codebooks: int) -> float:
    return FIRST + (1 - WORTH ** (codebooks - 1)) / (1 - WORTH) if codebooks else 0.0


@dataclass
class BudgetController:
    """Follows the reported losses."""

    transmissions: int  # L, a chunk, copies included
    num_codebooks: int  # N_Q

    def __post_init__(self) -> None:
        if self.transmissions < 1 or self.num_codebooks < 1:
            raise ValueError("at least one transmission a chunk and one codebook are needed")

    @property
    def most(self) -> int:
        """See `Controller.most`."""
        return min(self.transmissions, self.num_codebooks)

    name = "budget"

    def __str__(self) -> str:
        return f"{self.name}, {self.transmissions} transmissions"

    def step(
        self, latents: Tensor, losses: LinkLoss, state: Any, talking: Sequence[bool] | None = None
    ) -> tuple[list[Mask], Any]:
        """See `Controller.step`. The state is the share of L that is spent now."""
        demands, state = self.demands(latents, losses, state)
        return silenced([demand(self.transmissions) for demand in demands], talking), state

    def demands(self, latents: Tensor, losses: LinkLoss, state: Any) -> tuple[list[Demand], Any]:
        """See `Scalable.demands`; L is the number of transmissions, before heavy loss takes some of them away."""
        share = 1.0 if state is None else float(state)
        p = losses.rate
        r = p if losses.again is None else max(p, losses.again)
        found: list[Demand] = []
        for _ in range(latents.shape[1]):
            share = max(share * BACK_OFF, LEAST) if p > HEAVY else min(share * RECOVER, 1.0)
            found.append(partial(_split, share=share, num_codebooks=self.num_codebooks, loss_rate=p, r=r))
        return found, share


def _split(rate: float, *, share: float, num_codebooks: int, loss_rate: float, r: float) -> Mask:
    return best_split(round(min(rate, 2 * num_codebooks) * share), num_codebooks, loss_rate, r)
