"""Tokens and masks ⇄ packets, one chunk at a time (LargeSC §II-B; the layout is in format.py and payload.py).

form = PacketFormat(num_codebooks=16, codebook_size=2048)
packetizer, state = Packetizer(form), None
packets, state = packetizer.push(tokens, (8, 4), state)      # every chunk; packets come with every block
packets, state = packetizer.flush(state)                     # at the end

numbers = form.sequences_of(block)                           # which packets to wait for
chunks = Depacketizer(form).read([arrived.get(n) for n in numbers])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from semaphone.packet.bitstream import PacketError
from semaphone.packet.format import Mask, PacketFormat
from semaphone.packet.history import table
from semaphone.packet.payload import Payload, carried, parse, serialize, toc_bits
from semaphone.packet.status import TokenStatus


@dataclass(frozen=True)
class Packet:
    """What goes on the wire, and what it costs."""

    sequence: int  # counts packets from 0; the RTP header or the .sph record carries it
    block: int  # the block it leaves with, counted from 0: format.block_of(sequence); RTP's timestamp follows from it
    send_time: float  # s after the first sample was spoken
    payload: bytes
    token_bits: int  # of tokens, copies included
    toc_bits: int  # of table of contents and loss report; what is left of the payload is padding


@dataclass(frozen=True)
class _Chunk:
    tokens: tuple[int, ...]  # only those that are sent
    mask: Mask


_NOTHING = _Chunk((), Mask(0, 0))


@dataclass(frozen=True)
class PacketizerState:
    """Where a stream stands."""

    waiting: tuple[_Chunk, ...] = ()  # chunks of the block that is not complete yet
    earlier: tuple[tuple[_Chunk, ...], ...] = ()  # the last blocks of which something is still to ride, oldest first
    block: int = 0  # the next one


class Packetizer:
    """Chunks in, packets out. `None` is the state of a fresh stream."""

    def __init__(self, form: PacketFormat) -> None:
        self.format = form

    def push(
        self,
        tokens: NDArray[np.int64],
        mask: Mask | tuple[int, ...],
        state: PacketizerState | None = None,
        loss: float | None = None,
    ) -> tuple[list[Packet], PacketizerState]:
        """Adds a chunk: tokens [n] with n >= what the mask sends. A complete block gives its packets.

        `loss` in [0, 1] is the loss report for the other side, None if there is none yet. Raises ValueError for
        a mask or token out of range, PacketError if a payload exceeds the format's constant size.
        """
        form = self.format
        state = state or PacketizerState()
        effective = form.effective(mask)
        kept = tuple(int(token) for token in tokens[: effective.sent])
        if len(kept) < effective.sent or not all(0 <= token < form.codebook_size for token in kept):
            raise ValueError(
                f"the mask sends {effective.sent} tokens below {form.codebook_size}, but there are {tokens}"
            )
        if loss is not None and not 0 <= loss <= 1:
            raise ValueError(f"a loss rate lies in [0, 1], not at {loss}")
        waiting = (*state.waiting, _Chunk(kept, effective))
        if len(waiting) < form.chunks_per_block:
            return [], PacketizerState(waiting, state.earlier, state.block)
        return self._block(waiting, state, loss)

    def flush(self, state: PacketizerState | None, loss: float | None = None) -> tuple[list[Packet], PacketizerState]:
        """Ends a stream: fills the last block with empty chunks and lets what still waits out in empty blocks."""
        state = state or PacketizerState()
        packets: list[Packet] = []
        while state.waiting or self._waits(state.earlier):
            more, state = self.push(np.zeros(0, np.int64), (0, 0), state, loss)
            packets += more
        return packets, state

    def skip(self, state: PacketizerState | None) -> PacketizerState:
        """Time goes on by a block of which nothing is sent, between blocks; what should have ridden with it is lost."""
        form, state = self.format, state or PacketizerState()
        if state.waiting:
            raise ValueError("only whole blocks can be left out")
        nothing = (_NOTHING,) * form.chunks_per_block
        earlier = (*state.earlier, nothing)[-form.reach :] if form.reach else ()
        return PacketizerState((), earlier, state.block + 1)

    def _waits(self, earlier: tuple[tuple[_Chunk, ...], ...]) -> bool:
        """Is something of the last blocks still to ride? Copies are, and of a sliding chunk the odd tokens."""
        masks = [chunk.mask for block in earlier for chunk in block]
        if self.format.schedule == "history":
            return any(any(mask[age:]) for age, mask in enumerate(reversed(masks), 1))
        return any(mask.twice > 0 or (self.format.schedule == "sliding" and mask.sent > 1) for mask in masks)

    def _block(
        self, chunks: tuple[_Chunk, ...], state: PacketizerState, loss: float | None
    ) -> tuple[list[Packet], PacketizerState]:
        form = self.format
        masks = tuple(chunk.mask for chunk in chunks)
        copied = form.riding(state.earlier, _NOTHING)
        sources = [chunk.tokens for chunk in (*chunks, *copied)]
        copies: tuple[int, ...] = ()
        if form.schedule == "bundle":
            masks = tuple(Mask(mask.sent, 0) for mask in masks)
            copies = tuple(chunk.mask.twice for chunk in copied)
        elif form.schedule == "sliding":
            masks += tuple(chunk.mask for chunk in copied)
        elif form.schedule == "history":
            masks = table([*masks, *(chunk.mask for chunk in copied)])
        packets = []
        for half in range(form.packets_per_block):
            places = carried(form, half, masks, copies)
            payload = Payload(half, masks, copies, tuple(sources[i][j] for i, j in places), loss)
            sequence = state.block * form.packets_per_block + half
            packets.append(
                Packet(
                    sequence,
                    state.block,
                    form.send_time(sequence),
                    serialize(form, payload),
                    len(places) * form.bits_per_token,
                    toc_bits(form, payload),
                )
            )
        earlier = (*state.earlier, chunks)[-form.reach :] if form.reach else ()
        return packets, PacketizerState((), earlier, state.block + 1)


@dataclass(frozen=True)
class ReceivedChunk:
    """What arrived of a chunk, and what is known by then of the one after it."""

    tokens: NDArray[np.int64]  # [N_Q], 0 where nothing was received
    status: NDArray[np.int64]  # [N_Q] of TokenStatus
    coming: ReceivedChunk | None = None  # the next chunk, as far as the same packets carry it
    # the chunks right before it, which were played already, oldest first, as they are known by now; () if nothing came
    played: tuple[ReceivedChunk, ...] = ()


class Depacketizer:
    """Puts the packets of a block together. It has no state: all that it needs is in the packets."""

    def __init__(self, form: PacketFormat) -> None:
        self.format = form

    def read(self, payloads: Sequence[bytes | Payload | None]) -> list[ReceivedChunk]:
        """The chunks of a block from the payloads of `format.sequences_of(block)`, None for those that are lost.

        Takes bytes, or what `parse` made of them when the packet came in. Raises PacketError for bytes that are
        no payload of this format, a payload in the place of another, or two that contradict each other.
        """
        form = self.format
        if len(payloads) != len(form.sequences_of(0)):
            raise ValueError(f"a block of this format takes {len(form.sequences_of(0))} payloads")
        parsed = [parse(form, data) if isinstance(data, bytes) else data for data in payloads]
        if form.schedule == "history":
            chunk, coming = self._of_history(parsed), self._of_history(parsed[1:])
            return [replace(chunk, coming=None if (coming.status == TokenStatus.UNKNOWN).all() else coming)]
        chunks = [_unknown(form) for _ in range(form.chunks_per_block)]
        tables = [masks for i, p in enumerate(parsed) if p is not None and (masks := self._table(p, i))]
        if len(tables) == 2 and tables[0] != tables[1]:
            raise PacketError("The two packets of a block disagree about what was sent.")
        for chunk, mask in zip(chunks, tables[0] if tables else (), strict=False):
            _announce(chunk, mask)
        for place, payload in enumerate(parsed):
            if payload is not None:
                self._place(chunks, payload, place)
        return [replace(c, coming=d) for c, d in zip(chunks, [*chunks[1:], self._next(parsed[-1])], strict=True)]

    def _of_history(self, payloads: Sequence[Payload | None]) -> ReceivedChunk:
        """A chunk from its own packet and the ones after it, as far as they are there."""
        chunk, told = _unknown(self.format), None
        for age, payload in enumerate(payloads):
            if payload is None or age >= len(payload.masks):
                continue
            sent, here = payload.masks[age]
            if told not in (None, sent):
                raise PacketError("The packets of a chunk disagree about what was sent.")
            if told is None:
                _announce(chunk, payload.masks[age])
            told = sent
            before = sum(mask.twice for mask in payload.masks[:age])
            for j, token in enumerate(payload.tokens[before : before + here]):
                _receive(chunk, j, token)
        return chunk

    def _next(self, payload: Payload | None) -> ReceivedChunk | None:
        """The chunk after a block, if the block's last packet is the one that leaves with that chunk."""
        if self.format.reach != 1 or payload is None:
            return None
        chunk = _unknown(self.format)
        _announce(chunk, payload.masks[0])
        places = carried(self.format, payload.half, payload.masks, payload.copies)
        for (i, j), token in zip(places, payload.tokens, strict=True):
            if i == 0:
                chunk.tokens[j], chunk.status[j] = token, TokenStatus.RECEIVED
        return chunk

    def _table(self, payload: Payload, place: int) -> tuple[Mask, ...]:
        """What a payload says was sent of the block in whose place it stands: one mask a chunk, or nothing."""
        if self.format.schedule == "sliding":
            return payload.masks[place : place + 1]
        return payload.masks if self.format.schedule == "split" or place == 0 else ()

    def _place(self, chunks: list[ReceivedChunk], payload: Payload, place: int) -> None:
        form = self.format
        first = 0
        if form.schedule == "split" and payload.half != place:
            raise PacketError("A packet stands in the place of the other one of its block.")
        if form.reach and place == 1:
            first = form.chunks_per_packet  # of this packet only what is of an earlier block belongs to it
        places = carried(form, payload.half, payload.masks, payload.copies)
        for (i, j), token in zip(places, payload.tokens, strict=True):
            if not first <= i < first + len(chunks):
                continue
            _receive(chunks[i - first], j, token)


def _unknown(form: PacketFormat) -> ReceivedChunk:
    """A chunk of which nothing is known yet."""
    count = form.num_codebooks
    return ReceivedChunk(np.zeros(count, np.int64), np.full(count, TokenStatus.UNKNOWN, np.int64))


def _announce(chunk: ReceivedChunk, mask: Mask) -> None:
    """A table of contents says what was sent of a chunk."""
    chunk.status[: mask.sent] = TokenStatus.LOST
    chunk.status[mask.sent :] = TokenStatus.UNSENT


def _receive(chunk: ReceivedChunk, j: int, token: int) -> None:
    """A token arrives, perhaps once more."""
    status = chunk.status[j]
    if status == TokenStatus.UNSENT or (status == TokenStatus.RECEIVED and chunk.tokens[j] != token):
        raise PacketError("Two packets disagree about a token that was sent twice.")
    chunk.tokens[j] = token
    chunk.status[j] = TokenStatus.RECEIVED
