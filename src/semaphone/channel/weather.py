"""Random processes behind a lossy channel: is what is sent at this position lost?

A position is a time in s, or the number of a packet or token. Weather belongs to the channel alone: all of
it follows from one 64-bit key, and asking often or seldom does not change it. So systems that send at
different packet rates meet the same bad moments.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from semaphone.errors import InputError

SLOT = 0.005  # s: packets that leave within one slot draw one after another, as numbers 0, 1, ... of the slot
_ROUNDING = 1e-6  # of a slot: 96 * 5 ms is slot 96, however the sum was rounded


def random_bits(key: int, stream: int) -> np.random.Generator:
    """A generator of its own for each stream of a key."""
    return np.random.Generator(np.random.Philox(key=[key, stream]))


class Weather(Protocol):
    """One realisation of a channel. Positions must not decrease from call to call."""

    def lost(self, position: float) -> bool: ...


class SlotDraws:
    """A uniform draw in [0, 1) for each packet, that depends on when it leaves and on nothing else.

    The draw is Philox at the counter (slot, number of the packet within the slot). Two systems whose packets
    leave in the same slot draw the same number, whatever they sent before; a loss probability only moves the
    threshold, so what is lost at 5 % is lost at 10 %, too.
    """

    def __init__(self, key: int, slot: float) -> None:
        self._key = key
        self._slot = slot
        self._current = -1
        self._number = 0

    def below(self, threshold: float, position: float) -> bool:
        """Is the draw of the next packet, which leaves at `position`, below the threshold?"""
        slot = math.floor(position / self._slot + _ROUNDING)
        self._number = self._number + 1 if slot == self._current else 0
        self._current = slot
        if threshold in (0.0, 1.0):
            return threshold == 1.0  # no need to look
        counter = (slot % 2**64) | (self._number << 64)
        bits = np.random.Philox(key=[self._key, 0], counter=counter).random_raw()
        return (int(bits) >> 11) * 2.0**-53 < threshold


class Independent:
    """Every packet is lost with the same probability, whatever happened to the others."""

    def __init__(self, loss: float, draws: SlotDraws) -> None:
        self._loss = loss
        self._draws = draws

    def lost(self, position: float) -> bool:
        return self._draws.below(self._loss, position)


class TwoState:
    """Gilbert-Elliott: a good and a bad state, in which packets are lost with probabilities of their own.

    The state is a two-state Markov chain: in continuous time with exponential sojourns, or (`discrete`) over
    whole numbers with geometric ones. It starts in its stationary distribution.
    """

    def __init__(
        self, sojourns: tuple[float, float], losses: tuple[float, float], key: int, draws: SlotDraws, discrete: bool
    ) -> None:
        self._sojourns = sojourns  # mean stay in the good and in the bad state; inf: for ever
        self._losses = losses
        self._draws = draws
        self._discrete = discrete
        self._bits = random_bits(key, 1)
        good, bad = sojourns
        share_bad = 1.0 if math.isinf(bad) else 0.0 if math.isinf(good) else bad / (good + bad)
        self._state = int(self._bits.random() < share_bad)
        self._until = self._sojourn()

    def _sojourn(self) -> float:
        mean = self._sojourns[self._state]
        if math.isinf(mean):
            return math.inf
        return float(self._bits.geometric(1.0 / mean)) if self._discrete else float(self._bits.exponential(mean))

    def lost(self, position: float) -> bool:
        while self._until <= position:
            self._state = 1 - self._state
            self._until += self._sojourn()
        return self._draws.below(self._losses[self._state], position)


class Recorded:
    """What happened on a real network: one flag a slot, from `start` on."""

    def __init__(self, losses: NDArray[np.bool_], slot: float, start: int, loop: bool, name: str) -> None:
        self._losses = losses
        self._slot = slot
        self._start = start
        self._loop = loop
        self._name = name

    def lost(self, position: float) -> bool:
        """Raises InputError after the end of a trace that does not loop."""
        index = self._start + math.floor(position / self._slot + _ROUNDING)
        if index >= len(self._losses) and not self._loop:
            raise InputError(f"The trace {self._name} ends before the talk does; add ,loop to start it over.")
        return bool(self._losses[index % len(self._losses)])


class Phases:
    """One weather after another; the last one stays."""

    def __init__(self, ends: Sequence[float], phases: Sequence[Weather]) -> None:
        self._ends = ends
        self._phases = phases

    def lost(self, position: float) -> bool:
        phase = sum(end <= position + _ROUNDING * SLOT for end in self._ends[:-1])
        return self._phases[phase].lost(position)
