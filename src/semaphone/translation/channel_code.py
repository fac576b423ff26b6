"""Rows of features ⇄ complex symbols: the learned channel code (LSSC-ST eqs 2-4, 6, Table I) and its analogue basis.

Rows first become components: their mean is taken off, and a fixed linear transform (fitted to training rows) turns
them so that components are uncorrelated and sorted by how much they matter. "Matter" is measured as the decoder of
the speech model sees a row, through its key and value projections. The error of eq 6 is the mean squared error of
these components, weighted by their variance.

    linear part   component i is sent as one real part of a symbol, with a gain that depends on i and on the SNR;
                  the receiver's estimate of it is the linear least mean square one
    dense part    three dense layers on each side (Table I) add to both: on the sending side to the symbols, on the
                  receiving side to the estimates, from a few rows before and after as well: neighbouring rows
                  resemble each other, which the dense layers use against noise

`activation = "none"` and `linear = False` make Table I as printed, whose three encoder matrices are one matrix. The
last decoder layer is linear, for ReLU there would lose every sign. Each burst is sent with a mean power of 1 a
symbol. The receiver knows h (or its estimate) and the mean SNR; the sender knows the mean SNR only.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from semaphone.errors import InputError
from semaphone.files import write_whole

WEIGHTS_FILE = "channel-code-whisper-base.safetensors"
SNR_GRID = (-11.0, -5.0, 1.0, 7.0, 13.0, 19.0)  # dB; gains are interpolated between these


@dataclass(frozen=True)
class ChannelCodeConfig:
    """The shape of a code."""

    row_width: int = 512  # numbers in a row of features
    symbols: int = 256  # complex symbols a row
    hidden: int = 1024  # width of the dense layers (the paper: 2048)
    context: int = 2  # rows before and after that the decoder sees
    activation: str = "relu"  # between the encoder's layers: "relu", or "none" as Table I prints
    linear: bool = True  # the linear part beside the dense layers

    def __post_init__(self) -> None:
        if not 1 <= self.row_width <= 8192 or not 1 <= self.symbols <= 8192 or not 1 <= self.hidden <= 8192:
            raise InputError("Row width, symbols a row and hidden width must be 1 to 8192.")
        if not 0 <= self.context <= 16:
            raise InputError("The decoder sees 0 to 16 rows either side.")
        if self.activation not in ("relu", "none"):
            raise InputError(f"The encoder's activation is relu or none, not {self.activation!r}.")


@dataclass(frozen=True)
class Basis:
    """The fixed transform of rows to components of unit variance."""

    mean: Tensor  # [D]
    forward: Tensor  # [D, D]: components = (rows − mean) @ forward
    inverse: Tensor  # [D, D]: rows = components @ inverse + mean
    variance: Tensor  # [D], descending: weight of each component in the error; sums to 1


def fit_basis(rows: Tensor, metric: Tensor | None = None) -> Basis:
    """The Karhunen-Loève transform of rows [N, D] under a metric [D, D] (symmetric, positive; None: identity)."""
    width = rows.shape[1]
    mean = rows.double().mean(0)
    if metric is None:
        metric = torch.eye(width)
    scale, axes = torch.linalg.eigh(metric.double())
    root = axes * scale.clamp_min(1e-3 * float(scale.max())).sqrt() @ axes.T
    centred = (rows.double() - mean) @ root
    variance, turn = torch.linalg.eigh(centred.T @ centred / len(rows))
    variance, turn = variance.flip(0).clamp_min(1e-9), turn.flip(1)
    deviation = variance.sqrt()
    forward = root @ turn / deviation
    inverse = (turn * deviation).T @ torch.linalg.inv(root)
    return Basis(mean.float(), forward.float(), inverse.float(), (variance / variance.sum()).float())


def allocate(variance: Tensor, symbols: int, snr_db: float, wiener: bool = True) -> Tensor:
    """Gains [2 · symbols] of the real symbol parts for components of weights `variance` [D].

    Part j carries component j modulo D. With `wiener` the powers minimise the mean squared error at this SNR (AWGN);
    otherwise they are proportional to the deviation, whatever the SNR. Each real part has a mean power of 1/2.
    """
    parts = 2 * symbols
    index = torch.arange(parts) % len(variance)
    spread = variance.double()[index]
    if not wiener:
        power = spread.sqrt()
        return (power * (parts / 2.0) / power.sum()).sqrt().float()
    noise = 10.0 ** (-snr_db / 10.0) / 2.0
    low, high = 1e-9, 1e9  # bisection over the water level
    for _ in range(80):
        level = (low * high) ** 0.5
        power = (level * (spread * noise).sqrt() - noise).clamp_min(0.0)
        low, high = (level, high) if float(power.sum()) < parts / 2.0 else (low, level)
    return (power * (parts / 2.0) / power.sum()).sqrt().float()


def _dense(sizes: tuple[int, ...], between: type[nn.Module]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b), between()]
    return nn.Sequential(*layers[:-1])


class ChannelCode(nn.Module):
    """Encoder and decoder; rows are [B, N, D], symbols [B, N, symbols] complex64."""

    mean: Tensor
    forward_basis: Tensor
    inverse_basis: Tensor
    variance: Tensor
    part_of: Tensor

    def __init__(self, config: ChannelCodeConfig, basis: Basis | None = None) -> None:
        super().__init__()
        self.config = config
        width, parts = config.row_width, 2 * config.symbols
        basis = basis or Basis(torch.zeros(width), torch.eye(width), torch.eye(width), torch.full((width,), 1 / width))
        self.register_buffer("mean", basis.mean.clone())
        self.register_buffer("forward_basis", basis.forward.clone())
        self.register_buffer("inverse_basis", basis.inverse.clone())
        self.register_buffer("variance", basis.variance.clone())
        self.register_buffer("part_of", torch.arange(parts) % width, persistent=False)
        gains = torch.stack([allocate(basis.variance, config.symbols, snr) for snr in SNR_GRID])
        self.gains = nn.Parameter(gains) if config.linear else None
        between = nn.ReLU if config.activation == "relu" else nn.Identity
        self.encoder = _dense((width + 1, config.hidden, config.hidden, parts), between)
        seen = (2 * config.context + 1) * self._received_width + (width if config.linear else config.symbols) + 1
        self.decoder = _dense((seen, config.hidden, config.hidden, width), nn.ReLU)
        if config.linear:  # training starts at the analogue code
            for part in (self.encoder, self.decoder):
                for value in part[-1].parameters():
                    nn.init.zeros_(value)

    @property
    def _received_width(self) -> int:
        return self.config.row_width if self.config.linear else 2 * self.config.symbols

    def components(self, rows: Tensor) -> Tensor:
        """Rows [..., D] → components of unit variance [..., D]."""
        return (rows - self.mean) @ self.forward_basis

    def rows(self, components: Tensor) -> Tensor:
        """The inverse of `components`."""
        return components @ self.inverse_basis + self.mean

    def error(self, components: Tensor, truth: Tensor) -> Tensor:
        """Eq 6 per sequence [B]: the squared error weighted by variance; 1 is the error of sending nothing."""
        return ((components - truth) ** 2 @ self.variance).mean(-1)

    def _gains_at(self, snr_db: Tensor) -> Tensor:
        """Gains [B, 1, parts] at SNRs [B]."""
        assert self.gains is not None
        step = SNR_GRID[1] - SNR_GRID[0]
        place = ((snr_db - SNR_GRID[0]) / step).clamp(0.0, len(SNR_GRID) - 1.0)
        low = place.floor().long().clamp_max(len(SNR_GRID) - 2)
        share = (place - low)[:, None]
        return ((1 - share) * self.gains[low] + share * self.gains[low + 1])[:, None]

    def encode(self, rows: Tensor, snr_db: Tensor, dense: bool = True) -> tuple[Tensor, Tensor]:
        """Rows [B, N, D] at mean SNRs [B] → symbols [B, N, symbols] of mean power 1, and the scale [B] that did it.

        Without `dense` only the linear part is used.
        """
        c = self.components(rows)
        parts = torch.zeros(())
        if dense:
            known = (snr_db / 20.0)[:, None, None].expand(*c.shape[:2], 1)
            parts = self.encoder(torch.cat([c * self.variance.pow(0.25) * 4.0, known], -1))
        if self.gains is not None:
            parts = parts + self._gains_at(snr_db) * c[..., self.part_of]
        symbols = torch.view_as_complex(parts.float().reshape(*c.shape[:2], -1, 2))
        scale = symbols.abs().square().mean((1, 2)).clamp_min(1e-12).rsqrt()
        return symbols * scale[:, None, None], scale

    def decode(self, symbols: Tensor, gains: Tensor, snr_db: Tensor, scale: Tensor) -> Tensor:
        """What arrived [B, N, symbols], h as known, mean SNRs [B], the sender's scale [B] → rows [B, N, D]."""
        return self.rows(self.estimate(symbols, gains, snr_db, scale))

    def estimate(self, symbols: Tensor, gains: Tensor, snr_db: Tensor, scale: Tensor, dense: bool = True) -> Tensor:
        """As `decode`, but components instead of rows."""
        noise = (10.0 ** (-snr_db / 10.0))[:, None, None]
        power = gains.abs().square()
        if self.gains is None:
            equalised = torch.view_as_real(gains.conj() * symbols / (power + noise)).flatten(-2)
            return self._dense_part(equalised, power / (power + noise), snr_db)
        linear, quality = self._linear(symbols, gains, noise, snr_db, scale)
        if not dense:
            return linear
        weight = self.variance.pow(0.25) * 4.0
        return linear + self._dense_part(linear * weight, quality, snr_db) / weight

    def _linear(
        self, symbols: Tensor, gains: Tensor, noise: Tensor, snr_db: Tensor, scale: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Linear least mean square estimates [B, N, D] and how good they are, 0 (nothing known) to 1."""
        a = self._gains_at(snr_db) * scale[:, None, None]
        matched = torch.view_as_real(gains.conj() * symbols).flatten(-2) * a
        power = gains.abs().square().repeat_interleave(2, -1) * a.square()
        shape = (*matched.shape[:2], self.config.row_width)
        index = self.part_of.expand(*matched.shape)
        total = torch.zeros(shape).scatter_add(-1, index, matched)
        strength = torch.zeros(shape).scatter_add(-1, index, power)
        known = strength + noise / 2.0
        return total / known, strength / known

    def _dense_part(self, received: Tensor, quality: Tensor, snr_db: Tensor) -> Tensor:
        n, around = received.shape[1], self.config.context
        padded = nn.functional.pad(received, (0, 0, around, around))
        seen = [padded[:, k : k + n] for k in range(2 * around + 1)]
        known = (snr_db / 20.0)[:, None, None].expand(*received.shape[:2], 1)
        out: Tensor = self.decoder(torch.cat([*seen, quality, known], -1))
        return out


def save_code(code: ChannelCode, path: Path, notes: Mapping[str, str]) -> None:
    """Writes a code in half precision (the transform stays in single), complete or not at all."""
    from safetensors.torch import save

    exact = {"mean", "forward_basis", "inverse_basis", "variance", "gains"}
    tensors = {k: v.detach().to(torch.float32 if k in exact else torch.float16) for k, v in code.state_dict().items()}
    meta = {"config": json.dumps(asdict(code.config)), **notes}
    write_whole(path, save({k: v.contiguous() for k, v in tensors.items()}, meta))


def read_code(path: Path) -> ChannelCode:
    """Reads what `save_code` wrote; InputError if the file is something else."""
    try:
        with safe_open(path, framework="pt") as file:
            meta: dict[str, Any] = file.metadata() or {}
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
        code = ChannelCode(ChannelCodeConfig(**json.loads(meta["config"])))
        code.load_state_dict(tensors)
    except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path} does not hold the weights of a channel code ({reason}).") from None
    except Exception as error:  # safetensors raises a class of its own
        raise InputError(f"{path} does not hold the weights of a channel code ({error}).") from None
    return code.eval().requires_grad_(False)


@functools.lru_cache(maxsize=4)
def load_code(path: str = "") -> ChannelCode:
    """The code that comes with Semaphone for rows of Whisper-base, or one from a file."""
    if path:
        return read_code(Path(path))
    with resources.as_file(resources.files("semaphone") / "weights" / WEIGHTS_FILE) as packed:
        return read_code(packed)
