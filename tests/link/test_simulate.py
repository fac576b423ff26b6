from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.codec.tiny import tiny_codec

from semaphone.channel.erasure import parse_channel
from semaphone.controller.base import FixedController
from semaphone.link.receiver import Receiver
from semaphone.link.simulate import Link, Record, simulate
from semaphone.link.stored import encode
from semaphone.link.talk import Length, aligned, steps
from semaphone.link.transmitter import Transmitter
from semaphone.packet.format import SCHEDULES, PacketFormat
from semaphone.recovery.base import Recovered, TokenStatus
from semaphone.recovery.hold import HoldRecovery, NoRecovery

CODEC = tiny_codec()


def speech(samples: int) -> np.ndarray:
    return (0.1 * np.random.default_rng(3).standard_normal(samples)).astype(np.float32)


def link(channel="none", schedule="split", recovery=None, codebooks=8, copies=3) -> Link:
    form = PacketFormat.named(schedule, 16, 32)
    controller = FixedController(codebooks, copies)
    return Link(CODEC, controller, form, recovery or HoldRecovery(), parse_channel(channel))


def run(blocks, a_link, seed=7):
    record = Record()
    heard = list(simulate(blocks, a_link, seed, record))
    return (np.concatenate(heard) if heard else np.zeros(0, np.float32)), record


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("dtx", [False, True])
def test_blocks_together_are_heard_as_one_by_one(schedule, dtx):
    said = speech(40_000)
    said[12_000:26_000] *= 1e-3  # a pause
    found = []
    for together in (1, 5):
        a_link, record = replace(link("uniform:0.3", schedule), dtx=dtx), Record()
        heard = np.concatenate(list(simulate([said], a_link, 7, record, together)))
        found.append((heard, record))
    (one, alone), (other, many) = found
    np.testing.assert_allclose(one, other, atol=1e-4)
    np.testing.assert_array_equal(alone.status, many.status)
    assert (alone.masks, alone.packets, alone.told) == (many.masks, many.packets, many.told)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("samples", [1, 1279, 2560, 12345])
