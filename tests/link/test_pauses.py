"""Discontinuous transmission, from the sender's decision to the receiver's noise."""

import numpy as np
import pytest
import torch
from tests.codec.tiny import tiny_codec

from semaphone.channel.erasure import parse_channel
from semaphone.controller.adaptive import AdaptiveController, ControllerConfig, ControllerModel
from semaphone.controller.base import KEEPALIVE, FixedController
from semaphone.controller.rate import RateControl
from semaphone.link.receiver import Receiver
from semaphone.link.simulate import Link, Record, simulate
from semaphone.link.transmitter import Transmitter
from semaphone.packet.format import SCHEDULES, PacketFormat
from semaphone.recovery.hold import HoldRecovery

CODEC = tiny_codec()


def sentences(*seconds: float) -> np.ndarray:
    """Noise as loud as speech and pauses with faint noise, taking turns."""
    rng = np.random.default_rng(1)
    parts = [
        (0.1 if i % 2 == 0 else 0.0005) * rng.standard_normal(round(16000 * length)) for i, length in enumerate(seconds)
    ]
    return np.concatenate(parts).astype(np.float32)


def run(said, form, channel="none", dtx=True, controller=None):
    link = Link(CODEC, controller or FixedController(6, 2), form, HoldRecovery(), parse_channel(channel), dtx=dtx)
    record = Record()
    return np.concatenate(list(simulate([said], link, 1, record))), record, record.report(link, 1)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_pauses_cost_next_to_nothing(schedule):
    form = PacketFormat.named(schedule, 16, 32)
    said = sentences(2, 10, 2)
    heard, record, report = run(said, form)
    _, _, whole = run(said, form, dtx=False)
    assert len(heard) == len(said)
    pause = [size for time, size, *_ in record.packets if 3 < time < 11.5]
    assert 8 * sum(pause) / 8.5 < 60  # bit/s
    assert report.payload_bps < 0.45 * whole.payload_bps
    assert report.packets_sent < 0.5 * whole.packets_sent
    silent = [mask.sent for mask in record.masks[40:140]]
    assert silent == [0] * 100


def test_the_listener_hears_noise_and_not_a_dead_line():
    said = sentences(3, 6, 2)
    heard, _, _ = run(said, PacketFormat(16, 32))
    _, _, without = run(said, PacketFormat(16, 32), dtx=False)
    quiet = heard[5 * 16000 : 8 * 16000]
    assert 0 < np.sqrt(np.mean(quiet**2)) < np.sqrt(np.mean(heard[16000:32000] ** 2))
    assert len(np.unique(quiet)) > 1000
    assert without.token_loss_rate == 0


def test_speech_after_a_pause_is_all_there():
    """The first chunk that is not silent is decoded, wherever it stands in its block."""
    for odd in (0.0, 0.08):
        said = sentences(1 + odd, 2, 1)
        _, record, _ = run(said, PacketFormat(16, 32))
        begins = round((3 + odd) / 0.08)
        assert record.masks[begins].sent > 0
        assert record.masks[begins - 2].sent == 0
        assert (np.array(record.status[begins])[:6] == 0).all()


def test_lost_packets_within_a_pause_are_silence():
    form = PacketFormat(16, 32)
    transmitter, receiver = (
        Transmitter(CODEC, FixedController(6, 2), form, dtx=True),
        Receiver(CODEC, HoldRecovery(), form),
    )
    sending, hearing, seen = None, None, []
    for block in sentences(0.96, 3.2).reshape(-1, 2560):
        sent, sending = transmitter.step(block, sending)
        payloads: list[bytes | None] = [packet.payload for packet in sent.packets]
        heard, hearing = receiver.step(payloads or [None, None], hearing)
        seen.append((len(sent.packets), heard.silent))
    pause = seen.index((2, True))
    assert seen[pause:] == [(2 if i == 0 or (i + 1) % KEEPALIVE == 0 else 0, True) for i in range(len(seen) - pause)]
    assert not any(silent for _, silent in seen[:pause])


def test_chunk_by_chunk_is_the_whole():
    form = PacketFormat(16, 32)
    transmitter = Transmitter(CODEC, FixedController(6, 2), form, dtx=True)
    said = sentences(0.8, 1.6, 0.8)
    at_once, _ = transmitter.step(said)
    state, packets = None, []
    for chunk in said.reshape(-1, 1280):
        sent, state = transmitter.step(chunk, state)
        packets += sent.packets
    assert packets == at_once.packets


def test_the_rate_of_a_talk_holds_with_pauses_and_without():
    torch.manual_seed(0)
    controller = AdaptiveController(ControllerModel(ControllerConfig(CODEC.info.latent_dim, 16)))
    form = PacketFormat(16, 32)
    for dtx in (True, False):
        _, _, report = run(
            sentences(4, 1.2, 3, 0.8, 5, 1, 4), form, "uniform:0.1", dtx, RateControl(controller, 800, form)
        )
        assert report.payload_bps == pytest.approx(800, rel=0.03)
