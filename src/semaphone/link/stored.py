"""A talk at rest: speech → packets in an .sph file, and back."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from semaphone.codec.base import Codec, CodecInfo
from semaphone.codec.registry import kind_of
from semaphone.controller.base import Controller, LinkLoss
from semaphone.errors import InputError, InputWarning
from semaphone.link.receiver import Receiver, ReceiverState
from semaphone.link.talk import Length, aligned, steps
from semaphone.link.transmitter import Transmitter, TransmitterState
from semaphone.packet.format import PacketFormat
from semaphone.packet.packetizer import Packet
from semaphone.packet.sph import LONGEST_GAP, SphHeader, SphReader, SphRecord
from semaphone.recovery.base import Recovery

if TYPE_CHECKING:
    from semaphone.audio import Samples


def encode(
    blocks: Iterable[Samples],
    codec: Codec,
    controller: Controller,
    form: PacketFormat,
    length: Length,
    loss_rate: float = 0.0,
    dtx: bool = False,
) -> Iterator[Packet]:
    """Speech blocks at the codec's rate → packets; `length` is known at the end.

    `loss_rate` is what the packets are expected to meet; with `dtx` pauses are left out.
    """
    transmitter = Transmitter(codec, controller, form, dtx)
    state: TransmitterState | None = None
    for step in steps(blocks, codec.info, form.chunks_per_block, length):
        sent, state = transmitter.step(step, state, LinkLoss(loss_rate))
        yield from sent.packets
    yield from transmitter.finish(state)


def check_name(header: SphHeader, spec: str) -> None:
    """Raises InputError if a file was not made with the kind of codec that `load_codec` would give for `spec`.

    Nothing is loaded, and no model hub is asked, for a file that it cannot be meant for.
    """
    kind = kind_of(spec)
    if kind is not None and header.codec != kind:
        raise InputError(f"The file was made with the codec {header.codec}, not {kind}: give --codec {header.codec}.")


def check_header(header: SphHeader, info: CodecInfo) -> None:
    """Raises InputError if a file was not made with this codec."""
    if (header.codec, header.fingerprint) != (info.name, info.fingerprint):
        raise InputError(
            f"The file was made with the codec {header.codec} {header.fingerprint}, and this is {info.name} "
            f"{info.fingerprint}: their tokens mean nothing to each other."
        )
    form = header.format
    if (header.sample_rate, form.num_codebooks, form.codebook_size) != (
        info.sample_rate,
        info.num_codebooks,
        info.codebook_size,
    ):
        raise InputError("The file's header contradicts the codec that it names.")


def _blocks(records: Iterable[SphRecord], form: PacketFormat) -> Iterator[list[bytes | None]]:
    """Records → the payloads of one block after another."""
    most = int(LONGEST_GAP * form.packet_rate)
    held: dict[int, bytes] = {}
    block, following = 0, 0
    for record in records:
        if record.sequence - following > most:
            raise InputError(f"The file claims that more than {LONGEST_GAP:.0f} s of packets are missing in a row.")
        held[record.sequence] = record.payload
        following = record.sequence + 1
        while form.sequences_of(block)[-1] < following:
            yield [held.get(number) for number in form.sequences_of(block)]
            block += 1
            for number in [n for n in held if n < form.sequences_of(block)[0]]:
                del held[number]
    while held and form.sequences_of(block)[0] <= max(held):
        yield [held.get(number) for number in form.sequences_of(block)]
        block += 1


def decode(reader: SphReader, codec: Codec, recovery: Recovery) -> Iterator[Samples]:
    """An open .sph file → speech at the codec's rate, as long as what was encoded.

    Packets of which the reader left something out, and payloads that are none, count as lost; at the end it warns
    (InputWarning).
    """
    check_header(reader.header, codec.info)
    form = reader.header.format
    receiver = Receiver(codec, recovery, form)
    length = Length()

    def heard() -> Iterator[Samples]:
        state: ReceiverState | None = None
        given = bad = 0
        for payloads in _blocks(reader, form):
            block, state = receiver.step(payloads, state)
            given, bad = given + len(block.speech), bad + block.bad_packets
            yield block.speech
        known = reader.num_samples
        length.samples = known if known is not None else 1 << 62
        for _ in range(_lost_at_the_end(reader, codec.info, given)):
            block, state = receiver.step([None] * len(form.sequences_of(0)), state)
            yield block.speech
        _warn(reader, bad)

    return aligned(heard(), codec.info.delay, length, 1 + form.reach)


def _lost_at_the_end(reader: SphReader, info: CodecInfo, given: int) -> int:
    """Blocks that are missing at the end of a damaged file whose length is known, unless that is most of it."""
    if not reader.damaged or reader.num_samples is None:
        return 0
    form = reader.header.format
    samples = reader.num_samples + info.delay - given
    if not 0 < samples <= LONGEST_GAP * info.sample_rate:
        return 0
    return -(-samples // (form.chunks_per_block * info.chunk_samples))


def _warn(reader: SphReader, bad: int) -> None:
    name = "Standard input" if reader.path == "-" else reader.path
    places = reader.damaged - reader.cut + bad
    if places:
        warnings.warn(
            f"{name} is damaged at {places} place{'s' * (places != 1)}; the packets there count as lost.",
            InputWarning,
            stacklevel=2,
        )
    if reader.cut:
        warnings.warn(
            f"{name} is cut short, or damaged up to its end; what came before is decoded.", InputWarning, stacklevel=2
        )
