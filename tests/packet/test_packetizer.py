from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semaphone.errors import InputError
from semaphone.packet.bitstream import PacketError
from semaphone.packet.format import SCHEDULES, Mask, PacketFormat, pair_index, pair_of
from semaphone.packet.packetizer import Depacketizer, Packetizer
from semaphone.packet.payload import parse, serialize
from semaphone.packet.status import TokenStatus

NANO = PacketFormat(16, 2048)
RECEIVED, LOST, UNSENT, UNKNOWN = TokenStatus


def formats_of(schedules):
    return st.builds(
        lambda schedule, n, k, options: PacketFormat.named(schedule, n, k, **options),
        st.sampled_from(schedules),
        st.sampled_from([1, 2, 8, 16, 32]),
        st.sampled_from([2, 1000, 1024, 2048, 65536]),
        st.fixed_dictionaries({"loss_report": st.booleans()}),
    ).flatmap(
        lambda form: (
            st.integers(0, 3).map(lambda distance: replace(form, copy_distance=distance))
            if form.schedule in ("bundle", "history")
            else st.just(form)
        )
    )


formats = formats_of(SCHEDULES)
others = formats_of([schedule for schedule in SCHEDULES if schedule != "history"])  # test_history.py has more of that


@st.composite
def talks(draw, max_chunks: int = 9, formats=formats):
    """A format, and chunks of tokens with their masks."""
    form = draw(formats)
    count = draw(st.integers(0, max_chunks))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    tokens = rng.integers(0, form.codebook_size, (count, form.num_codebooks))
    size = st.integers(0, form.num_codebooks)
    return form, tokens, draw(st.lists(st.tuples(size, size), min_size=count, max_size=count))


def send(form, tokens, masks, loss=None):
    packetizer, state, packets = Packetizer(form), None, []
    for chunk, mask in zip(tokens, masks, strict=True):
        more, state = packetizer.push(chunk, mask, state, loss)
        packets += more
    more, state = packetizer.flush(state, loss)
    return packets + more