def test_without_loss_the_link_is_the_codec(schedule, samples):
    said = speech(samples)
    heard, record = run([said], link(schedule=schedule))
    chunks = -(-(samples + 320) // 1280)
    padded = np.pad(said, (0, chunks * 1280 - samples))
    tokens = CODEC.encode(torch.from_numpy(padded)[None]).tokens[:, :8]
    direct = CODEC.decode(tokens).speech[0].numpy()[320 : 320 + samples]
    np.testing.assert_allclose(heard, direct, atol=1e-4)
    assert record.report(link(), 7).token_loss_rate == 0


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_block_sizes_of_the_input_do_not_matter(schedule, rng):
    said = speech(20_000)
    cuts = np.sort(rng.integers(0, 20_000, 30))
    a_link = link("uniform:0.3", schedule)
    whole, _ = run([said], a_link)
    pieces, _ = run([p for p in np.split(said, cuts) if len(p)], a_link)
    np.testing.assert_array_equal(whole, pieces)


def test_chunk_by_chunk_is_the_whole_for_transmitter_and_receiver():
    said = speech(12 * 1280)
    form = PacketFormat.named("split", 16, 32)
    transmitter = Transmitter(CODEC, FixedController(8, 3), form)
    at_once, _ = transmitter.step(said)
    state, packets = None, []
    for chunk in np.split(said, 12):
        sent, state = transmitter.step(chunk, state)
        packets += sent.packets
    assert packets == at_once.packets
    receiver = Receiver(CODEC, HoldRecovery(), form)
    payloads = [p.payload for p in packets]
    hearing, blocks = None, []
    for b in range(6):
        heard, hearing = receiver.step(payloads[2 * b : 2 * b + 2], hearing)
        blocks.append(heard.speech)
    chunks = [c for b in range(6) for c in receiver.read(payloads[2 * b : 2 * b + 2])[0]]
    whole, _ = receiver.render(chunks)
    np.testing.assert_allclose(np.concatenate(blocks), whole.speech, atol=1e-4)


def test_the_same_seed_loses_the_same_packets():
    said = speech(60_000)
    a, first = run([said], link("gilbert-elliott:loss=0.3,burst=240ms"), 5)
    b, second = run([said], link("gilbert-elliott:loss=0.3,burst=240ms"), 5)
    c, third = run([said], link("gilbert-elliott:loss=0.3,burst=240ms"), 6)
    np.testing.assert_array_equal(a, b)
    assert first.packets == second.packets != third.packets
    assert len(a) == len(c) == len(said)


def test_everything_lost_is_silence():
    heard, record = run([speech(60_000)], link("uniform:1.0"))
    assert np.abs(heard[-8000:]).max() < 1e-3
    report = record.report(link("uniform:1.0"), 7)
    assert (report.packet_loss_rate, report.token_loss_rate) == (1.0, 1.0)


def test_the_report_counts_bits():
    a_link = link("uniform:0.2", codebooks=8, copies=8)
    _, record = run([speech(160_000 - 320)], a_link)
    report = record.report(a_link, 7, "hold", "fixed")
    assert report.token_bps == pytest.approx(12.5 * 16 * 5, rel=0.01)  # 125 chunks, 16 transmissions of 5 bits
    assert report.payload_bps > report.token_bps + 12.5 * 16
    assert report.gross_bps == pytest.approx(report.payload_bps + 320 * report.packets_sent / report.seconds, rel=1e-3)
    assert 0.1 < report.packet_loss_rate < 0.3
    assert report.token_loss_rate < report.packet_loss_rate / 2  # every token went twice
    assert report.latency_ms["context"].p50 == 160
    assert report.latency_ms["lookahead"].p50 == 20
    assert report.latency_ms["total"].p99 >= report.latency_ms["total"].p50 > 180


def test_copies_in_later_packets_cost_delay():
    _, record = run([speech(60_000)], link(schedule="block"))
    assert record.report(link(schedule="block"), 7).latency_ms["context"].p50 == 320


def test_losing_tokens_one_by_one():
    a_link = link("uniform:loss=0.25,per=token", codebooks=16, copies=4)
    _, record = run([speech(160_000)], a_link)
    lost = (np.array(record.status) == TokenStatus.LOST).mean(0)
    assert lost[4:].mean() == pytest.approx(0.25, abs=0.05)
    assert lost[:4].mean() == pytest.approx(0.0625, abs=0.04)


class Spy:
    """Remembers what recovery is given."""

    def __init__(self) -> None:
        self.seen: list[tuple[list[int], list[int]]] = []
        self.coming: list[tuple[list[int], list[int]] | None] = []

    def step(self, tokens, status, state, *, coming=None):
        self.seen.append((tokens[0].tolist(), status[0].tolist()))
        self.coming.append(None if coming is None else (coming[0][0].tolist(), coming[1][0].tolist()))
        return Recovered(tokens, (status == TokenStatus.RECEIVED).float(), torch.ones(1)), None


def test_one_lost_packet_takes_every_other_token():
    form = PacketFormat.named("split", 16, 32)
    transmitter = Transmitter(CODEC, FixedController(6, 2), form)
    sent, _ = transmitter.step(speech(2560))
    spy = Spy()
    Receiver(CODEC, spy, form).step([sent.packets[0].payload, None])
    for _, status in spy.seen:
        assert status[:2] == [TokenStatus.RECEIVED] * 2
        assert sorted(status[2:6]) == [TokenStatus.RECEIVED] * 2 + [TokenStatus.LOST] * 2
        assert status[6:] == [TokenStatus.UNSENT] * 10


def test_what_a_packet_carries_of_the_next_chunk_is_known_before_that_is_due():
    form = PacketFormat.named("sliding", 16, 32)
    sent, _ = Transmitter(CODEC, FixedController(6, 2), form).step(speech(2 * 1280))
    second = sent.packets[1].payload
    spy = Spy()
    receiver = Receiver(CODEC, spy, form)
    _, state = receiver.step([None, second])
    receiver.step([second, None], state)
    received, lost, unsent = (int(s) for s in TokenStatus if s != TokenStatus.UNKNOWN)
    assert spy.seen[0][1] == [received, received, lost, received, lost, received, *[unsent] * 10]
    assert spy.coming[1] is None
    assert spy.coming[0] is not None
    assert spy.coming[0][1] == [received, received, received, lost, received, lost, *[unsent] * 10]
    assert spy.coming[0] == spy.seen[1]  # it says the same when its own chunk is due
    assert any(spy.coming[0][0])


def test_damaged_packets_count_as_lost(rng):
    form = PacketFormat.named("split", 16, 32)
    transmitter = Transmitter(CODEC, FixedController(6, 2), form)
    sent, _ = transmitter.step(speech(2560))
    receiver = Receiver(CODEC, NoRecovery(), form)
    good = [p.payload for p in sent.packets]
    for _ in range(300):
        broken = bytearray(good[0])
        broken[rng.integers(len(broken))] ^= 1 << rng.integers(8)
        heard, _ = receiver.step([bytes(broken), good[1]])
        assert np.isfinite(heard.speech).all()
    heard, _ = receiver.step([b"", good[0]])
    assert heard.bad_packets == 2
    assert (heard.status == TokenStatus.UNKNOWN).all()


def test_steps_and_alignment_keep_the_length():
    for samples in (1, 5, 1280, 4000):
        length = Length()
        pieces = list(steps([speech(samples)], CODEC.info, 2, length))
        assert length.samples == samples
        assert all(len(piece) % 1280 == 0 for piece in pieces)
        assert sum(map(len, pieces)) >= samples + 320
        np.testing.assert_array_equal(np.concatenate(list(aligned(pieces, 0, length))), speech(samples))


def test_encoding_streams():
    length = Length()
    packets = encode((speech(1280) for _ in range(40)), CODEC, FixedController(4, 1), link().form, length)
    assert [p.sequence for p in packets] == list(range(42))
    assert length.samples == 40 * 1280
