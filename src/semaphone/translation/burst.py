"""A burst of rows as one: cosine transform over time, powers by water-filling, spreading, linear estimate.

Rows 20 ms apart resemble each other, so a block of n rows is turned along time, too: the discrete cosine transform
takes components [n, D] to n · D coefficients of which few are strong. How strong follows from the components'
autocorrelation, for every n. Power goes to coefficients as minimises the mean squared error over a channel without
fading at this SNR; the weakest get none.

    powers      p_i = max(0, μ · sqrt(w_i · σ²) − σ²), Σ p_i = P / 2       σ²: noise of a real part, P: real parts
    spreading   the strongest G coefficients open G groups, the next G join them (in turned order), and so on; the
                coefficients of a group are spread over its S real parts by orthonormal sequences. The parts of a
                group lie far apart, so that no coefficient hangs on a single fade.
    estimate    u = (I + AᵀA / σ²)⁻¹ Aᵀ y / σ² in each group, A: spreading times gains times |h|

Of unequal numbers of parts and coefficients the smaller decides: coefficients beyond the parts are not sent, parts
beyond the coefficients carry longer sequences.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LONGEST_SEQUENCE = 16  # real parts that a coefficient is spread over, at most


def blocks_of(rows: int, longest: int) -> list[int]:
    """Rows of a burst in blocks of nearly equal size, none longer than `longest`."""
    count = max(1, math.ceil(rows / longest))
    return [rows // count + (k < rows % count) for k in range(count)]


@functools.lru_cache(maxsize=256)
def _cosines(n: int) -> NDArray[np.float64]:
    from scipy.fft import dct

    basis: NDArray[np.float64] = dct(np.eye(n), axis=0, norm="ortho")
    return basis


@functools.lru_cache(maxsize=256)
def _lags(n: int) -> NDArray[np.float32]:
    """[n, n]: what the autocorrelation at each lag adds to the variance of each coefficient."""
    basis = _cosines(n)
    shares = [(basis[:, : n - lag] * basis[:, lag:]).sum(1) * (2.0 if lag else 1.0) for lag in range(n)]
    return np.stack(shares, 1).astype(np.float32)


def cosines(n: int) -> Tensor:
    """The orthonormal cosine transform (DCT-II) [n, n]: coefficients = cosines(n) @ rows."""
    return torch.from_numpy(_cosines(n)).float()


def spectrum(memory: Tensor, n: int) -> Tensor:
    """Autocorrelations at lags 0, 1, ... [L, D], n ≤ L → variances of the n · D coefficients [n, D]."""
    return (torch.from_numpy(_lags(n)) @ memory[:n]).clamp_min(1e-4)


def powers(weights: Tensor, total: Tensor, noise: Tensor) -> Tensor:
    """The powers [B, M] that minimise Σ w · σ² / (σ² + p), their sum being `total` [B].

    Weights [M] descend and are positive; `noise` [B] is σ².
    """
    root = (weights.double()[None] * noise.double()[:, None]).sqrt()
    count = torch.arange(1, len(weights) + 1, dtype=torch.float64)[None]
    level = (total.double()[:, None] + count * noise.double()[:, None]) / root.cumsum(1)
    active = (level * root > noise.double()[:, None]).sum(1, keepdim=True).clamp_min(1)
    level = level.gather(1, active - 1)
    return (level * root - noise.double()[:, None]).clamp_min(0.0).float()


@dataclass(frozen=True)
class Plan:
    """How the coefficients of a block travel; the same on both sides, from n, SNRs and what is known of the rows."""

    order: Tensor  # [M]: coefficients by weight, those that are sent
    deviation: Tensor  # [n, D] of the coefficients
    gains: Tensor  # [B, G, R] of the coefficients of each group, 0 where there is none
    place: Tensor  # [M]: group and place in it, as an index of G · R
    sequences: Tensor  # [G, R, S], orthonormal along S


def plan(variance: Tensor, memory: Tensor, n: int, symbols: int, snr_db: Tensor) -> Plan:
    """For n rows whose components have weights `variance` [D] and autocorrelations `memory` [L, D], at SNRs [B]."""
    strength = spectrum(memory, n)
    weights = (strength * variance).flatten()
    parts = 2 * symbols * n
    order = weights.argsort(descending=True, stable=True)[:parts]
    power = powers(weights[order], torch.full_like(snr_db, parts / 2.0), noise_of(snr_db))
    used = int((power > 0).sum(1).max())
    order, power = order[:used], power[:, :used]
    size = _sequence_length(2 * symbols)
    groups = parts // size
    deep = math.ceil(used / groups)
    rank = torch.arange(used)
    turn, at = rank // groups, rank % groups
    group = torch.where(turn % 2 == 0, at, groups - 1 - at)
    place = group * deep + turn
    gains = torch.zeros(len(snr_db), groups * deep).index_copy_(1, place, power.sqrt())
    sequences = torch.from_numpy(_sequences(groups, size))[:, :deep]
    return Plan(order, strength.sqrt(), gains.view(-1, groups, deep), place, sequences)


def noise_of(snr_db: Tensor) -> Tensor:
    """σ² of a real part at an SNR per complex symbol."""
    return 10.0 ** (-snr_db / 10.0) / 2.0


def _sequence_length(parts: int) -> int:
    """The longest that divides a row's real parts."""
    return max(size for size in range(1, LONGEST_SEQUENCE + 1) if parts % size == 0)


