"""How a sender learns what is lost: the receiver's smoothed loss rate, a byte, some time later.

The byte rides in the packets of the other direction (docs/wire-format.md). A simulation has no other direction:
here its content, its steps of half a percent and its delay are simulated, and its bits are counted.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from semaphone.channel.erasure import ErasureChannel
from semaphone.errors import InputError
from semaphone.packet.payload import REPORT_STEPS

Source = Literal["receiver", "oracle"]
EXPECTED = 0.1  # the loss rate before anything is known: a talk whose first words are lost does not come back
DOUBT = 8.0  # packets that count as so many lost before the first one is known


@dataclass(frozen=True)
class Feedback:
    """Where the loss rate comes from."""

    source: Source = "receiver"  # oracle: the sender knows the channel's loss rate of the moment, for experiments
    delay: float = 0.2  # s from when a packet came, or did not, until its sender acts on it: the way back and waiting
    memory: float = 2.0  # s that the receiver's smoothing looks back

    def __post_init__(self) -> None:
        if self.source not in ("receiver", "oracle"):
            raise InputError(f"The loss rate comes from the receiver or an oracle, not from {self.source!r}.")
        if not 0 <= self.delay <= 60 or not 0.1 <= self.memory <= 600:
            raise InputError("Feedback takes 0 to 60 s, and its smoothing looks back 0.1 to 600 s.")


@dataclass(frozen=True)
class LossEstimate:
    """A loss rate that forgets; `after` gives the next one."""

    lost: float = EXPECTED * DOUBT  # packets, older ones counting less
    all: float = DOUBT

    @property
    def rate(self) -> float:
        """In [0, 1], in the steps of a report."""
        return round(self.lost / self.all * REPORT_STEPS) / REPORT_STEPS

    def after(self, lost: bool, packets: float) -> LossEstimate:
        """With the next packet; `packets` is how many the memory holds."""
        keep = math.exp(-1.0 / packets)
        return LossEstimate(keep * self.lost + lost, keep * self.all + 1.0)


@dataclass
class Reports:
    """What a sender has been told, over one talk in which packets leave at `packet_rate` a second."""

    feedback: Feedback | None  # None: it is never told anything
    channel: ErasureChannel
    packet_rate: float
    _estimate: LossEstimate = field(default_factory=LossEstimate)
    _under_way: deque[tuple[float, float]] = field(default_factory=deque)  # when the sender knows it (s), loss rate
    _told: float = field(init=False)

    def __post_init__(self) -> None:
        self._told = 0.0 if self.feedback is None else EXPECTED

    @property
    def _oracle(self) -> bool:
        # A channel that loses tokens loses no packets that anybody could count.
        return self.feedback is not None and (self.feedback.source == "oracle" or self.channel.per == "token")

    def observe(self, time: float, lost: bool) -> None:
        """A packet that left at `time` (s) came, or did not."""
        if self.feedback is None or self._oracle:
            return
        self._estimate = self._estimate.after(lost, self.feedback.memory * self.packet_rate)
        self._under_way.append((time + self.feedback.delay, self._estimate.rate))

    def at(self, time: float) -> float:
        """The loss rate as the sender knows it at `time` (s, never decreasing)."""
        if self._oracle:
            return self.channel.loss_at(time)
        while self._under_way and self._under_way[0][0] <= time + 1e-9:
            self._told = self._under_way.popleft()[1]
        return self._told

    @property
    def bit_rate(self) -> float:
        """bit/s that reports take: a byte in every packet of the other direction, which has as many."""
        return 8 * self.packet_rate if self.feedback is not None and not self._oracle else 0.0
