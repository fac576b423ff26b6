"""What a call was like: delays by stage, rates, losses; `CallReport` is also the JSON of `--report`."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from dataclasses import asdict, dataclass, field
from typing import Any

from semaphone.link.report import Quantiles, quantiles

REMEMBERED = 8192  # blocks that a quantile looks back on: twenty minutes


@dataclass
class Delays:
    """Of each stage, in s. Memory does not grow with the call."""

    stages: dict[str, deque[float]] = field(default_factory=lambda: defaultdict(lambda: deque(maxlen=REMEMBERED)))

    def add(self, stage: str, seconds: float) -> None:
        """One block's."""
        self.stages[stage].append(seconds)

    def quantiles(self) -> dict[str, Quantiles]:
        """Median and 99th percentile of each stage, in ms."""
        return {stage: quantiles(list(values)) for stage, values in self.stages.items()}


@dataclass
class Traffic:
    """What went out or came in."""

    packets: int = 0  # of speech
    payload_bytes: int = 0
    wire_bytes: int = 0  # with RTP, SRTP, UDP and IPv4, reports and hellos included


@dataclass(frozen=True)
class CallReport:
    """One end's view of a call. Rates in bit/s, over the time since both ends met."""

    codec: str
    encrypted: bool
    seconds: float
    meetings: int  # how often the other end (re)started
    context_ms: float  # from a block's first sample to its last packet: what has to be spoken before
    lookahead_ms: float  # by which the codec's output lags behind
    sent_payload_bps: float
    sent_gross_bps: float
    received_payload_bps: float
    received_gross_bps: float
    packets_sent: int
    packets_received: int
    packets_expected: int  # that the other end has sent since both met, as far as it could say so
    loss_rate: float  # of them, those that did not come in time
    sent_loss_rate: float | None  # of ours, those that did not arrive, as the other end says; None: it said nothing
    unheard_seconds: float  # since the other end was heard last
    conditional_loss: float  # r = P(second lost | first lost), over the last packets
    mean_burst: float  # packets
    reported_loss_rate: float | None  # of the other direction
    blocks_played: int
    blocks_silent: int
    blocks_stretched: int
    too_late: int  # blocks that were not ready in time, and so lost their beginning
    skipped: int  # blocks that were not decoded, because all of their time had passed
    overruns: int  # blocks that were never encoded because the machine did not keep up
    jitter_ms: float
    round_trip_ms: float | None
    latency_ms: dict[str, Quantiles]  # mouth_to_ear trusts the clocks of both ends
    arrivals: dict[str, int]  # what became of the packets
    refused: dict[str, int]  # and what was not let in

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def counts(counter: Counter[Any]) -> dict[str, int]:
    """With names as keys."""
    return {str(getattr(key, "value", key)): number for key, number in sorted(counter.items(), key=lambda i: str(i[0]))}
