"""Pairs of numbers 0 <= b <= a as one number, for tables of contents."""

from __future__ import annotations

from semaphone.controller.base import Mask


def number_of_pairs(most: int) -> int:
    """How many pairs there are with a <= `most`."""
    return (most + 1) * (most + 2) // 2


def pair_index(mask: Mask) -> int:
    """Numbers the pairs (sent, twice): 0,0 · 1,0 · 1,1 · 2,0 · 2,1 · 2,2 · ..."""
    return mask.sent * (mask.sent + 1) // 2 + mask.twice


def pair_of(index: int) -> Mask:
    """The pair with a number."""
    sent = 0
    while (sent + 1) * (sent + 2) // 2 <= index:
        sent += 1
    return Mask(sent, index - sent * (sent + 1) // 2)
