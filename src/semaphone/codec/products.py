"""Products of frozen weights with a few rows, as a codec makes them block by block.

There a processor waits for the weights longer than it multiplies. Weights that half precision holds exactly, as
shipped ones, are therefore kept in it; sums are taken in single precision as ever.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

HALF_ROWS = 32  # frames of all streams together up to which halved weights are the faster ones


class Product:
    """x [..., in] → x · weightᵀ + bias [..., out], for a weight [out, in] that changes no more."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        weight, bias = weight.detach(), bias.detach() if bias is not None else None
        # Column by column in memory: products with 8 to 32 rows take less time.
        self.weight, self.bias = weight.T.contiguous().T, bias
        self.half = _packed(weight, bias)

    def __call__(self, x: Tensor) -> Tensor:
        if self.half is not None and x.numel() <= HALF_ROWS * x.shape[-1]:
            y: Tensor = torch.ops.quantized.linear_dynamic_fp16.default(x, self.half)
            return y
        return F.linear(x, self.weight, self.bias)


def _packed(weight: Tensor, bias: Tensor | None) -> Any:
    """The weight in half precision, or None where that would change it or this processor has no such product."""
    if weight.dtype != torch.float32 or "fbgemm" not in _engines():
        return None
    if not torch.equal(weight.half().float(), weight):
        return None
    return torch.ops.quantized.linear_prepack_fp16(weight.contiguous(), bias)


def _engines() -> list[str]:
    return list(torch.backends.quantized.supported_engines)
