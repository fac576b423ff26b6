"""Causal building blocks of the nano codec, each with explicit state.

Every block maps `(x [B, T, C], state) → (y [B, T', C'], state)`; `state` is `None` for a fresh
stream and otherwise what the same block returned before. Sequences have their channels last, so
that the pointwise layers, where nearly all the work is, are plain matrix products.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semaphone.codec.products import Product, Range

FEW = 64  # frames of all streams together that count as few


def _present(bias: Tensor | None) -> Tensor:
    assert bias is not None
    return bias


class CausalConv(nn.Module):
    """1-D convolution that sees `kernel - stride` frames of the past and none of the future.

    With a stride, T must be a multiple of it.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, stride, groups=groups)
        # Biases of the usual size would be louder than a quiet signal, and the norm after it would pass on little else.
        nn.init.zeros_(_present(self.conv.bias))
        self.inputs, self.past = inputs, kernel - stride
        self.kept: Product | None = None
        self.taps: Tensor | None = None

    def freeze(self, met: Range | None = None) -> None:
        """The weights change no more: keep them as few frames want them; `met` is the range of what comes in."""
        if self.conv.groups > 1:
            self.taps = self._taps()
        else:
            self.kept = Product(self.conv.weight.flatten(1), self.conv.bias, met)

    def _taps(self) -> Tensor:
        # Taps first: channels side by side are what a processor sums fastest.
        return self.conv.weight[:, 0].T.contiguous()[:, None, None]

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """[B, T, inputs], [B, past, inputs] → [B, T / stride, outputs], [B, past, inputs]."""
        if state is None:
            state = x.new_zeros(x.shape[0], self.past, self.inputs)
        seen = torch.cat([state.to(x.dtype), x], 1)
        past = seen[:, seen.shape[1] - self.past :]
        few = seen.shape[0] * seen.shape[1] <= FEW and not torch.is_grad_enabled()
        if self.kept is None and self.taps is None and not few:
            return self.conv(seen.transpose(1, 2)).transpose(1, 2), past
        # A convolution over a few frames costs more to set up than to compute: write it out as a product.
        weight, bias = self.conv.weight, _present(self.conv.bias)
        frames = seen.unfold(1, weight.shape[2], self.conv.stride[0])  # [B, T', inputs, kernel]
        if self.conv.groups > 1:
            taps = self.taps if self.taps is not None else self._taps()
            return (frames.movedim(-1, 0) * taps).sum(0) + bias, past
        rows = frames.flatten(2)
        return self.kept(rows) if self.kept is not None else F.linear(rows, weight.flatten(1), bias), past


class Linear(nn.Linear):
    """A linear layer that can be prepared for use."""

    kept: Product | None = None

    def freeze(self, met: Range | None = None) -> None:
        """The weights change no more: keep them as few frames want them; `met` is the range of what comes in."""
        self.kept = Product(self.weight, self.bias, met)
        if self.kept.sizes is None:
            self.weight.data = self.kept.weight  # the same numbers: one copy is enough
        else:
            del self.weight
            self.register_buffer("weight", self.kept.weight)
            self.register_buffer("sizes", self.kept.sizes)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] → [..., out]."""
        return self.kept(x) if self.kept is not None else super().forward(x)


@runtime_checkable
class Freezable(Protocol):
    """What can be prepared for use."""

    def freeze(self, met: Range | None = None) -> None:
        """The weights change no more; `met` is the range of what comes in."""


def freeze(module: nn.Module, met: Mapping[str, Range]) -> None:
    """Prepare everything inside for use, in place; it can be neither trained nor saved after that.

    `met` has ranges of what layers meet, by the names of the layers.
    """
    for name, part in module.named_modules():
        if isinstance(part, Freezable):
            part.freeze(met.get(name))


class ConvNeXt(nn.Module):
    """Depthwise causal convolution, then a pointwise network, added to the input (ConvNeXt, 1-D)."""

    def __init__(self, width: int, kernel: int = 7, expansion: int = 3, scale: float = 0.2) -> None:
        super().__init__()
        self.depthwise = CausalConv(width, width, kernel, groups=width)
        self.norm = nn.LayerNorm(width)
        self.widen = Linear(width, expansion * width)
        self.narrow = Linear(expansion * width, width)
        for layer in (self.widen, self.narrow):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.scale = nn.Parameter(torch.full((width,), scale))

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y, state = self.depthwise(x, state)
        y = self.narrow(F.gelu(self.widen(self.norm(y))))
        return torch.addcmul(x, self.scale, y), state


class Upsample(nn.Module):
    """Transposed convolution with kernel = stride: each frame becomes `factor` frames on its own."""

    def __init__(self, inputs: int, outputs: int, factor: int) -> None:
        super().__init__()
        self.linear = Linear(inputs, factor * outputs)
        nn.init.zeros_(self.linear.bias)
        self.factor = factor

    def forward(self, x: Tensor, state: None = None) -> tuple[Tensor, None]:
        """[B, T, inputs] → [B, T * factor, outputs]."""
        b, t, _ = x.shape
        return self.linear(x).reshape(b, t * self.factor, -1), None


class Pointwise(nn.Module):
    """A stateless module, frame by frame."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor, state: None = None) -> tuple[Tensor, None]:
        return self.module(x), None


class Chain(nn.Module):
    """Blocks one after another; its state is the tuple of theirs."""

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, state: tuple[Any, ...] | None = None) -> tuple[Tensor, tuple[Any, ...]]:
        states = state if state is not None else (None,) * len(self.blocks)
        after: list[Any] = []
        for block, before in zip(self.blocks, states, strict=True):
            x, new = block(x, before)
            after.append(new)
        return x, tuple(after)
