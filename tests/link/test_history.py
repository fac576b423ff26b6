"""Packets with a history in a simulated talk: who is heard, when, and what comes too late."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.codec.tiny import tiny_codec
from tests.link.test_simulate import speech

from semaphone.channel.erasure import parse_channel
from semaphone.controller.base import FixedController
from semaphone.link.receiver import Receiver
from semaphone.link.simulate import Link, Record, simulate
from semaphone.link.stored import decode, encode
from semaphone.link.talk import Length
from semaphone.packet.format import PacketFormat
from semaphone.packet.packetizer import Depacketizer, Packetizer
from semaphone.packet.sph import SphHeader, SphReader, SphWriter
from semaphone.recovery.base import Recovered, TokenStatus
from semaphone.recovery.hold import HoldRecovery

CODEC = tiny_codec()
HORIZON = 3


def link(channel="uniform:0.4", wait=None, lengths=(8, 8, 4, 4), recovery=None, schedule="history") -> Link:
    form = PacketFormat.named(schedule, 16, 32, **({"copy_distance": HORIZON} if schedule == "history" else {}))
    controller = FixedController(lengths[0], lengths[1], tuple(lengths[2:]))
    return Link(CODEC, controller, form, recovery or HoldRecovery(), parse_channel(channel), wait=wait)


def run(a_link, said, together=1):
    record = Record()
    return np.concatenate(list(simulate([said], a_link, 7, record, together))), record


@pytest.mark.parametrize(("wait", "packets"), [(None, 4), (0.0, 1), (0.1, 2), (0.16, 3), (5.0, 4)])
def test_a_chunk_is_heard_if_a_packet_came_that_it_waits_for(wait, packets):
    a_link = link(wait=wait)
    heard, record = run(a_link, speech(40 * 1280 - 320))
    assert len(heard) == 40 * 1280 - 320
    assert len(record.status) == len(record.masks) == 40  # none twice, none left out
    came = [not lost for *_, lost in record.packets]
    for n, status in enumerate(record.status):
        ages = [age for age in range(packets) if came[n + age]]
        here = max((record.masks[n].at(age) for age in ages), default=0)
        assert (status == TokenStatus.RECEIVED).sum() == here
    report = record.report(a_link, 7)
    assert report.latency_ms["context"].p50 == 80 * packets
    nothing = [not any(came[n : n + packets]) for n in range(40)]
    assert report.chunk_loss_rate == pytest.approx(np.mean(nothing), abs=1e-5)


@pytest.mark.parametrize("wait", [None, 0.0, 0.08])
@pytest.mark.parametrize("dtx", [False, True])
@pytest.mark.parametrize("schedule", ["history", "sliding", "split", "bundle:80ms"])
def test_blocks_together_are_heard_as_one_by_one(wait, dtx, schedule):
    said = speech(40_000)
    said[12_000:26_000] *= 1e-3  # a pause
    lengths = (8, 8, 4, 4) if schedule == "history" else (8, 3)
    a_link = replace(link(wait=wait, schedule=schedule, lengths=lengths), dtx=dtx)
    (one, alone), (other, many) = (run(a_link, said, together) for together in (1, 5))
    np.testing.assert_allclose(one, other, atol=1e-4)
    np.testing.assert_array_equal(alone.status, many.status)
    assert (alone.masks, alone.packets) == (many.masks, many.packets)


def test_without_waiting_a_block_is_played_as_soon_as_it_is_complete():
    for schedule, context in (("sliding", 80), ("split", 160), ("block", 160), ("history", 80)):
        a_link = link("none", 0.0, (8, 3), schedule=schedule)
        assert a_link.context == pytest.approx(context / 1000)
    assert (link(wait=0.0).late, link(wait=0.08).late, link().late) == (3, 2, 0)


class Memory:
    """A recovery whose state is all that it saw."""

    def step(self, tokens, status, state, *, coming=None):
        seen = tuple(token if s == TokenStatus.RECEIVED else -1 for token, s in zip(tokens[0], status[0], strict=True))
        return Recovered(tokens, (status == TokenStatus.RECEIVED).float(), torch.ones(1)), (*(state or ()), seen)


@pytest.mark.parametrize("wait", [0.0, 0.08])
def test_what_comes_late_corrects_the_memory_of_recovery(wait, rng):
    """After each chunk recovery remembers those before as if it had known all that came by then."""
    form = PacketFormat.named("history", 16, 32, copy_distance=HORIZON)
    tokens = rng.integers(0, 32, (30, 16))
    packetizer, packing = Packetizer(form), None
    payloads: dict[int, bytes] = {}
    for chunk in tokens:
        packets, packing = packetizer.push(chunk, (8, 8, 4, 4), packing)
        payloads |= {packet.sequence: packet.payload for packet in packets if rng.random() > 0.5}
    a_link = link(wait=wait)
    receiver, state = Receiver(CODEC, Memory(), form, a_link.late), None
    read = Depacketizer(form).read

    def known(chunk: int, now: int):
        last = a_link.awaited(now)[-1]
        return read([payloads.get(n) if n <= last else None for n in form.sequences_of(chunk)])[0]

    for n in range(26):
        played = tuple(known(m, n) for m in range(max(0, n - a_link.late), n))
        _, state = receiver.render([replace(known(n, n), played=played)], state)
        expected = [known(m, n) for m in range(n + 1)]
        for one, seen in zip(expected, state.recovery, strict=True):
            received = one.status == TokenStatus.RECEIVED
            assert [int(token) for token in seen] == list(np.where(received, one.tokens, -1))


def test_the_simulation_tells_recovery_what_came_late():
    remembered = []

    class Watching(Memory):
        def step(self, tokens, status, state, *, coming=None):
            recovered, state = super().step(tokens, status, state, coming=coming)
            remembered.append(state)
            return recovered, state

    run(link("uniform:0.5", 0.0, (8, 8, 8, 8), Watching()), speech(60 * 1280))
    last = max(remembered, key=len)
    lost = [all(token == -1 for token in seen) for seen in last[:-HORIZON]]
    assert np.mean(lost) == pytest.approx(0.5**4, abs=0.1)


def test_tokens_lost_one_by_one_ride_in_as_many_packets_as_they_have():
    _, record = run(link("uniform:loss=0.5,per=token", lengths=(16, 8, 8, 4)), speech(300_000))
    lost = (np.array(record.status) == TokenStatus.LOST).mean(0)
    assert lost[8:].mean() == pytest.approx(0.5, abs=0.05)
    assert lost[4:8].mean() == pytest.approx(0.125, abs=0.04)
    assert lost[:4].mean() == pytest.approx(0.0625, abs=0.03)


def test_a_file_without_some_of_its_packets_says_the_same(tmp_path):
    """Of every three packets in a row one is left, and each token rides in four."""
    form = PacketFormat.named("history", 16, 32, copy_distance=HORIZON)
    heard = []
    for kept in (1, 3):
        length, path = Length(), tmp_path / f"{kept}.sph"
        with SphWriter(path, SphHeader(CODEC.info.name, CODEC.info.fingerprint, 16000, form)) as out:
            for packet in encode([speech(30_000)], CODEC, FixedController(8, 8, (8, 8)), form, length):
                if packet.sequence % kept == kept - 1:
                    out.write(packet.sequence, packet.payload)
            out.finish(length.samples)
        with SphReader(path) as reader:
            assert (reader.header.format.schedule, reader.header.format.reach) == ("history", HORIZON)
            heard.append(np.concatenate(list(decode(reader, CODEC, HoldRecovery()))))
    assert len(heard[0]) == 30_000
    np.testing.assert_array_equal(heard[0], heard[1])
