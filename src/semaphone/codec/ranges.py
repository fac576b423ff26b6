"""What the layers of a nano codec meet in use: the ranges that products of 8 bits are made for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import Tensor

from semaphone.codec.layers import CausalConv, Linear
from semaphone.codec.nano import NanoCodec, NanoModel
from semaphone.codec.products import Product, Range
from semaphone.codec.quantizer import Codebook

# Not rounded: the ways into and out of the codebooks, where it would drown what late codebooks add, and pitch, which
# would jitter.
FINE = ("quantizer.", "decoder.pitch.")


class _Watched(Product):
    """A product that remembers the extremes of what it is asked for."""

    def __init__(self, product: Product) -> None:
        self.__dict__.update(product.__dict__)
        self.low, self.high = 0.0, 0.0

    def __call__(self, x: Tensor) -> Tensor:
        low, high = x.aminmax()
        self.low, self.high = min(self.low, float(low)), max(self.high, float(high))
        return super().__call__(x)


def met_ranges(model: NanoModel, speech: Iterable[Tensor]) -> dict[str, Range]:
    """The range of what each layer meets while speech [B, T * 1280] is encoded, and decoded from few or all tokens."""
    codec = NanoCodec(model)
    watched = dict(_watched(codec.model))
    for x in speech:
        tokens = codec.encode(x).tokens
        for depth in sorted({1, codec.info.num_codebooks // 2, codec.info.num_codebooks} - {0}):
            codec.decode(tokens[:, :depth])
    return {name: (found.low, found.high) for name, found in watched.items()}


def _watched(model: NanoModel) -> Iterator[tuple[str, _Watched]]:
    for name, part in model.named_modules():
        if isinstance(part, Codebook) and part.search is not None:
            part.search = _Watched(part.search)
            yield name, part.search
        elif isinstance(part, CausalConv | Linear) and part.kept is not None and not name.startswith(FINE):
            part.kept = _Watched(part.kept)
            yield name, part.kept
