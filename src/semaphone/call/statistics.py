"""What the network did to a stream: loss rate, bursts, r = P(second lost | first lost), jitter.

Bursts and gaps are those of RFC 3611 §4.7.2: a burst is a stretch between lost packets with fewer than Gmin
received ones in a row, a gap is everything between bursts. A single lost packet with Gmin received ones on
either side belongs to a gap.
"""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass, field

from semaphone.link.feedback import LossEstimate

GMIN = 16
MEMORY = 25.0  # packets that the rate for the sender looks back on: two seconds
WINDOW = 128  # packets that the rates of the moment look back on: ten seconds of 12.5 packets/s


@dataclass(frozen=True)
class LossReport:
    """Rates lie in [0, 1]."""

    packets: int  # that should have come
    lost: int  # of them, those that did not come in time
    loss_rate: float  # over the last WINDOW packets
    mean_burst: float  # packets in a run of losses, over the window; 0 if nothing was lost
    conditional: float  # r, over the window; 0 if nothing was lost
    burst_density: float  # share of packets lost within bursts (RFC 3611), over the whole stream
    gap_density: float
    burst_packets: float  # mean length of a burst
    gap_packets: float  # and of a gap


@dataclass
class LossStatistics:
    """Counts packet by packet, in the order in which they were sent. Memory does not grow."""

    packets: int = 0
    lost: int = 0
    recent: deque[bool] = field(default_factory=lambda: deque(maxlen=WINDOW))
    estimate: LossEstimate = field(default_factory=LossEstimate)  # what the sender is told, so that it can react
    _since_loss: int = 0  # packets received since the last loss
    _open: list[int] = field(default_factory=lambda: [0, 0])  # of the stretch that may become a burst: packets, lost
    _bursts: int = 0
    _in_bursts: list[int] = field(default_factory=lambda: [0, 0])
    _in_gaps: list[int] = field(default_factory=lambda: [0, 0])

    def add(self, lost: bool) -> None:
        """The next packet."""
        self.packets += 1
        self.lost += lost
        self.recent.append(lost)
        self.estimate = self.estimate.after(lost, MEMORY)
        if lost:
            if self._open[1]:
                self._open[0] += self._since_loss
            self._open[0] += 1
            self._open[1] += 1
            self._since_loss = 0
            return
        self._since_loss += 1
        if not self._open[1]:
            self._in_gaps[0] += 1
        elif self._since_loss == GMIN:
            self._close()
            self._in_gaps[0] += GMIN

    def _close(self) -> None:
        """GMIN packets have come in a row: what was open is a burst if it had more than one loss."""
        target = self._in_bursts if self._open[1] > 1 else self._in_gaps
        self._bursts += self._open[1] > 1
        target[0] += self._open[0]
        target[1] += self._open[1]
        self._open = [0, 0]

    def report(self) -> LossReport:
        """The figures so far."""
        recent = list(self.recent)
        pairs = sum(recent[:-1])
        both = sum(a and b for a, b in itertools.pairwise(recent))
        runs = sum(b and not a for a, b in zip([False, *recent], recent, strict=False))
        bursts, burst, gap = self._bursts, list(self._in_bursts), list(self._in_gaps)
        if self._open[1] > 1:  # the burst that has not ended
            bursts, burst = bursts + 1, [burst[0] + self._open[0], burst[1] + self._open[1]]
        elif self._open[1]:
            gap = [gap[0] + 1, gap[1] + 1]
        return LossReport(
            self.packets,
            self.lost,
            sum(recent) / len(recent) if recent else 0.0,
            sum(recent) / runs if runs else 0.0,
            both / pairs if pairs else 0.0,
            burst[1] / burst[0] if burst[0] else 0.0,
            gap[1] / gap[0] if gap[0] else 0.0,
            burst[0] / bursts if bursts else 0.0,
            gap[0] / (bursts + 1),
        )


@dataclass
class InterarrivalJitter:
    """The estimate of RFC 3550 §6.4.1 and A.8, in s."""

    jitter: float = 0.0
    _transit: float | None = None

    def add(self, transit: float) -> None:
        """Arrival minus timestamp of the next packet, in s on any clock."""
        if self._transit is not None:
            self.jitter += (abs(transit - self._transit) - self.jitter) / 16
        self._transit = transit