@functools.lru_cache(maxsize=64)
def _sequences(groups: int, size: int) -> NDArray[np.float32]:
    """Cosines with signs drawn for each group [G, S, S]."""
    signs = np.random.default_rng(groups).integers(0, 2, (groups, 1, size)) * 2.0 - 1.0
    return (_cosines(size) * signs).astype(np.float32)


def spread(components: Tensor, way: Plan) -> Tensor:
    """Components [B, n, D] → real parts [B, P] of mean power 1/2."""
    batch, n, _ = components.shape
    coefficients = (cosines(n) @ components / way.deviation).flatten(1)
    _, groups, deep = way.gains.shape
    slots = torch.zeros(batch, groups * deep, dtype=coefficients.dtype)
    slots = slots.index_copy(1, way.place, coefficients[:, way.order]).view(batch, groups, deep)
    sent = torch.einsum("bgr,grs->bgs", slots * way.gains, way.sequences)
    return sent.transpose(1, 2).flatten(1)


def gather(received: Tensor, amplitude: Tensor, noise: Tensor, way: Plan) -> tuple[Tensor, Tensor]:
    """Real parts [B, P] with their phases turned back, |h| times the sender's scale [B, P], σ² [B] → estimates.

    Returned are components [B, n, D] and, for each of them, the share of its variance that is known [B, 1, D].
    """
    batch, groups, deep = way.gains.shape
    n, width = way.deviation.shape
    y, a = (x.view(batch, -1, groups).transpose(1, 2) for x in (received, amplitude))
    mixing = a[..., None] * way.sequences.transpose(1, 2) * way.gains[:, :, None, :]  # [B, G, S, R]
    mixing = mixing / noise.sqrt()[:, None, None, None]
    matched = (mixing * (y / noise.sqrt()[:, None, None])[..., None]).sum(2)
    inverse = torch.linalg.inv(torch.eye(deep) + mixing.transpose(2, 3) @ mixing)
    estimate = (inverse @ matched[..., None])[..., 0].flatten(1)[:, way.place]
    known = 1.0 - inverse.diagonal(dim1=2, dim2=3).flatten(1)[:, way.place]
    coefficients = torch.zeros(batch, n * width).index_copy(1, way.order, estimate)
    share = torch.zeros(batch, n * width).index_copy(1, way.order, known.clamp(0.0, 1.0))
    strength = way.deviation.square()
    quality = (share.view(batch, n, width) * strength).sum(1, keepdim=True) / strength.sum(0)
    return cosines(n).T @ (coefficients.view(batch, n, width) * way.deviation), quality
