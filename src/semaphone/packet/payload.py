"""One packet's payload ⇄ bytes; docs/wire-format.md has the tables.

    split     half (1 bit) | table of contents | loss report (8, if agreed) | tokens | zeros up to a byte
    sliding                  table of contents | loss report (8, if agreed) | tokens | the earlier chunk's | zeros
    bundle                   table of contents | loss report (8, if agreed) | tokens | copies | zeros
    history                  table (history.py) | loss report (8, if agreed) | tokens | those of older chunks | zeros

Sequence number and time are not in it: they travel in the RTP header or the record of an .sph file.
Each payload reads alone, and there is one way only to write one: serialize(parse(x)) == x.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from semaphone.packet.bitstream import BitReader, BitWriter, PacketError
from semaphone.packet.format import Mask, PacketFormat, pair_index, pair_of
from semaphone.packet.history import read_table, table_bits, write_table
from semaphone.packet.interleaving import interleave

REPORT_STEPS = 200  # a loss report counts in half percents
NO_REPORT = 255  # nothing is known yet


@dataclass(frozen=True)
class Payload:
    """What a payload says."""

    half: int  # of a split block: which of its packets, 0 or 1; else 0
    # for each chunk of the block: (sent, twice); sliding: of the chunk and of the one before; bundles: (sent, 0);
    # history: (sent, here) of the chunk and of those before, newest first, as far as something is here
    masks: tuple[Mask, ...]
    copies: tuple[int, ...]  # bundles with copies: how many first tokens of each chunk of the earlier block; else ()
    tokens: tuple[int, ...]  # in the order of `carried`
    loss: float | None = None  # the report: loss rate of the other direction; None: not known, or not agreed


Carried = tuple[tuple[int, int], ...]


@functools.cache
def _home(num_codebooks: int) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """Which packet of a split block [2, N_Q] a token rides in."""
    return interleave(np.repeat([[0], [1]], num_codebooks, axis=1))


def carried(form: PacketFormat, half: int, masks: tuple[Mask, ...], copies: tuple[int, ...]) -> Carried:
    """The tokens of a payload in their order, as (chunk, codebook); copies count on as chunks of their own.

    Chunk by chunk, codebooks ascending. In a split block a packet carries the tokens at home in it and all that
    are sent twice. In a sliding schedule the chunk's even tokens are at home, and the odd ones of the chunk before.
    In a history the beginning of each chunk is here.
    """
    if form.schedule == "history":  # too many tables to remember what each of them means
        return tuple((i, j) for i, mask in enumerate(masks) for j in range(mask.twice))
    return _carried(form, half, masks, copies)


@functools.lru_cache(maxsize=4096)
def _carried(form: PacketFormat, half: int, masks: tuple[Mask, ...], copies: tuple[int, ...]) -> Carried:
    if form.schedule == "sliding":
        return tuple((i, j) for i, mask in enumerate(masks) for j in range(mask.sent) if j < mask.twice or j % 2 == i)
    if form.schedule == "split":
        home = _home(form.num_codebooks)
        return tuple(
            (i, j) for i, mask in enumerate(masks) for j in range(mask.sent) if j < mask.twice or home[i, j] == half
        )
    counts = [*(mask.sent for mask in masks), *copies]
    return tuple((i, j) for i, count in enumerate(counts) for j in range(count))


def serialize(form: PacketFormat, payload: Payload) -> bytes:
    """The bytes of a payload. Raises PacketError if they do not fit `constant_size`."""
    writer = BitWriter()
    if form.schedule == "split":
        writer.write(payload.half, 1)
    if form.schedule == "history":
        write_table(writer, payload.masks, form.num_codebooks, form.reach)
    else:
        writer.write(_toc_number(form, payload), form.toc_number_bits)
    if form.loss_report:
        writer.write(NO_REPORT if payload.loss is None else round(payload.loss * REPORT_STEPS), 8)
    for token in payload.tokens:
        writer.write(token, form.bits_per_token)
    data = writer.getvalue()
    if not form.constant_size:
        return data
    if len(data) > form.constant_size:
        raise PacketError(f"A payload of {len(data)} bytes does not fit the constant size of {form.constant_size}.")
    return data.ljust(form.constant_size, b"\0")


def toc_bits(form: PacketFormat, payload: Payload) -> int:
    """Bits of a payload that are neither tokens nor padding."""
    if form.schedule != "history":
        return form.toc_bits
    return table_bits(payload.masks, form.num_codebooks, form.reach) + 8 * form.loss_report


def _toc_number(form: PacketFormat, payload: Payload) -> int:
    if form.schedule == "bundle":
        digits = [*(mask.sent for mask in payload.masks), *payload.copies]
    else:
        digits = [pair_index(mask) for mask in payload.masks]
    number = 0
    for digit in digits:
        number = number * form.toc_base + digit
    return number


def parse(form: PacketFormat, data: bytes) -> Payload:
    """What the bytes say. Raises PacketError, with one sentence, for anything that `serialize` would not write."""
    if len(data) > form.max_payload:
        raise PacketError(f"The packet has {len(data)} bytes; this format has {form.max_payload} at the most.")
    if not data:
        raise PacketError("The packet is empty.")
    reader = BitReader(data)
    half = reader.read(1, "its first bit") if form.schedule == "split" else 0
    masks, copies = _parse_toc(form, reader)
    loss = _parse_report(reader) if form.loss_report else None
    places = carried(form, half, masks, copies)
    tokens = tuple(reader.read(form.bits_per_token, "its tokens") for _ in places)
    for token, (_, codebook) in zip(tokens, places, strict=True):
        if token >= form.codebook_size:
            raise PacketError(f"The packet has token {token} of codebook {codebook}, which has {form.codebook_size}.")
    reader.end(form.constant_size or None)
    return Payload(half, masks, copies, tokens, loss)


def _parse_toc(form: PacketFormat, reader: BitReader) -> tuple[tuple[Mask, ...], tuple[int, ...]]:
    if form.schedule == "history":
        return read_table(reader, form.num_codebooks, form.reach), ()
    number = reader.read(form.toc_number_bits, "its table of contents")
    digits: list[int] = []
    for _ in range(form.toc_digits):
        number, digit = divmod(number, form.toc_base)
        digits.insert(0, digit)
    if number:
        raise PacketError("The packet's table of contents is out of range.")
    if form.schedule == "bundle":
        chunks = form.chunks_per_packet
        return tuple(Mask(sent, 0) for sent in digits[:chunks]), tuple(digits[chunks:])
    masks = tuple(pair_of(digit) for digit in digits)
    if form.schedule == "split" and Mask(1, 0) in masks:
        raise PacketError("The packet's table of contents has a single token that is not sent twice.")
    return masks, ()


def _parse_report(reader: BitReader) -> float | None:
    value = reader.read(8, "its loss report")
    if value == NO_REPORT:
        return None
    if value > REPORT_STEPS:
        raise PacketError(f"The packet reports a loss of {value} half percents, which cannot be.")
    return value / REPORT_STEPS
