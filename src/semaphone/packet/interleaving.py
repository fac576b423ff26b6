"""Interleaving (LargeSC §II-B): tokens at even indices are swapped between two adjacent chunks.

Each chunk of a block of two has a packet. After the swap the first packet holds the odd tokens of the first
chunk and the even tokens of the second, so a lost packet takes every other token of both chunks and never
a whole chunk. Indices count from 0, as x_n0 (the semantic token) does in the paper.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

Entry = TypeVar("Entry", bound=np.generic)
Block = np.ndarray[Any, np.dtype[Entry]]  # [2, N_Q]


def interleave(block: Block[Entry]) -> Block[Entry]:
    """Swaps the columns 0, 2, 4, ... of [2, N_Q]. Done twice, everything is back in its place."""
    swapped = block.copy()
    swapped[:, ::2] = block[::-1, ::2]
    return swapped
