"""Batches for training the codec: crops of a corpus, drawn and changed on the device that trains.

    store = Store(corpus, torch.device("cpu"))
    batch = draw(store, CodecTraining(), weights, np.random.default_rng(1))

Everything random comes from the generator that is handed in, so a batch depends on the seed and not on the device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from semaphone.training.data import CHUNK, HOP, Corpus
from semaphone.training.sources import SAMPLE_RATE

EARLY = 2  # chunks of silence before a recording that a crop may begin in, so that beginnings are learnt
MU = 255.0  # of µ-law (ITU-T G.711)


class Crops(Protocol):
    """What of a training's settings says how crops are drawn."""

    @property
    def batch(self) -> int: ...
    @property
    def crop(self) -> int: ...
    @property
    def gain_db(self) -> tuple[float, float]: ...
    @property
    def equaliser_db(self) -> float: ...
    @property
    def telephone(self) -> float: ...


@dataclass
class Batch:
    """Crops for one step."""

    speech: Tensor  # [B, crop * 1280]
    f0: Tensor  # [B, crop * 8] Hz, 0 where unvoiced
    features: Tensor | None  # [B, crop, 512]


class Store:
    """The arrays of a corpus as tensors on one device. On a CPU they stay mapped files."""

    def __init__(self, corpus: Corpus, device: torch.device) -> None:
        self.device = device
        self.audio = torch.from_numpy(corpus.audio).to(device)  # [samples] int16
        self.f0 = torch.from_numpy(corpus.f0).to(device)  # [samples / 160] float16
        semantic = corpus.semantic
        self.semantic = None if semantic is None else torch.from_numpy(semantic).to(device)  # [samples / 1280, 512]
        self.starts = np.array([r.start for r in corpus.recordings])  # in samples, multiples of a chunk
        self.lengths = np.array([r.length for r in corpus.recordings])

    def cut(self, values: Tensor, step: int, chosen: NDArray[np.int64], first: NDArray[np.int64], crop: int) -> Tensor:
        """Pieces of one array, zero where a piece reaches beyond its recording.

        Args:
            values: one of the arrays, one entry for each `step` samples.
            step: samples an entry.
            chosen: recordings [B].
            first: chunk in each recording where the piece begins [B]; may be negative.
            crop: chunks of a piece.

        Returns:
            [B, crop * 1280 / step, ...]
        """
        at = torch.from_numpy(first * (CHUNK // step)).to(self.device)[:, None]
        inside = at + torch.arange(crop * CHUNK // step, device=self.device)
        start = torch.from_numpy(self.starts[chosen] // step).to(self.device)[:, None]
        length = torch.from_numpy(self.lengths[chosen] // step).to(self.device)[:, None]
        known = (inside >= 0) & (inside < length)
        pieces = values[(start + inside).clamp(0, len(values) - 1)].float()
        return pieces * known.reshape(*known.shape, *[1] * (pieces.ndim - 2))


def draw(store: Store, c: Crops, weights: NDArray[np.float64], rng: np.random.Generator) -> Batch:
    """A random batch: recordings by weight, position at random on the chunk grid, level and tone changed."""
    chosen = rng.choice(len(weights), c.batch, p=weights)
    latest = np.maximum(store.lengths[chosen] // CHUNK - c.crop, 0)
    first = rng.integers(-EARLY, latest + 1)
    speech = store.cut(store.audio, 1, chosen, first, c.crop)
    f0 = store.cut(store.f0, HOP, chosen, first, c.crop)
    features = None if store.semantic is None else store.cut(store.semantic, CHUNK, chosen, first, c.crop)
    gain = 10.0 ** (rng.uniform(*c.gain_db, size=(c.batch, 1)).astype(np.float32) / 20.0)
    x = tilt(speech * torch.from_numpy(gain / 32768.0).to(store.device), rng, c.equaliser_db)
    if c.telephone > 0:
        x = telephone(x, rng, c.telephone)
    x = x / x.abs().amax(1, keepdim=True).clamp(min=1.0)
    return Batch(x, f0, features)


def tilt(x: Tensor, rng: np.random.Generator, most_db: float) -> Tensor:
    """Half of the signals [B, T] through a first-order shelf of up to ± `most_db`."""
    amount = torch.from_numpy(rng.uniform(-most_db, most_db, len(x)) * (rng.random(len(x)) < 0.5)).float()
    lift = 10.0 ** (amount.to(x.device) / 20.0) - 1.0
    frequency = torch.linspace(0, 1, x.shape[1] // 2 + 1, device=x.device)
    tilted: Tensor = torch.fft.irfft(torch.fft.rfft(x) * (1.0 + lift[:, None] * frequency.sqrt()), x.shape[1])
    return tilted


def telephone(x: Tensor, rng: np.random.Generator, share: float) -> Tensor:
    """A share of the signals [B, T] as a telephone brings them: 300 to 3400 Hz, half of them through 8-bit µ-law.

    The edges of the band move by some hundred hertz from signal to signal.
    """
    count = len(x)
    low = torch.from_numpy(rng.uniform(150.0, 400.0, count)).float().to(x.device)[:, None]
    high = torch.from_numpy(rng.uniform(3000.0, 3900.0, count)).float().to(x.device)[:, None]
    chosen = torch.from_numpy(rng.random(count) < share).to(x.device)[:, None]
    coded = torch.from_numpy(rng.random(count) < 0.5).to(x.device)[:, None]
    frequency = torch.linspace(0, SAMPLE_RATE / 2, x.shape[1] // 2 + 1, device=x.device)
    band = torch.sigmoid((frequency - low) / 20.0) * torch.sigmoid((high - frequency) / 40.0)

    def limited(signal: Tensor) -> Tensor:
        through: Tensor = torch.fft.irfft(torch.fft.rfft(signal) * band, signal.shape[1])
        return through

    narrow = limited(x)
    narrow = torch.where(coded, limited(mu_law(narrow)), narrow)
    return torch.where(chosen, narrow, x)


def mu_law(x: Tensor) -> Tensor:
    """Speech through the 256 steps of µ-law (ITU-T G.711, continuous form) and back; beyond ±1 it is cut off."""
    level = torch.log1p(MU * x.abs().clamp(max=1.0)) / np.log1p(MU)
    steps = torch.round(level * 127.0) / 127.0
    return x.sign() * torch.expm1(steps * float(np.log1p(MU))) / MU
