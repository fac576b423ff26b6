"""Radio channels for complex symbols: y = h · x + n (LSSC-ST eq 3).

SNR is Es/N0 per complex symbol at the receiver, averaged over the fading: the sender keeps the mean power
of its symbols at 1, E|h|² = 1 and E|n|² = N0 = 10^(−SNR/10). Three kinds of fading:

    awgn      h = 1
    rayleigh  h is complex Gaussian: no line of sight
    rician    a constant line of sight with K times the power of the scattered rest

`coherence` is the number of consecutive symbols that share one h: 1 is fast fading (or ideal interleaving),
larger values are block fading. `pilots` known symbols are sent before each block when the receiver doesn't know
h; it then estimates h from them, and they count as symbols sent.

Example:
    >>> import numpy as np
    >>> channel = FadingChannel("rayleigh", snr_db=7.0)
    >>> received = channel(np.ones(4, np.complex64), np.random.default_rng(0))
    >>> received.symbols.shape, received.gains.shape
    ((4,), (4,))
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semaphone.errors import InputError

KINDS = ("awgn", "rayleigh", "rician")
LOWEST_SNR, HIGHEST_SNR = -40.0, 80.0  # dB; beyond these a setting is surely a slip


@dataclass(frozen=True)
class Received:
    """What a receiver has of a burst of symbols."""

    symbols: NDArray[np.complex64]  # y, the shape of what was sent
    gains: NDArray[np.complex64]  # h as the receiver knows it (exact, or estimated from pilots), same shape
    snr_db: float  # the mean SNR, which the receiver measures over a long time
    pilots: int  # pilot symbols that were sent beside the burst


@dataclass(frozen=True)
class FadingChannel:
    """A channel is a callable: `channel(symbols, generator) -> Received`."""

    kind: str = "awgn"  # one of KINDS
    snr_db: float = 10.0  # Es/N0 in dB, at most 80
    coherence: int = 1  # symbols that share one h; 1: fast fading
    k_factor: float = 4.0  # rician: power of the line of sight over that of the rest
    pilots: int = 0  # pilots a block; 0: the receiver knows h

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"The fading must be one of {', '.join(KINDS)}, not {self.kind!r}.")
        if not (math.isfinite(self.snr_db) and LOWEST_SNR <= self.snr_db <= HIGHEST_SNR):
            raise InputError(f"The SNR must be a number from {LOWEST_SNR:g} to {HIGHEST_SNR:g} dB, not {self.snr_db}.")
        if self.coherence < 1 or self.pilots < 0:
            raise InputError("The coherence must be at least 1 symbol, and the pilots cannot be fewer than 0.")
        if not (math.isfinite(self.k_factor) and self.k_factor >= 0):
            raise InputError(f"The Rician K-factor must be a number of at least 0, not {self.k_factor}.")
        if self.pilots and self.coherence == 1:
            raise InputError("Pilots need block fading: with a coherence of 1 each symbol has a gain of its own.")

    @property
    def noise_power(self) -> float:
        """N0, the variance of the complex noise."""
        return float(10.0 ** (-self.snr_db / 10.0))

    def gains(self, count: int, generator: np.random.Generator) -> NDArray[np.complex64]:
        """Draws h for `count` consecutive symbols; E|h|² = 1."""
        if self.kind == "awgn":
            return np.ones(count, np.complex64)
        blocks = -(-count // self.coherence)
        scattered = _complex_normal(blocks, generator)
        if self.kind == "rician":
            scattered = (math.sqrt(self.k_factor) + scattered) / math.sqrt(1.0 + self.k_factor)
        return np.repeat(scattered, self.coherence)[:count].astype(np.complex64)

    def __call__(self, symbols: NDArray[np.complex64], generator: np.random.Generator) -> Received:
        """Sends complex symbols of any shape, in C order, with a fresh h from the first symbol on."""
        flat = symbols.reshape(-1)
        h = self.gains(flat.size, generator)
        noise = _complex_normal(flat.size, generator) * math.sqrt(self.noise_power)
        known, pilots = self._known_gains(h, generator)
        y = (h * flat + noise).astype(np.complex64)
        return Received(y.reshape(symbols.shape), known.reshape(symbols.shape), self.snr_db, pilots)

    def _known_gains(
        self, h: NDArray[np.complex64], generator: np.random.Generator
    ) -> tuple[NDArray[np.complex64], int]:
        """h as the receiver knows it, and the pilots that this took."""
        if not self.pilots or not h.size:
            return h, 0
        blocks = -(-h.size // self.coherence)
        noise = _complex_normal(blocks, generator) * math.sqrt(self.noise_power / self.pilots)
        # The mean of the pilots is h plus noise; the least mean square estimate shrinks it towards the mean of h.
        mean = 0.0
        if self.kind == "awgn":
            mean = 1.0
        elif self.kind == "rician":
            mean = math.sqrt(self.k_factor / (1.0 + self.k_factor))
        spread = 1.0 - mean**2
        shrink = spread / (spread + self.noise_power / self.pilots)
        estimate = mean + shrink * (h[:: self.coherence] + noise - mean)
        known = np.repeat(estimate, self.coherence)[: h.size].astype(np.complex64)
        return known, blocks * self.pilots

    def capacity(self, draws: int = 20_000) -> float:
        """Bits a complex symbol that an ideal code carries: E[log2(1 + |h|² · SNR)], h known to the receiver.

        The expectation is taken over `draws` quantiles of |h|² (Rayleigh) or seeded draws (Rician).
        """
        snr = 1.0 / self.noise_power
        if self.kind == "awgn":
            return math.log2(1.0 + snr)
        if self.kind == "rayleigh":
            power = -np.log1p(-(np.arange(draws) + 0.5) / draws)
        else:
            whole = FadingChannel("rician", self.snr_db, 1, self.k_factor)
            power = np.abs(whole.gains(draws, np.random.default_rng(0))) ** 2
        return float(np.log2(1.0 + power * snr).mean())


def _complex_normal(count: int, generator: np.random.Generator) -> NDArray[np.complex128]:
    """Circular complex Gaussian draws of variance 1."""
    parts = generator.standard_normal((2, count)) * math.sqrt(0.5)
    draws: NDArray[np.complex128] = parts[0] + 1j * parts[1]
    return draws
