"""A decoder with fewer blocks from one with more, as the start of a training."""

from __future__ import annotations

from itertools import groupby

from torch import Tensor

from semaphone.codec.nano import NanoConfig
from semaphone.errors import InputError


def shallower(weights: dict[str, Tensor], config: NanoConfig) -> dict[str, Tensor]:
    """Weights of a model whose decoder has more ConvNeXt blocks → those of `config`, which keeps some, evenly spaced.

    A block adds to what passes it, so that a decoder without some of them still says nearly the same. Raises InputError
    if it has fewer than `config` asks for.
    """
    *trunk, shape = config.decoder_blocks
    found = weights
    for stem, wanted in (("decoder.trunk.blocks.", trunk), ("decoder.shape.blocks.", [shape])):
        kept = _kept(weights, stem, wanted)
        found = {name: value for name, value in found.items() if not name.startswith(stem)}
        for new, old in enumerate(kept):
            mine = {name: value for name, value in weights.items() if name.startswith(f"{stem}{old}.")}
            found |= {f"{stem}{new}.{name.removeprefix(f'{stem}{old}.')}": value for name, value in mine.items()}
    return found


def _kept(weights: dict[str, Tensor], stem: str, wanted: list[int]) -> list[int]:
    """Which blocks of a chain stay: of every run of ConvNeXt blocks as many as are wanted, everything else."""
    count = 1 + max(int(name.removeprefix(stem).split(".")[0]) for name in weights if name.startswith(stem))
    kept: list[int] = []
    sizes = iter(wanted)
    for deep, group in groupby(range(count), lambda i: f"{stem}{i}.widen.weight" in weights):
        run = list(group)
        if deep:
            size = next(sizes)
            if size > len(run):
                raise InputError(
                    f"The decoder at the start has {len(run)} blocks where {size} are asked for (--decoder-blocks)."
                )
            step = (len(run) - 1) / max(size - 1, 1)
            run = [run[round(i * step)] for i in range(size)]
        kept += run
    return kept
