"""Two honest rivals of the learned channel code, at the same number of symbols a row.

analogue   components of the rows (the same transform as the learned code's) are sent as they are, with powers in
           proportion to their deviations, and received by the linear least mean square estimator. This is what
           SoftCast does for video.
digital    an ideal code: as many bits a row as the channel's capacity carries at this SNR, spent on the
           components one bit after another where it lowers the error most, with the best scalar quantisers for
           Gaussian numbers. No real code is as good that takes rows one at a time; the quantisers are real.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from semaphone.channel.fading import FadingChannel, Received
from semaphone.translation.channel_code import ChannelCode, load_code
from semaphone.translation.radio import Rows, Signal

_MOST_BITS = 8  # of one component


class _Basis:
    def __init__(self, code: ChannelCode) -> None:
        self.mean = code.mean.numpy()
        self.forward = code.forward_basis.numpy()
        self.inverse = code.inverse_basis.numpy()
        self.variance = code.variance.numpy()
        self.symbols_per_row = code.config.symbols

    def components(self, rows: Rows) -> Rows:
        out: Rows = ((rows - self.mean) @ self.forward).astype(np.float32)
        return out

    def rows(self, components: Rows) -> Rows:
        out: Rows = (components @ self.inverse + self.mean).astype(np.float32)
        return out


class AnalogueCode:
    """Linear, with powers by deviation; see the module's text."""

    name = "analogue"

    def __init__(self, weights: str = "", code: ChannelCode | None = None) -> None:
        code = code or load_code(weights)
        self._basis = _Basis(code)
        self.row_width, self.symbols_per_row = code.config.row_width, code.config.symbols
        parts = 2 * self.symbols_per_row
        self._part_of = np.arange(parts) % len(self._basis.variance)
        power = np.sqrt(self._basis.variance.astype(np.float64))[self._part_of]
        self._gains = np.sqrt(power * (parts / 2.0) / power.sum()).astype(np.float32)

    def encode(self, rows: Rows, snr_db: float) -> Signal:
        """Rows [N, D] → symbols of mean power 1, whatever the SNR."""
        parts = self._basis.components(rows)[:, self._part_of] * self._gains
        symbols = np.ascontiguousarray(parts, np.float32).view(np.complex64)
        scale = 1.0 / float(np.sqrt(max(1e-12, np.mean(np.abs(symbols) ** 2)))) if symbols.size else 1.0
        return Signal((symbols * np.float32(scale)).astype(np.complex64), scale)

    def decode(self, received: Received, scale: float) -> Rows:
        """Linear least mean square estimate of every component."""
        gains = self._gains * np.float32(scale)
        noise = 10.0 ** (-received.snr_db / 10.0) / 2.0
        matched = (received.gains.conj() * received.symbols).astype(np.complex64).view(np.float32) * gains
        power = np.repeat(np.abs(received.gains) ** 2, 2, axis=-1) * gains**2
        total = np.zeros((len(matched), len(self._basis.variance)))
        strength = np.zeros_like(total)
        for i in range(0, len(self._part_of), len(self._basis.variance)):  # parts that repeat a component add up
            part = self._part_of[i : i + len(self._basis.variance)]
            total[:, part] += matched[:, i : i + len(part)]
            strength[:, part] += power[:, i : i + len(part)]
        return self._basis.rows((total / (strength + noise)).astype(np.float32))


@functools.lru_cache(maxsize=1)
def gaussian_quantisers() -> tuple[NDArray[np.float64], ...]:
    """Lloyd-Max levels for a Gaussian number of variance 1: entry b has 2^b ascending levels."""
    from scipy.special import ndtr, ndtri

    tables = [np.zeros(1)]
    for bits in range(1, _MOST_BITS + 1):
        count = 2**bits
        levels = ndtri((np.arange(count) + 0.5) / count) * 1.2
        for _ in range(4000 if bits > 5 else 1000):
            edges = np.concatenate([[-np.inf], (levels[1:] + levels[:-1]) / 2, [np.inf]])
            density = np.exp(-(edges**2) / 2) / np.sqrt(2 * np.pi)
            levels = (density[:-1] - density[1:]) / (ndtr(edges[1:]) - ndtr(edges[:-1]))
        tables.append(levels)
    return tuple(tables)


def _distortion(levels: NDArray[np.float64]) -> float:
    """Mean squared error of a Lloyd-Max quantiser on a Gaussian of variance 1."""
    from scipy.special import ndtr

    edges = np.concatenate([[-np.inf], (levels[1:] + levels[:-1]) / 2, [np.inf]])
    # The levels are centroids, so the error is the variance less theirs.
    return float(1.0 - np.sum(levels**2 * (ndtr(edges[1:]) - ndtr(edges[:-1]))))


def spend_bits(variance: NDArray[np.float32], bits: int) -> NDArray[np.int64]:
    """Bits for each component: every next bit goes where it lowers the error most."""
    import heapq

    error = [_distortion(levels) for levels in gaussian_quantisers()]
    given = np.zeros(len(variance), np.int64)
    gains = [(-float(v) * (error[0] - error[1]), i) for i, v in enumerate(variance)]
    heapq.heapify(gains)
    for _ in range(bits):
        if not gains:
            break
        _, i = heapq.heappop(gains)
        given[i] += 1
        if given[i] < _MOST_BITS:
            heapq.heappush(gains, (-float(variance[i]) * (error[given[i]] - error[given[i] + 1]), i))
    return given


class DigitalCode:
    """An ideal digital code over the same symbols; see the module's text."""

    name = "digital"

    def __init__(self, weights: str = "", code: ChannelCode | None = None) -> None:
        code = code or load_code(weights)
        self._basis = _Basis(code)
        self.row_width, self.symbols_per_row = code.config.row_width, code.config.symbols
        self._plans: dict[int, NDArray[np.int64]] = {}

    def bits_per_row(self, channel: FadingChannel) -> int:
        """What capacity leaves for one row; pilots take their share of the symbols."""
        data_share = channel.coherence / (channel.coherence + channel.pilots)
        return int(self.symbols_per_row * channel.capacity() * data_share)

    def carry(self, rows: Rows, channel: FadingChannel) -> tuple[Rows, int]:
        """Rows [N, D] → quantised rows, and the symbols that an ideal code needed for them."""
        bits = self.bits_per_row(channel)
        if bits not in self._plans:
            self._plans[bits] = spend_bits(self._basis.variance, bits)
        components = self._basis.components(rows)
        out = np.zeros_like(components)
        for count in range(1, _MOST_BITS + 1):
            chosen = np.flatnonzero(self._plans[bits] == count)
            levels = gaussian_quantisers()[count]
            index = np.searchsorted((levels[1:] + levels[:-1]) / 2, components[:, chosen])
            out[:, chosen] = levels[index]
        return self._basis.rows(out), len(rows) * self.symbols_per_row