def receive(form, packets, chunks):
    """The first `chunks` chunks as tokens and statuses."""
    arrived = {packet.sequence: packet.payload for packet in packets}
    got = []
    for block in range(-(-chunks // form.chunks_per_block)):
        got += Depacketizer(form).read([arrived.get(n) for n in form.sequences_of(block)])
    return got[:chunks]


# --- round trips


@given(talks())
def test_without_loss_everything_sent_arrives(talk) -> None:
    form, tokens, masks = talk
    packets = send(form, tokens, masks)
    assert [packet.sequence for packet in packets] == list(range(len(packets)))
    assert [packet.block for packet in packets] == [form.block_of(packet.sequence) for packet in packets]
    assert sorted(p.send_time for p in packets) == [p.send_time for p in packets]
    for chunk, mask, got in zip(tokens, masks, receive(form, packets, len(tokens)), strict=True):
        sent = max(mask)
        np.testing.assert_array_equal(got.tokens[:sent], chunk[:sent])
        assert not got.tokens[sent:].any()
        np.testing.assert_array_equal(got.status, [RECEIVED] * sent + [UNSENT] * (form.num_codebooks - sent))


@given(talks(formats=others), st.data())
def test_with_loss_what_arrives_is_right_and_what_does_not_is_known(talk, data) -> None:
    form, tokens, masks = talk
    packets = send(form, tokens, masks)
    kept = [packet for packet in packets if data.draw(st.booleans())]
    numbers = {packet.sequence for packet in kept}
    for n, (chunk, mask, got) in enumerate(zip(tokens, masks, receive(form, kept, len(tokens)), strict=True)):
        mask = form.effective(mask)
        here = [number in numbers for number in form.sequences_of(n // form.chunks_per_block)]
        received = got.status == RECEIVED
        np.testing.assert_array_equal(got.tokens[received], chunk[received])
        assert not received[mask.sent :].any()
        if any(here):
            assert received[: mask.twice].all()  # one of the two copies is enough
        if all(here):
            assert received[: mask.sent].all()
        if not any(here):
            assert (got.status == UNKNOWN).all()
        if form.schedule != "bundle" and any(here):
            np.testing.assert_array_equal(got.status[mask.sent :], UNSENT)
            assert set(got.status[: mask.sent]) <= {RECEIVED, LOST}
        if form.schedule == "bundle" and here == [False, True]:
            np.testing.assert_array_equal(got.status[mask.twice :], UNKNOWN)


@given(talks(), st.one_of(st.none(), st.integers(0, 200)))
def test_payloads_parse_and_serialize(talk, half_percents) -> None:
    form, tokens, masks = talk
    loss = None if half_percents is None else half_percents / 200
    for packet in send(form, tokens, masks, loss):
        payload = parse(form, packet.payload)
        assert serialize(form, payload) == packet.payload
        assert payload.loss == (loss if form.loss_report else None)
        assert len(packet.payload) <= form.max_payload
        assert 0 <= 8 * len(packet.payload) - packet.token_bits - packet.toc_bits < 8


@given(talks())
def test_masks_say_how_many_tokens_go(talk) -> None:
    form, tokens, masks = talk
    bits = sum(packet.token_bits for packet in send(form, tokens, masks))
    assert bits == form.bits_per_token * sum(form.effective(mask).transmissions for mask in masks)


# --- hostile input


@settings(max_examples=400)
@given(formats, st.binary(max_size=200))
def test_garbage_is_refused_or_is_the_only_way_to_write_what_it_says(form, data) -> None:
    try:
        payload = parse(form, data)
    except PacketError as error:
        assert str(error).count("\n") == 0  # noqa: PT017
        return
    assert serialize(form, payload) == data


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
    block = [bytes(damaged) if p is packet else p.payload for p in packets]
    arrived = dict(enumerate(block))
    try:
        assert parse(form, bytes(damaged)) != parse(form, packet.payload)
        Depacketizer(form).read([arrived.get(n) for n in form.sequences_of(packet.block)])
    except PacketError:
        pass


@given(talks(max_chunks=4))
def test_every_truncation_is_refused(talk) -> None:
    form, tokens, masks = talk
    for packet in send(form, tokens, masks):
        for size in range(len(packet.payload)):
            with pytest.raises(PacketError, match=r"^The packet (is empty\.$|ends in the middle of )"):
                parse(form, packet.payload[:size])


def test_exact_texts() -> None:
    form = PacketFormat(16, 2000, loss_report=True)

    def text(data: bytes) -> str:
        with pytest.raises(PacketError) as caught:
            parse(form, data)
        return str(caught.value)

    assert text(b"") == "The packet is empty."
    assert text(b"\0") == "The packet ends in the middle of its table of contents: 15 bits are needed, 7 left."
    assert text(b"\x7f\xff\xff") == "The packet's table of contents is out of range."
    assert text(b"\0\1\xff") == "The packet's table of contents has a single token that is not sent twice."
    assert text(b"\0\0") == "The packet ends in the middle of its loss report: 8 bits are needed, 0 left."
    assert text(b"\0\0\xc9") == "The packet reports a loss of 201 half percents, which cannot be."
    assert text(b"\0\2\xff\xff") == "The packet ends in the middle of its tokens: 11 bits are needed, 8 left."
    assert text(b"\0\2\xff\xff\xe0") == "The packet has token 2047 of codebook 0, which has 2000."
    assert text(b"\0\2\xff\0\1") == "The packet's padding is not zero."
    assert text(b"\0\0\xff\0") == "The packet goes on after its last token."
    assert text(bytes(100)) == "The packet has 100 bytes; this format has 47 at the most."


def test_packets_that_contradict_each_other() -> None:
    tokens = np.arange(64).reshape(4, 16)
    first, second, third, _ = send(NANO, tokens, [(4, 2), (4, 2), (5, 2), (4, 2)])
    read = Depacketizer(NANO).read
    with pytest.raises(PacketError, match=r"^A packet stands in the place of the other one of its block\.$"):
        read([second.payload, None])
    with pytest.raises(PacketError, match=r"^The two packets of a block disagree about what was sent\.$"):
        read([third.payload, second.payload])
    _, other = send(NANO, tokens + 1, [(4, 2), (4, 2)] + [(0, 0)] * 2)[:2]
    with pytest.raises(PacketError, match=r"^Two packets disagree about a token that was sent twice\.$"):
        read([first.payload, other.payload])
    block = PacketFormat.named("block", 16, 2048)
    one, two = (send(block, tokens[:2], [(sent, 3)] * 2) for sent in (3, 4))
    with pytest.raises(PacketError, match="disagree about a token"):
        Depacketizer(block).read([send(block, tokens[:2], [(2, 1)] * 2)[0].payload, one[1].payload])
    assert len(Depacketizer(block).read([two[0].payload, one[1].payload])) == 2


# --- the layout


def test_one_lost_packet_takes_every_other_token_of_both_chunks() -> None:
    tokens = np.arange(32).reshape(2, 16)
    first, second = send(NANO, tokens, [(8, 2), (5, 0)])
    a, b = Depacketizer(NANO).read([first.payload, None])
    assert list(a.status[:9]) == [RECEIVED, RECEIVED, LOST, RECEIVED, LOST, RECEIVED, LOST, RECEIVED, UNSENT]
    assert list(b.status[:6]) == [RECEIVED, LOST, RECEIVED, LOST, RECEIVED, UNSENT]
    a, b = Depacketizer(NANO).read([None, second.payload])
    assert list(a.status[:9]) == [RECEIVED, RECEIVED, RECEIVED, LOST, RECEIVED, LOST, RECEIVED, LOST, UNSENT]
    assert list(b.status[:6]) == [LOST, RECEIVED, LOST, RECEIVED, LOST, UNSENT]


def test_a_single_token_goes_twice() -> None:
    assert NANO.effective((1, 0)) == (1, 1)
    packets = send(NANO, np.full((2, 16), 5), [(1, 0), (0, 1)])
    assert [packet.token_bits for packet in packets] == [22, 22]


def test_pairs_are_numbered() -> None:
    pairs = [Mask(sent, twice) for sent in range(17) for twice in range(sent + 1)]
    assert [pair_index(pair) for pair in pairs] == list(range(153))
    assert [pair_of(index) for index in range(153)] == pairs


@pytest.mark.parametrize(
    ("schedule", "rate", "block", "toc_bits", "sequences"),
    [
        ("split", 12.5, 0.16, 16, (6, 7)),
        ("sliding", 12.5, 0.08, 15, (3, 4)),
        ("block", 6.25, 0.16, 17, (3, 4)),
        ("bundle:80ms", 12.5, 0.08, 9, (3, 4)),
        ("bundle:160ms", 6.25, 0.16, 17, (3, 4)),
        ("bundle:320ms", 3.125, 0.32, 33, (3, 4)),
        ("history", 12.5, 0.08, 38, (3, 4, 5, 6)),
    ],
)
def test_schedules(schedule, rate, block, toc_bits, sequences) -> None:
    form = PacketFormat.named(schedule, 16, 2048)
    assert form.packet_rate == rate
    assert form.block_duration == block
    assert form.toc_bits == toc_bits
    assert form.sequences_of(3) == sequences


def test_send_times() -> None:
    split = PacketFormat(16, 2048, spacing=0.08)
    assert [split.send_time(n) for n in range(4)] == pytest.approx([0.16, 0.24, 0.32, 0.40])
    sliding = PacketFormat.named("sliding", 16, 2048)
    assert [sliding.send_time(n) for n in range(4)] == pytest.approx([0.08, 0.16, 0.24, 0.32])
    assert (split.copy_delay, sliding.copy_delay) == pytest.approx((0.08, 0.08))
    bundle = PacketFormat.named("bundle:320ms", 16, 2048)
    assert [bundle.send_time(n) for n in range(2)] == pytest.approx([0.32, 0.64])


def test_sliding_packets_hold_halves_of_two_chunks() -> None:
    form = PacketFormat.named("sliding", 16, 2048)
    packets = send(form, np.arange(3 * 16).reshape(3, 16), [(5, 1), (4, 0), (3, 2)])
    assert len(packets) == 4  # the last one holds what is left of the last chunk
    carried = [parse(form, packet.payload).tokens for packet in packets]
    assert carried == [(0, 2, 4), (16, 18, 0, 1, 3), (32, 33, 34, 17, 19), (32, 33)]
    a, b = (Depacketizer(form).read(pair)[0] for pair in ([packets[0].payload, None], [None, packets[2].payload]))
    assert list(a.status[:6]) == [RECEIVED, LOST, RECEIVED, LOST, RECEIVED, UNSENT]
    assert list(b.status[:5]) == [LOST, RECEIVED, LOST, RECEIVED, UNSENT]
    other = send(form, np.arange(3 * 16).reshape(3, 16), [(4, 1), (4, 0), (3, 2)])
    with pytest.raises(PacketError, match=r"^The two packets of a block disagree about what was sent\.$"):
        Depacketizer(form).read([packets[0].payload, other[1].payload])


def test_copies_ride_later() -> None:
    form = PacketFormat.named("block", 16, 2048, copy_distance=2)
    tokens = np.arange(6 * 16).reshape(6, 16)
    packets = send(form, tokens, [(4, 2)] * 6)
    assert len(packets) == 5  # three blocks, and two that carry the last copies
    assert [packet.token_bits // 11 for packet in packets] == [8, 8, 12, 4, 4]
    a, b = Depacketizer(form).read([None, packets[2].payload])
    assert list(a.tokens[:3]) == [0, 1, 0]
    assert list(b.status[:3]) == [RECEIVED, RECEIVED, UNKNOWN]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_block_that_is_left_out_leaves_the_others_alone(schedule) -> None:
    form = PacketFormat.named(schedule, 16, 2048)
    packetizer, state, packets = Packetizer(form), None, []
    count, rng = 5 * form.chunks_per_block, np.random.default_rng(0)
    tokens = rng.integers(0, 2048, (count, 16))
    for chunk in range(count):
        if chunk == 2 * form.chunks_per_block:
            state = packetizer.skip(state)
        more, state = packetizer.push(tokens[chunk], (8, 3), state)
        packets += more
    packets += packetizer.flush(state)[0]
    got = receive(form, packets, count + form.chunks_per_block)
    gone = range(2 * form.chunks_per_block, 3 * form.chunks_per_block)
    for chunk, one in enumerate(got):
        received = one.status == RECEIVED
        if chunk in gone:
            assert not received.any()
        else:
            said = tokens[chunk if chunk < gone.start else chunk - form.chunks_per_block]
            np.testing.assert_array_equal(one.tokens[received], said[received])
            whole = form.schedule == "split" or chunk not in range(gone.start - form.chunks_per_block, gone.start)
            assert received[: 8 if whole or form.schedule == "bundle" else 1].all()


def test_a_trailing_chunk_is_not_lost() -> None:
    packets = send(NANO, np.full((1, 16), 9), [(16, 0)])
    assert len(packets) == 2
    a, b = Depacketizer(NANO).read([packet.payload for packet in packets])
    assert (a.tokens == 9).all()
    assert (b.status == UNSENT).all()


def test_constant_size_hides_what_was_said() -> None:
    form = replace(NANO, constant_size=30)
    packets = send(form, np.ones((4, 16), np.int64), [(0, 0), (1, 1), (16, 0), (8, 4)])
    assert {len(packet.payload) for packet in packets} == {30}
    assert [parse(form, packet.payload).half for packet in packets] == [0, 1, 0, 1]
    with pytest.raises(PacketError, match=r"^The packet should have 30 bytes, not 29\.$"):
        parse(form, packets[0].payload[:29])
    with pytest.raises(PacketError, match=r"^A payload of 46 bytes does not fit the constant size of 30\.$"):
        send(form, np.ones((2, 16), np.int64), [(16, 16)] * 2)


def test_golden_payloads() -> None:
    """The bytes of docs/wire-format.md; they must never change."""
    tokens = np.array([[1, 2, 3, 4, 0, 0, 0, 0], [2047, 1024, 512, 0, 0, 0, 0, 0]])
    masks = [(4, 1), (3, 0)]

    def hexes(form, loss=None) -> list[str]:
        return [packet.payload.hex() for packet in send(form, tokens, masks, loss)]

    assert hexes(PacketFormat(8, 2048)) == GOLDEN["split"]
    assert hexes(PacketFormat(16, 2048, loss_report=True), 0.125) == GOLDEN["split, 16 codebooks, loss report"]
    assert hexes(PacketFormat.named("sliding", 8, 2048)) == GOLDEN["sliding"]
    assert hexes(PacketFormat.named("block", 8, 2048)) == GOLDEN["block"]
    assert hexes(PacketFormat.named("bundle:80ms", 8, 2048, copy_distance=0)) == GOLDEN["bundle:80ms without copies"]


GOLDEN = {
    "split": ["1f5002008027ff4000", "9f500200e000"],
    "split, 16 codebooks, loss report": ["069919002008027ff400", "86991900200e0000"],
    "sliding": ["3de0040180", "233ffd000010040100", "00d000"],
    "block": ["62b80100400c027ff8008000", "004801"],
    "bundle:80ms without copies": ["400200801804", "3fff001000"],
}


# --- mistakes of a caller


def test_wrong_chunks() -> None:
    push = Packetizer(NANO).push
    with pytest.raises(ValueError, match="does not fit 16 codebooks"):
        push(np.zeros(16, np.int64), (17, 0))
    with pytest.raises(ValueError, match="sends 3 tokens below 2048"):
        push(np.zeros(2, np.int64), (3, 0))
    with pytest.raises(ValueError, match="sends 3 tokens below 2048"):
        push(np.full(3, 2048), (3, 0))
    with pytest.raises(ValueError, match="a loss rate lies"):
        push(np.zeros(16, np.int64), (3, 0), loss=1.5)
    with pytest.raises(ValueError, match="takes 2 payloads"):
        Depacketizer(NANO).read([None])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"num_codebooks": 33}, "A packet holds 1 to 32 codebooks, not 33."),
        ({"codebook_size": 1}, "A codebook has 2 to 65536 entries, not 1."),
        ({"copy_distance": 1}, "In a split block copies ride in its other packet, not in a later block."),
        ({"spacing": 0.2}, "The packets of a block lie 0 to 0.16 s apart, in whole milliseconds, not 0.2 s."),
        ({"schedule": "bundle", "chunks_per_packet": 3}, "A bundle has 1, 2 or 4 chunks, not 3."),
        ({"schedule": "bundle", "spacing": 0.1}, "A bundle is one packet, so there is no spacing."),
        ({"schedule": "bundle", "copy_distance": 16}, "Copies ride up to 15 packets later, not 16."),
        ({"schedule": "sliding", "chunks_per_packet": 2}, "A sliding schedule has one packet a chunk."),
        (
            {"schedule": "sliding", "copy_distance": 1},
            "In a sliding schedule copies ride in the next packet, not in a later one.",
        ),
        (
            {"schedule": "sliding", "spacing": 0.08},
            "A sliding schedule has no spacing: its packets are a chunk apart as they are.",
        ),
        ({"schedule": "pairs"}, "A schedule is split, sliding, bundle or history, not 'pairs'."),
        ({"schedule": "history", "chunks_per_packet": 2}, "A history has one packet a chunk."),
        ({"schedule": "history", "copy_distance": 16}, "The horizon of a history is 0 to 15 packets, not 16."),
        (
            {"schedule": "history", "spacing": 0.08},
            "A history has no spacing: its packets are a chunk apart as they are.",
        ),
        ({"constant_size": 5000}, "A payload has up to 1200 bytes, not 5000."),
    ],
)
def test_wrong_formats(options, sentence) -> None:
    with pytest.raises(InputError) as caught:
        PacketFormat(**{"num_codebooks": 16, "codebook_size": 2048, **options})
    assert str(caught.value) == sentence


def test_wrong_schedule() -> None:
    with pytest.raises(InputError, match="is not known; there are sliding, split, block, bundle:80ms, "):
        PacketFormat.named("weekly", 16, 2048)


@given(talks())
def test_sizes_are_known_beforehand(talk):
    form, tokens, masks = talk
    chunks = form.chunks_per_block
    padded = [Mask(*mask) for mask in masks] + [Mask(0, 0)] * (-len(masks) % chunks)
    blocks = [padded[i : i + chunks] for i in range(0, len(padded), chunks)]
    by_block: dict[int, tuple[int, ...]] = {}
    for packet in send(form, tokens, masks):
        by_block[packet.block] = (*by_block.get(packet.block, ()), len(packet.payload))
    for block, sizes in by_block.items():
        blocks += [[Mask(0, 0)] * chunks] * (block + 1 - len(blocks))
        own = blocks[block]
        copied = form.riding([tuple(some) for some in blocks[max(0, block - form.reach) : block]], Mask(0, 0))
        assert form.sizes(own, copied) == sizes
