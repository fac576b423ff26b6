"""The schedule `history`: packets that carry beginnings of the chunks before."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.packet.test_packetizer import send

from semaphone.packet.bitstream import BitReader, BitWriter, PacketError
from semaphone.packet.format import Mask, PacketFormat
from semaphone.packet.history import most_table_bits, read_table, table, table_bits, write_table
from semaphone.packet.packetizer import Depacketizer
from semaphone.packet.payload import parse, serialize
from semaphone.packet.status import TokenStatus

RECEIVED, LOST, UNSENT, UNKNOWN = TokenStatus


def history(horizon: int, codebooks: int = 16, size: int = 2048, **options) -> PacketFormat:
    return PacketFormat.named("history", codebooks, size, copy_distance=horizon, **options)


formats = st.builds(
    history,
    st.integers(0, 15),
    st.sampled_from([1, 2, 8, 16, 32]),
    st.sampled_from([2, 1000, 2048]),
    loss_report=st.booleans(),
)


@st.composite
def talks(draw, max_chunks: int = 9):
    """A format, and chunks of tokens with masks that say for each age how much rides."""
    form = draw(formats)
    count = draw(st.integers(0, max_chunks))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    tokens = rng.integers(0, form.codebook_size, (count, form.num_codebooks))
    mask = st.lists(st.integers(0, form.num_codebooks), min_size=2, max_size=form.reach + 2).map(lambda m: Mask(*m))
    repeated = st.lists(mask, min_size=1, max_size=2).flatmap(st.sampled_from)
    return form, tokens, draw(st.lists(draw(st.sampled_from([mask, repeated])), min_size=count, max_size=count))


def read(form, packets, count):
    arrived = {packet.sequence: packet.payload for packet in packets}
    return [Depacketizer(form).read([arrived.get(n) for n in form.sequences_of(c)])[0] for c in range(count)]


# --- round trips


@settings(deadline=None)
@given(talks(), st.data())
def test_what_arrives_is_right_and_what_does_not_is_known(talk, data) -> None:
    form, tokens, masks = talk
    packets = send(form, tokens, masks)
    kept = [packet for packet in packets if data.draw(st.booleans())]
    numbers = {packet.sequence for packet in kept}
    for n, (chunk, mask, got) in enumerate(zip(tokens, masks, read(form, kept, len(tokens)), strict=True)):
        mask = form.effective(mask)
        ages = [age for age, number in enumerate(form.sequences_of(n)) if number in numbers]
        here = max((mask.at(age) for age in ages), default=0)
        np.testing.assert_array_equal(got.tokens[:here], chunk[:here])
        assert not got.tokens[here:].any()
        assert (got.status[:here] == RECEIVED).all()
        if here or 0 in ages:
            assert (got.status[here : mask.sent] == LOST).all()
            assert (got.status[mask.sent :] == UNSENT).all()
        else:  # a packet after it may tell of it because it carries something older
            assert (got.status == UNKNOWN).all() or (got.status[: mask.sent] == LOST).all()


@settings(deadline=None)
@given(talks())
def test_each_token_rides_in_as_many_packets_as_its_mask_says(talk) -> None:
    form, tokens, masks = talk
    packets = send(form, tokens, masks)
    assert [packet.sequence for packet in packets] == list(range(len(packets)))
    bits = sum(packet.token_bits for packet in packets)
    assert bits == form.bits_per_token * sum(form.effective(mask).transmissions for mask in masks)
    for packet in packets:
        payload = parse(form, packet.payload)
        assert serialize(form, payload) == packet.payload
        assert len(packet.payload) <= form.max_payload
        assert packet.toc_bits <= form.toc_bits
        assert 0 <= 8 * len(packet.payload) - packet.token_bits - packet.toc_bits < 8


@settings(deadline=None)
@given(talks())
def test_sizes_are_known_beforehand(talk) -> None:
    form, tokens, masks = talk
    masks = [*masks, *[Mask(0, 0)] * form.reach]
    for packet in send(form, tokens, masks[: len(tokens)]):
        earlier = [(mask,) for mask in masks[max(0, packet.block - form.reach) : packet.block]]
        copied = form.riding(earlier, Mask(0, 0))
        assert form.sizes([masks[packet.block]], copied) == (len(packet.payload),)


@given(st.integers(1, 32), st.integers(0, 15), st.data())
def test_tables(codebooks, horizon, data) -> None:
    pair = st.tuples(st.integers(0, codebooks), st.integers(0, codebooks)).map(lambda p: Mask(max(p), min(p)))
    rest = data.draw(st.lists(pair, max_size=horizon))
    while rest and not rest[-1].twice:
        rest.pop()
    sent = data.draw(st.integers(0, codebooks))
    told = (Mask(sent, sent), *rest)
    writer = BitWriter()
    write_table(writer, told, codebooks, horizon)
    assert writer.bits == table_bits(told, codebooks, horizon) <= most_table_bits(codebooks, horizon)
    reader = BitReader(writer.getvalue())
    assert read_table(reader, codebooks, horizon) == told
    assert 8 * len(writer.getvalue()) - reader.remaining == writer.bits


def test_tables_of_equal_chunks_are_short() -> None:
    def bits(masks: list[Mask], horizon: int) -> int:
        return table_bits(table(masks), 16, horizon)

    assert [bits([Mask(8, *[8] * h)] * (h + 1), h) for h in (0, 1, 3, 7, 15)] == [5, 7, 8, 9, 10]
    assert [bits([mask] * 4, 3) for mask in (Mask(8, 8, 4, 4), Mask(16, 8, 5, 3), Mask(9, 3))] == [14, 14, 14]
    assert bits([Mask(16, 8, 6, 4, 3, 2, 1)] * 7, 6) == 19
    assert bits([Mask(8, 0, 8)] * 3, 2) == 1 + 5 + 2 + 1 + 8 + 1 + 1 + 8
    assert bits([Mask(8, 8, 8, 8), Mask(7, 7, 7, 7)] * 2, 3) == most_table_bits(16, 3) == 38


def test_every_nested_table_has_a_number_of_its_own() -> None:
    seen = set()
    for lengths in itertools.product(range(4), repeat=4):
        told = table([Mask(*lengths)] * 4)
        if list(lengths) != sorted(lengths, reverse=True):
            continue
        writer = BitWriter()
        write_table(writer, told, 3, 3)
        seen.add((writer.getvalue(), writer.bits))
        assert read_table(BitReader(writer.getvalue()), 3, 3) == told
    assert len(seen) == math.comb(3 + 4, 4)


# --- the layout


def test_a_packet_carries_beginnings_of_the_chunks_before() -> None:
    form = history(3)
    packets = send(form, np.arange(4 * 16).reshape(4, 16), [(4, 3, 0, 1)] * 4)
    assert len(packets) == 7
    carried = [parse(form, packet.payload).tokens for packet in packets]
    assert carried[:4] == [
        (0, 1, 2, 3),
        (16, 17, 18, 19, 0, 1, 2),
        (32, 33, 34, 35, 16, 17, 18),
        (48, 49, 50, 51, 32, 33, 34, 0),
    ]
    assert carried[4:] == [(48, 49, 50, 16), (32,), (48,)]
    assert parse(form, packets[3].payload).masks == ((4, 4), (4, 3), (4, 0), (4, 1))


def test_statuses_follow_from_any_one_packet() -> None:
    form = history(3)
    packets = send(form, np.arange(4 * 16).reshape(4, 16), [(4, 3, 0, 1)] * 4)

    def status(*ages: int) -> list[TokenStatus]:
        return [TokenStatus(s) for s in read(form, [packets[age] for age in ages], 1)[0].status[:5]]

    assert status(0) == [RECEIVED, RECEIVED, RECEIVED, RECEIVED, UNSENT]
    assert status(1) == status(1, 3) == [RECEIVED, RECEIVED, RECEIVED, LOST, UNSENT]
    assert status(2) == [UNKNOWN] * 5  # nothing of it is there, and nothing older: the table ends before it
    assert status(3) == [RECEIVED, LOST, LOST, LOST, UNSENT]
    assert status() == [UNKNOWN] * 5


def test_the_next_chunk_is_known_as_far_as_its_packets_came() -> None:
    form = history(2)
    tokens = np.arange(3 * 16).reshape(3, 16)
    packets = send(form, tokens, [(4, 4, 4)] * 3)
    payloads = [packet.payload for packet in packets]
    coming = Depacketizer(form).read([None, None, payloads[2]])[0].coming
    assert coming is not None
    np.testing.assert_array_equal(coming.tokens[:4], tokens[1, :4])
    assert Depacketizer(form).read([payloads[0], None, None])[0].coming is None


def test_the_papers_masks_are_the_case_of_one_later_packet() -> None:
    form = history(1)
    assert form.effective((3, 5)) == form.effective((5, 3)) == Mask(5, 3)
    assert form.effective(Mask(5, 3, 2)) == (5, 3)  # the horizon does not reach so far
    assert history(3).effective(Mask(5, 0, 3, 0)) == (5, 0, 3)
    assert history(0).effective((5, 3)) == (5, 0)
    assert (form.copy_delay, history(3).copy_delay, history(0).copy_delay) == pytest.approx((0.08, 0.08, 0.0))
    assert (form.partner_of(5), history(3).partner_of(5), history(0).partner_of(5)) == (4, 4, -1)


def test_golden_payloads() -> None:
    """The bytes of docs/wire-format.md; they must never change."""
    tokens = np.array([[1, 2, 3, 4, 0, 0, 0, 0], [2047, 1024, 512, 0, 0, 0, 0, 0]])

    def hexes(form, masks, loss=None) -> list[str]:
        return [packet.payload.hex() for packet in send(form, tokens, masks, loss)]

    assert hexes(history(1, 8), [(4, 1), (3, 0)]) == GOLDEN["the paper's masks"]
    assert hexes(history(2, 8), [(4, 4, 2), (3, 3, 2)]) == GOLDEN["horizon of 2"]
    assert (
        hexes(history(2, 8, loss_report=True), [(3, 3, 3)] * 2, 0.125) == GOLDEN["3 tokens in 3 packets, loss report"]
    )


GOLDEN: dict[str, list[str]] = {
    "the paper's masks": ["20004010030080", "1a5fff8008000080"],
    "horizon of 2": ["20002008018040", "1938fff0010000100400c020", "012533ffc00400004010", "0323ffc000"],
    "3 tokens in 3 packets, loss report": [
        "18190020080180",
        "1a19fff0010000100400c0",
        "012633ffe002000020080180",
        "032467ffc00400",
    ],
}


# --- hostile input


@settings(max_examples=400, deadline=None)
@given(formats, st.binary(max_size=200))
def test_garbage_is_refused_or_is_the_only_way_to_write_what_it_says(form, data) -> None:
    try:
        payload = parse(form, data)
    except PacketError as error:
        assert str(error).count("\n") == 0  # noqa: PT017
        return
    assert serialize(form, payload) == data


@settings(deadline=None)
@given(talks(max_chunks=4), st.data())
def test_a_flipped_bit_is_refused_or_changes_something(talk, data) -> None:
    form, tokens, masks = talk
    packets = send(form, tokens, masks)
    if not packets:
        return
    packet = data.draw(st.sampled_from(packets))
    position = data.draw(st.integers(0, 8 * len(packet.payload) - 1))
    damaged = bytearray(packet.payload)
    damaged[position // 8] ^= 0x80 >> position % 8
    arrived = {p.sequence: bytes(damaged) if p is packet else p.payload for p in packets}
    try:
        assert parse(form, bytes(damaged)) != parse(form, packet.payload)
        for block in range(max(0, packet.block - form.reach), packet.block + 1):
            Depacketizer(form).read([arrived.get(n) for n in form.sequences_of(block)])
    except PacketError:
        pass


@settings(deadline=None)
@given(talks(max_chunks=3))
def test_every_truncation_is_refused(talk) -> None:
    form, tokens, masks = talk
    for packet in send(form, tokens, masks):
        for size in range(len(packet.payload)):
            with pytest.raises(PacketError, match=r"^The packet (is empty\.$|ends in the middle of )"):
                parse(form, packet.payload[:size])


def test_exact_texts() -> None:
    def text(bits: str, form: PacketFormat) -> str:
        bits = bits.replace(" ", "")
        bits += "0" * (-len(bits) % 8)
        with pytest.raises(PacketError) as caught:
            parse(form, int(bits, 2).to_bytes(len(bits) // 8, "big"))
        return str(caught.value)

    shorter = "The packet's table of contents can be written shorter."
    beyond = "The packet's table of contents is out of range."
    few = history(2, 2)  # lengths and counts of 2 bits, pairs of 3, nested tables of 4
    assert text("0 11", few) == beyond  # a length of 3
    assert text("0 01 11", few) == beyond  # 3 older chunks
    assert text("0 01 00 1 110", few) == beyond  # pair 6
    assert text("0 01 00 1 001 1", few) == shorter  # pair (1, 0), and nothing after it
    assert text("0 01 00 1 010 0", few) == shorter  # the same mask twice
    assert text("0 01 00 1 000 0 1 000", few) == shorter
    assert text("0 10 00 1 100 0 0", few) == shorter  # (2, 1, 0) is nested
    assert text("1 0011", few) == shorter  # (1, 1, 1) is a run
    assert text("1 1010", few) == beyond  # there are 10 of them
    ends = "The packet ends in the middle of its "
    assert text("0 0001 00 0", history(3, 8)) == ends + "tokens: 11 bits are needed, 0 left."
    assert text("0 0001 00 1", history(3, 8)) == ends + "table of contents: 6 bits are needed, 0 left."
    assert text("0000" + 12 * "0", history(0, 8)) == "The packet goes on after its last token."
    assert text("00001", history(0, 8)) == "The packet's padding is not zero."


def test_packets_that_contradict_each_other() -> None:
    form = history(2)
    tokens = np.arange(48).reshape(3, 16)
    sent = [send(form, tokens + more, [(n, n, n)] * 3) for more, n in ((0, 4), (0, 5), (1, 4))]
    first, second, third = ([packet.payload for packet in packets] for packets in sent)
    with pytest.raises(PacketError, match=r"^The packets of a chunk disagree about what was sent\.$"):
        Depacketizer(form).read([first[0], None, second[2]])
    with pytest.raises(PacketError, match=r"^Two packets disagree about a token that was sent twice\.$"):
        Depacketizer(form).read([None, first[1], third[2]])
