"""Rows of features ⇄ complex symbols: the learned channel code (LSSC-ST eqs 2-4, 6, Table I) and its linear basis.

Rows first become components: their mean is taken off, and a fixed linear transform (fitted to training rows) turns
them so that components are uncorrelated and sorted by how much they matter. "Matter" is measured as the decoder of
the speech model sees a row, through its key and value projections. The error of eq 6 is the mean squared error of
these components, weighted by their variance.

    linear part   a burst is also turned along time, and what is strong in it is sent with powers that follow the SNR
                  and received by the linear least mean square estimator (`burst.py`)
    dense part    three dense layers on each side (Table I) add to both: on the sending side to the components, on
                  the receiving side to the estimates, from a few rows before and after as well: rows are not
                  Gaussian, which the dense layers use against noise

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
from semaphone.translation import burst

WEIGHTS_FILE = "channel-code-whisper-base.safetensors"
FAR = (4, 6, 9, 12)  # rows before and after of which the decoder sees the strongest components only


@dataclass(frozen=True)
class ChannelCodeConfig:
    """The shape of a code."""

    row_width: int = 512  # numbers in a row of features
    symbols: int = 256  # complex symbols a row
    hidden: int = 1024  # width of the dense layers (the paper: 2048)
    context: int = 2  # rows before and after that the decoder sees
    far: int = 128  # components that it sees of the rows in FAR, in codes with a linear part
    activation: str = "relu"  # between the encoder's layers: "relu", or "none" as Table I prints
    linear: bool = True  # the linear part beside the dense layers
    block: int = 48  # rows that the linear part takes together, at most

    def __post_init__(self) -> None:
        if not 1 <= self.row_width <= 8192 or not 1 <= self.symbols <= 8192 or not 1 <= self.hidden <= 8192:
            raise InputError("Row width, symbols a row and hidden width must be 1 to 8192.")
        if not 0 <= self.context <= 16:
            raise InputError("The decoder sees 0 to 16 rows either side.")
        if not 0 <= self.far <= self.row_width:
            raise InputError("Of rows further away the decoder sees no more components than there are.")
        if not 1 <= self.block <= 512:
            raise InputError("Blocks of a burst have 1 to 512 rows.")
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


def fit_memory(components: Tensor, lags: int) -> Tensor:
    """Autocorrelations [lags, D] of components in sequences [K, N, D], N ≥ lags."""
    found = [(components[:, lag:] * components[:, : components.shape[1] - lag]).mean((0, 1)) for lag in range(lags)]
    return torch.stack(found)


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
    memory: Tensor  # [block, D]: autocorrelations of components

    def __init__(self, config: ChannelCodeConfig, basis: Basis | None = None, memory: Tensor | None = None) -> None:
        super().__init__()
        self.config = config
        width, parts = config.row_width, 2 * config.symbols
        basis = basis or Basis(torch.zeros(width), torch.eye(width), torch.eye(width), torch.full((width,), 1 / width))
        if memory is None:  # rows that know nothing of each other
            memory = torch.eye(config.block)[0, :, None].expand(-1, width)
        self.register_buffer("mean", basis.mean.clone())
        self.register_buffer("forward_basis", basis.forward.clone())
        self.register_buffer("inverse_basis", basis.inverse.clone())
        self.register_buffer("variance", basis.variance.clone())
        self.register_buffer("memory", memory.clone())
        between = nn.ReLU if config.activation == "relu" else nn.Identity
        self.encoder = _dense((width + 1, config.hidden, config.hidden, width if config.linear else parts), between)
        near, far = (2 * config.context + 1) * self._received_width, 2 * len(FAR) * self._far
        seen = near + far + (width if config.linear else config.symbols) + 1
        self.decoder = _dense((seen, config.hidden, config.hidden, width), nn.ReLU)
        if config.linear:  # training starts at the linear code
            for part in (self.encoder, self.decoder):
                for value in part[-1].parameters():
                    nn.init.zeros_(value)

    @property
    def _received_width(self) -> int:
        return self.config.row_width if self.config.linear else 2 * self.config.symbols

    @property
    def _far(self) -> int:
        return self.config.far if self.config.linear else 0

    def components(self, rows: Tensor) -> Tensor:
        """Rows [..., D] → components of unit variance [..., D]."""
        return (rows - self.mean) @ self.forward_basis

    def rows(self, components: Tensor) -> Tensor:
        """The inverse of `components`."""
        return components @ self.inverse_basis + self.mean

    def error(self, components: Tensor, truth: Tensor) -> Tensor:
        """Eq 6 per sequence [B]: the squared error weighted by variance; 1 is the error of sending nothing."""
        return ((components - truth) ** 2 @ self.variance).mean(-1)

    def encode(self, rows: Tensor, snr_db: Tensor, dense: bool = True) -> tuple[Tensor, Tensor]:
        """Rows [B, N, D] at mean SNRs [B] → symbols [B, N, symbols] of mean power 1, and the scale [B] that did it.

        Without `dense` only the linear part is used.
        """
        c = self.components(rows)
        shaped = torch.zeros(())
        if dense:
            known = (snr_db / 20.0)[:, None, None].expand(*c.shape[:2], 1)
            shaped = self.encoder(torch.cat([c * self._weight, known], -1))
        parts = self._spread(c + (shaped / self._weight).float(), snr_db) if self.config.linear else shaped
        symbols = torch.view_as_complex(parts.float().reshape(*c.shape[:2], -1, 2))
        scale = symbols.abs().square().mean((1, 2)).clamp_min(1e-12).rsqrt()
        return symbols * scale[:, None, None], scale

    @property
    def _weight(self) -> Tensor:
        """What dense layers see components times."""
        return self.variance.pow(0.25) * 4.0

    def _blocks(self, rows: int, snr_db: Tensor) -> list[tuple[int, burst.Plan]]:
        sizes = burst.blocks_of(rows, self.config.block)
        plans = {n: burst.plan(self.variance, self.memory, n, self.config.symbols, snr_db) for n in set(sizes)}
        return [(n, plans[n]) for n in sizes]

    def _spread(self, components: Tensor, snr_db: Tensor) -> Tensor:
        ways = self._blocks(components.shape[1], snr_db)
        blocks = torch.split(components, [n for n, _ in ways], 1)
        with torch.autocast("cpu", enabled=False):  # in training
            return torch.cat([burst.spread(block, way) for block, (_, way) in zip(blocks, ways, strict=True)], 1)

    def decode(self, symbols: Tensor, gains: Tensor, snr_db: Tensor, scale: Tensor) -> Tensor:
        """What arrived [B, N, symbols], h as known, mean SNRs [B], the sender's scale [B] → rows [B, N, D]."""
        return self.rows(self.estimate(symbols, gains, snr_db, scale))

    def estimate(self, symbols: Tensor, gains: Tensor, snr_db: Tensor, scale: Tensor, dense: bool = True) -> Tensor:
        """As `decode`, but components instead of rows."""
        if not self.config.linear:
            noise, power = (10.0 ** (-snr_db / 10.0))[:, None, None], gains.abs().square()
            equalised = torch.view_as_real(gains.conj() * symbols / (power + noise)).flatten(-2)
            return self._dense_part(equalised, power / (power + noise), snr_db)
        linear, quality = self._gather(symbols, gains, snr_db, scale)
        if not dense:
            return linear
        return linear + self._dense_part(linear * self._weight, quality, snr_db) / self._weight

    def _gather(self, symbols: Tensor, gains: Tensor, snr_db: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Linear least mean square estimates [B, N, D] and how good they are, 0 (nothing known) to 1."""
        size, noise = gains.abs(), burst.noise_of(snr_db)
        turned = torch.view_as_real(gains.conj() / size.clamp_min(1e-9) * symbols).flatten(-2)
        # The estimate adapts to the scale; that the scale depends on the encoder as well is left out of the gradient.
        amplitude = (size * scale.detach()[:, None, None]).repeat_interleave(2, -1)
        ways, estimates, qualities, first = self._blocks(symbols.shape[1], snr_db), [], [], 0
        for n, way in ways:
            y, a = (x[:, first : first + n].flatten(1) for x in (turned, amplitude))
            with torch.autocast("cpu", enabled=False):  # in training
                estimate, quality = burst.gather(y, a, noise, way)
            estimates.append(estimate)
            qualities.append(quality.expand_as(estimate))
            first += n
        return torch.cat(estimates, 1), torch.cat(qualities, 1)

    def _dense_part(self, received: Tensor, quality: Tensor, snr_db: Tensor) -> Tensor:
        n, around = received.shape[1], max(self.config.context, *FAR) if self._far else self.config.context
        padded = nn.functional.pad(received, (0, 0, around, around))
        near = range(around - self.config.context, around + self.config.context + 1)
        seen = [padded[:, k : k + n] for k in near]
        if self._far:
            seen += [padded[:, around + k : around + k + n, : self._far] for away in FAR for k in (-away, away)]
        known = (snr_db / 20.0)[:, None, None].expand(*received.shape[:2], 1)
        out: Tensor = self.decoder(torch.cat([*seen, quality, known], -1))
        return out


def save_code(code: ChannelCode, path: Path, notes: Mapping[str, str]) -> None:
    """Writes a code in half precision (the transform stays in single), complete or not at all."""
    from safetensors.torch import save

    exact = {"mean", "forward_basis", "inverse_basis", "variance", "memory"}
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
    except RuntimeError:  # of load_state_dict, in several lines
        raise InputError(f"{path} holds other tensors than a channel code of this version has.") from None
    except (OSError, KeyError, TypeError, ValueError) as error:
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
