"""One L a weather, with which a corpus costs what it should."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from tests.codec.tiny import tiny_model

from semaphone.channel.erasure import parse_channel
from semaphone.codec.nano_weights import save_nano
from semaphone.controller.adaptive import AdaptiveController, ControllerConfig, ControllerModel
from semaphone.controller.adaptive import save as save_controller
from semaphone.controller.base import Mask
from semaphone.controller.registry import ControllerSpec
from semaphone.errors import InputError
from semaphone.experiments.cells import plan
from semaphone.experiments.corpus import Recording
from semaphone.experiments.matching import matched, spent
from semaphone.experiments.systems import LinkSystem, codec_named
from semaphone.link.feedback import Feedback
from semaphone.packet.format import SCHEDULES

CHANNELS = ["none", "uniform:0.3"]


@pytest.fixture
def system(tmp_path):
    codec, weights = tmp_path / "tiny.safetensors", tmp_path / "controller.safetensors"
    save_nano(tiny_model(), codec, {})
    info = codec_named(str(codec)).info
    torch.manual_seed(0)
    model = ControllerModel(ControllerConfig(info.latent_dim, info.num_codebooks, info.fingerprint))
    save_controller(model, weights)
    return LinkSystem("ours", "ours", str(codec), "hold", ControllerSpec(str(weights)), feedback=Feedback())


@pytest.fixture
def recordings(tmp_path):
    rng, found = np.random.default_rng(1), []
    for i, seconds in enumerate((1.5, 4.03)):
        file = tmp_path / f"{i}.wav"
        loud = np.repeat(rng.choice([0.001, 0.2], int(seconds * 16000) // 1000 + 1), 1000)[: int(seconds * 16000)]
        soundfile.write(file, (loud * rng.standard_normal(len(loud))).clip(-1, 1), 16000)
        found.append(Recording(file, file.name, str(i), seconds))
    return found


@pytest.mark.parametrize("protected", [True, False])
def test_what_is_sent_costs_what_it_should(system, recordings, protected):
    ours = matched(replace(system, protected=protected), CHANNELS, recordings, 1200.0, 5)
    assert [channel for channel, _ in ours.levels] == [str(parse_channel(text)) for text in CHANNELS]
    for text in CHANNELS:
        channel = parse_channel(text)
        controller = ours.link(channel).controller
        assert isinstance(controller, AdaptiveController)
        assert controller.rate == dict(ours.levels)[str(channel)]
        rates = []
        for cell in plan([ours], [text], recordings, 5):
            speech, _ = soundfile.read(cell.recording.file, dtype="float32")
            sent = ours.send(speech, channel, cell.weather)
            rates.append(sent.payload_bps)
        # The next token of any chunk would be too much; a recording of 4 s has 100 packets of whole bytes.
        assert np.mean(rates) == pytest.approx(1200, rel=0.03)
        assert np.mean(rates) < 1201


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_fixed_mask_costs_what_its_packets_do(system, recordings, schedule):
    fixed = replace(system, spec=ControllerSpec("fixed", 8, 3), schedule=schedule)
    channel = parse_channel("none")
    rates = [fixed.send(soundfile.read(one.file, dtype="float32")[0], channel, 1).payload_bps for one in recordings]
    found = spent(Mask(8, 3), fixed.link(channel).form, system.codec, recordings)
    assert found == pytest.approx(np.mean(rates), abs=0.1)


def test_rates_that_cannot_be(system, recordings):
    for target in (10.0, 1e6):
        with pytest.raises(InputError, match="No rate L"):
            matched(system, CHANNELS[:1], recordings, target, 5)
    pauses: Any = replace(system, dtx=True)
    with pytest.raises(InputError, match="sends pauses"):
        matched(pauses, CHANNELS[:1], recordings, 1200.0, 5)
