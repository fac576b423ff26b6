"""How a sender learns what is lost: the receiver's smoothed loss rate, a byte, some time later.

The byte rides in the packets of the other direction (docs/wire-format.md). A simulation has no other direction:
here its content, its steps of half a percent and its delay are simulated, and its bits are counted. How often a
token's copy is lost with it, which RTCP tells in a call (RFC 3611), is known as late.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from semaphone.channel.erasure import ErasureChannel
from semaphone.controller.base import LinkLoss
from semaphone.errors import InputError
from semaphone.packet.payload import REPORT_STEPS

if TYPE_CHECKING:
    from semaphone.packet.format import PacketFormat

Source = Literal["receiver", "oracle"]
EXPECTED = 0.1  # the loss rate before anything is known: a talk whose first words are lost does not come back
DOUBT = 8.0  # packets that count as so many lost before the first one is known
PAIRS = 0.2  # of the memory of the loss rate's inverse: how bursts are changes more slowly than how many there are
SOMETIMES = tuple((i + 0.5) / 10 for i in range(10))  # of the way from p to 1, where r is if bursts often take both
ALWAYS = 0.98  # r, where bursts take whatever leaves within them


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


@dataclass(frozen=True)
class PairEstimate:
    """r = P(copy lost | token lost), over packets that carry both, forgetting; `after` gives the next one.

    Before anything is known losses are as likely independent as in bursts that always, or that sometimes, take both.
    Of pairs that lost anything at all r / (2 − r) lost both, so two or three of them tell which it is.
    """

    both: float = 0.0  # pairs of which both were lost, older ones counting less
    first: float = 0.0  # packets lost that have another one with their copies

    def rate(self, loss_rate: float) -> float:
        """In [p, 1]: the mean of what it may be, after what was seen."""
        between = [loss_rate + (1.0 - loss_rate) * share for share in SOMETIMES]
        cases = [(max(loss_rate, 0.01), 1.0), *((r, 1.0 / len(between)) for r in between), (ALWAYS, 1.0)]
        both, one = 0.5 * self.both, self.first - self.both
        odds = [prior * (r / (2 - r)) ** both * (2 * (1 - r) / (2 - r)) ** one for r, prior in cases]
        mean: float = sum(r * weight for (r, _), weight in zip(cases, odds, strict=True)) / sum(odds)
        return max(loss_rate, mean)

    def after(self, one: bool, other: bool, packets: float) -> PairEstimate:
        """With the next pair; `packets` is how many the memory holds."""
        keep = math.exp(-2.0 / packets)
        return PairEstimate(keep * self.both + 2.0 * (one and other), keep * self.first + one + other)


@dataclass
class Reports:
    """What a sender has been told, over one talk in packets of a format."""

    feedback: Feedback | None  # None: it is never told anything
    channel: ErasureChannel
    form: PacketFormat
    _estimate: LossEstimate = field(default_factory=LossEstimate)
    _pairs: PairEstimate = field(default_factory=PairEstimate)
    _seen: deque[tuple[int, bool]] = field(default_factory=lambda: deque(maxlen=16))  # numbers of packets, lost?
    _under_way: deque[tuple[float, LinkLoss]] = field(default_factory=deque)  # when the sender knows it (s), and what
    _told: LinkLoss = field(init=False)

    def __post_init__(self) -> None:
        self._told = LinkLoss(0.0) if self.feedback is None else LinkLoss(EXPECTED)

    @property
    def _oracle(self) -> bool:
        # A channel that loses tokens loses no packets that anybody could count.
        return self.feedback is not None and (self.feedback.source == "oracle" or self.channel.per == "token")

    def observe(self, sequence: int, time: float, lost: bool) -> None:
        """A packet that left at `time` (s) came, or did not."""
        if self.feedback is None or self._oracle:
            return
        packets = self.feedback.memory * self.form.packet_rate
        self._estimate = self._estimate.after(lost, packets)
        partner = dict(self._seen).get(self.form.partner_of(sequence))
        if partner is not None:
            self._pairs = self._pairs.after(partner, lost, packets / PAIRS)
        self._seen.append((sequence, lost))
        rate = self._estimate.rate
        copied = len(self.form.sequences_of(0)) > 1
        told = LinkLoss(rate, self._pairs.rate(rate) if copied else rate)
        self._under_way.append((time + self.feedback.delay, told))

    def at(self, time: float) -> LinkLoss:
        """What the sender knows at `time` (s, never decreasing)."""
        if self._oracle:
            rate, apart = self.channel.loss_at(time), self.form.copy_delay
            return LinkLoss(rate, max(rate, self.channel.conditional_loss(apart)))
        while self._under_way and self._under_way[0][0] <= time + 1e-9:
            self._told = self._under_way.popleft()[1]
        return self._told

    @property
    def bit_rate(self) -> float:
        """bit/s that reports take: a byte in every packet of the other direction, which has as many."""
        return 8 * self.form.packet_rate if self.feedback is not None and not self._oracle else 0.0
