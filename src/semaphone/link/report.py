"""What a talk over the link cost and how it went: `LinkReport`, which is also the JSON of `--report`."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

HEADER_BYTES = 40  # IPv4 20, UDP 8, RTP 12


@dataclass(frozen=True)
class Quantiles:
    """Of a delay, in ms."""

    p50: float
    p99: float


@dataclass(frozen=True)
class LinkReport:
    """One talk. Rates are averages over its length, in bit/s."""

    codec: str
    codec_fingerprint: str
    controller: str
    schedule: str
    channel: str
    recovery: str
    seed: int
    seconds: float  # of speech
    token_bps: float  # tokens, copies included
    payload_bps: float  # tokens, table of contents and padding
    gross_bps: float  # the same with 40 bytes of IPv4, UDP and RTP headers a packet, and with the loss reports
    packets_sent: int
    packets_lost: int
    packets_bad: int  # arrived, but were no packets of this talk
    packet_loss_rate: float
    token_loss_rate: float  # of the tokens sent, those of which no copy arrived
    latency_ms: dict[str, Quantiles]  # by part (eqs 21-22), of a block; `total` is their sum
    real_time_factor: float  # computation by seconds of speech
    versions: dict[str, str] = field(default_factory=dict)
    feedback_bps: float = 0.0  # loss reports in the other direction
    chunk_loss_rate: float = 0.0  # of the chunks that sent anything, those of which nothing arrived in time

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def quantiles(values: Sequence[float]) -> Quantiles:
    """Median and 99th percentile of values in s, as ms."""
    if not values:
        return Quantiles(0.0, 0.0)
    p50, p99 = np.percentile(np.asarray(values) * 1000.0, [50, 99])
    return Quantiles(round(float(p50), 3), round(float(p99), 3))


def latency(context: float, lookahead: float, parts: dict[str, list[float]]) -> dict[str, Quantiles]:
    """Delay of a block by part: waiting for its speech, overlap-add, and the computation of each part (s)."""
    found = {
        "context": Quantiles(round(context * 1000, 3), round(context * 1000, 3)),
        "lookahead": Quantiles(round(lookahead * 1000, 3), round(lookahead * 1000, 3)),
    }
    for name, values in parts.items():
        found[name] = quantiles(values)
    blocks = min((len(values) for values in parts.values()), default=0)
    sums = [context + lookahead + sum(values[i] for values in parts.values()) for i in range(blocks)]
    found["total"] = quantiles(sums)
    return found


def versions() -> dict[str, str]:
    """Versions of what the figures depend on."""
    import torch

    from semaphone import __version__

    return {
        "semaphone": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__,
    }
