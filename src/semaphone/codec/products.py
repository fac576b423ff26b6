"""Products of frozen weights with a few rows, as a codec makes them block by block.

There a processor waits for the weights longer than it multiplies, so they are kept small:

* in 8 bits, where it is known what a layer meets (`Range`). Inputs are rounded to 256 even steps of that range,
  sums are whole numbers: exact, and the same on every processor that has such products.
* else in half precision, where that holds them exactly, as it does shipped ones. Sums are in single precision. On some
  processors their order depends on how many rows there are, so there are always `ROWS` of them: then a row's sum does
  not depend on its neighbours.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

TOP = 63  # largest weight in 8 bits: two products of it with 255 still fit the 16 bits some processors add them in

ROWS = 8  # that a product in half precision takes at once: as many as a chunk has at 100 Hz

Range = tuple[float, float]  # the lowest and the highest number that a layer meets


class Product:
    """x [..., in] → x · weightᵀ + bias [..., out], for a weight [out, in] that changes no more.

    `met` is the range of x; what lies outside is cut off. Where a processor has no products of 8 bits, or without
    a range, x and weight are taken as they are.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, met: Range | None = None) -> None:
        weight, bias = weight.detach(), bias.detach() if bias is not None else None
        self.bias, self.half, self._eight = bias, None, None
        self.sizes: Tensor | None = None  # [out] of the steps of each row, if the weight is in 8 bits
        if met is not None and weight.dtype == torch.float32 and "fbgemm" in _engines():
            self.scale, self.zero = steps(met)
            self.weight, self.sizes = rounded(weight)
            return
        # Column by column in memory: products with 8 to 32 rows take less time.
        self.weight = weight.T.contiguous().T
        self.half = _halved(weight, bias)

    def __call__(self, x: Tensor) -> Tensor:
        if self.sizes is not None:
            if self._eight is None:  # not before: who makes a graph of it (codec/graph.py) needs no other form
                self._eight = _packed(self.weight, self.sizes, self.bias)
            product = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32.default
            exact: Tensor = product(x, self.scale, self.zero, self._eight)
            return exact
        if self.half is not None:
            return _by_rows(x, self.half)
        return F.linear(x, self.weight, self.bias)


def _by_rows(x: Tensor, weight: Any) -> Tensor:
    """x [..., in] times a packed weight in half precision, `ROWS` rows at a time."""
    rows = x.reshape(-1, x.shape[-1])
    count = len(rows)
    if left := -count % ROWS:
        rows = torch.cat([rows, rows.new_zeros(left, rows.shape[1])])
    product = torch.ops.quantized.linear_dynamic_fp16.default
    made = [product(part, weight) for part in torch.split(rows, ROWS)]
    y = made[0] if len(made) == 1 else torch.cat(made)
    return y[:count].reshape(*x.shape[:-1], y.shape[-1])


def steps(met: Range) -> tuple[float, int]:
    """256 even steps over a range and 0: their size, and which of them is 0."""
    low, high = min(met[0], 0.0), max(met[1], 0.0)
    size = max((high - low) / 255.0, 1e-8)
    return size, round(-low / size)


def rounded(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A weight [out, in] → whole numbers [out, in] of 8 bits, size of a step of each row [out]."""
    sizes = (weight.abs().amax(1) / TOP).clamp(min=1e-8)
    return (weight / sizes[:, None]).round().to(torch.int8), sizes


def _packed(weight: Tensor, sizes: Tensor, bias: Tensor | None) -> Any:
    zero = torch.zeros(len(weight), dtype=torch.int64)
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = "fbgemm"
    try:
        with warnings.catch_warnings():  # of tensors of 8 bits, which this one is only on its way into the product
            warnings.filterwarnings("ignore", "torch.quantize_per_tensor", UserWarning)
            rows = torch._make_per_channel_quantized_tensor(weight, sizes.double(), zero, 0)
        return torch.ops.quantized.linear_prepack(rows, bias)
    finally:
        torch.backends.quantized.engine = before


def keeps_half(weight: Tensor) -> bool:
    """Whether half precision holds a weight exactly, and this processor multiplies it as it is."""
    return weight.dtype == torch.float32 and "fbgemm" in _engines() and torch.equal(weight.half().float(), weight)


def _halved(weight: Tensor, bias: Tensor | None) -> Any:
    if not keeps_half(weight):
        return None
    return torch.ops.quantized.linear_prepack_fp16(weight.contiguous(), bias)


def _engines() -> list[str]:
    return list(torch.backends.quantized.supported_engines)
