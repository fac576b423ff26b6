"""The table of contents of a history packet ⇄ bits; docs/wire-format.md has the layout.

A packet of a history carries the first tokens of its chunk and of the chunks before. Its table is a row of masks
(sent, here), newest chunk first: how many tokens the chunk sends at all, and how many of them, from the first, are
here. Of its own chunk a packet has everything. There are two ways to write it, and the shorter one is taken:

    runs      neighbours with the same mask are one run, written once with the number of older chunks that share it
    nested    every chunk sends as much, and no older one has more here: such rows are numbered, all at once

So a table of equal chunks takes few bits whatever the horizon, and one of lengths that fall with age not many more.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from semaphone.controller.base import Mask
from semaphone.packet.bitstream import BitReader, BitWriter, PacketError
from semaphone.packet.pairs import number_of_pairs, pair_index, pair_of

_WHAT = "its table of contents"


def table(masks: Sequence[Mask]) -> tuple[Mask, ...]:
    """The masks of chunks by age, newest first → their (sent, here), as far as something is here."""
    told = [Mask(mask.sent, mask.at(age)) for age, mask in enumerate(masks)]
    while len(told) > 1 and not told[-1].twice:
        told.pop()
    return tuple(told)


def write_table(writer: BitWriter, told: Sequence[Mask], num_codebooks: int, horizon: int) -> None:
    """Appends what `table` gives, of up to `horizon` + 1 chunks."""
    number = _number(told, num_codebooks, horizon)
    if horizon:
        writer.write(number is not None, 1)
    if number is None:
        _write_runs(writer, told, num_codebooks, horizon)
    else:
        writer.write(number, _nested_bits(num_codebooks, horizon))


def read_table(reader: BitReader, num_codebooks: int, horizon: int) -> tuple[Mask, ...]:
    """What `write_table` wrote. Raises PacketError for anything that it would not write."""
    nested = bool(horizon and reader.read(1, _WHAT))
    told = (_read_nested if nested else _read_runs)(reader, num_codebooks, horizon)
    if nested != (_number(told, num_codebooks, horizon) is not None):
        raise PacketError("The packet's table of contents can be written shorter.")
    return told


def _number(told: Sequence[Mask], num_codebooks: int, horizon: int) -> int | None:
    """The number of a table that is nested, if that is shorter than runs.

    Lengths that never rise, with 0 to `horizon` added from the oldest on, all differ: a set of whole numbers, which
    the combinatorial number system counts.
    """
    lengths = [mask.twice for mask in told]
    if any(mask.sent != told[0].sent for mask in told) or lengths != sorted(lengths, reverse=True):
        return None
    runs = BitWriter()
    _write_runs(runs, told, num_codebooks, horizon)
    if runs.bits <= _nested_bits(num_codebooks, horizon):
        return None
    lengths += [0] * (horizon + 1 - len(lengths))
    return sum(math.comb(length + older, older + 1) for older, length in enumerate(reversed(lengths)))


def _read_nested(reader: BitReader, num_codebooks: int, horizon: int) -> tuple[Mask, ...]:
    number = reader.read(_nested_bits(num_codebooks, horizon), _WHAT)
    if number >= math.comb(num_codebooks + horizon + 1, horizon + 1):
        raise PacketError("The packet's table of contents is out of range.")
    lengths: list[int] = []
    for older in range(horizon, -1, -1):
        length = lengths[-1] if lengths else num_codebooks
        while math.comb(length + older, older + 1) > number:
            length -= 1
        number -= math.comb(length + older, older + 1)
        lengths.append(length)
    return table([Mask(*lengths, 0)] * (horizon + 1))


def _write_runs(writer: BitWriter, told: Sequence[Mask], num_codebooks: int, horizon: int) -> None:
    age = 0
    for mask, run in itertools.groupby(told):
        if age == 0:
            writer.write(mask.sent, _length_bits(num_codebooks))
        else:
            writer.write(1, 1)  # another run follows
            writer.write(pair_index(mask), _pair_bits(num_codebooks))
        shared = len(list(run)) - 1
        writer.write(shared, (horizon - age).bit_length())
        age += 1 + shared
    if age <= horizon:
        writer.write(0, 1)


def _read_runs(reader: BitReader, num_codebooks: int, horizon: int) -> tuple[Mask, ...]:
    told: list[Mask] = []
    while len(told) <= horizon and (not told or reader.read(1, _WHAT)):
        mask = _read_mask(reader, num_codebooks, first=not told)
        older = horizon - len(told)
        shared = reader.read(older.bit_length(), _WHAT)
        if shared > older:
            raise PacketError("The packet's table of contents is out of range.")
        if told and mask == told[-1]:
            raise PacketError("The packet's table of contents can be written shorter.")
        told += [mask] * (1 + shared)
    if len(told) > 1 and not told[-1].twice:
        raise PacketError("The packet's table of contents can be written shorter.")
    return tuple(told)


def _read_mask(reader: BitReader, num_codebooks: int, first: bool) -> Mask:
    number = reader.read(_length_bits(num_codebooks) if first else _pair_bits(num_codebooks), _WHAT)
    if number >= (num_codebooks + 1 if first else number_of_pairs(num_codebooks)):
        raise PacketError("The packet's table of contents is out of range.")
    return Mask(number, number) if first else pair_of(number)


def table_bits(told: Sequence[Mask], num_codebooks: int, horizon: int) -> int:
    """Bits that a table takes."""
    writer = BitWriter()
    write_table(writer, told, num_codebooks, horizon)
    return writer.bits


def most_table_bits(num_codebooks: int, horizon: int) -> int:
    """Bits of the longest table: each chunk is a run of its own."""
    bits = (horizon > 0) + _length_bits(num_codebooks) + horizon.bit_length()
    for older in range(horizon):
        bits += 1 + _pair_bits(num_codebooks) + older.bit_length()
    return bits


def _length_bits(num_codebooks: int) -> int:
    return num_codebooks.bit_length()


def _pair_bits(num_codebooks: int) -> int:
    return (number_of_pairs(num_codebooks) - 1).bit_length()


def _nested_bits(num_codebooks: int, horizon: int) -> int:
    return (math.comb(num_codebooks + horizon + 1, horizon + 1) - 1).bit_length()
