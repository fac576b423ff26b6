"""Systems say who they are, and send."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tests.codec.tiny import tiny_model

from semaphone.channel.erasure import parse_channel
from semaphone.codec.nano_weights import save_nano
from semaphone.controller.adaptive import ControllerConfig, ControllerModel
from semaphone.controller.adaptive import save as save_controller
from semaphone.controller.base import FixedController
from semaphone.controller.registry import ControllerSpec
from semaphone.errors import InputError
from semaphone.experiments.rivals import rival
from semaphone.experiments.systems import (
    CodecSystem,
    LinkSystem,
    codec_named,
    form_named,
    told_controller,
    unprotected,
)
from semaphone.link.feedback import Feedback
from semaphone.link.simulate import Record, simulate
from semaphone.packet.format import PacketFormat

CLEAR, LOSSY = parse_channel("none"), parse_channel("uniform:0.3")


@pytest.fixture
def codec(tmp_path):
    path = tmp_path / "tiny.safetensors"
    save_nano(tiny_model(), path, {})
    return str(path)


def link(codec, **changes):
    return LinkSystem("ours", "nano", codec, "hold", ControllerSpec("fixed", 8, 3), **changes)


def test_weights_decide_and_paths_do_not(codec, tmp_path):
    copy, other = tmp_path / "copy.safetensors", tmp_path / "other.safetensors"
    shutil.copy(codec, copy)
    save_nano(tiny_model(1), other, {})
    mine = link(codec).identity(CLEAR)
    assert link(str(copy)).identity(CLEAR) == mine
    assert link(str(other)).identity(CLEAR) != mine
    assert str(tmp_path) not in str(mine)
    assert LinkSystem("ours", "nano", codec, "none", ControllerSpec("fixed", 8, 3)).identity(CLEAR) != mine
    assert CodecSystem("x", "nano", codec, 4).identity(CLEAR) != CodecSystem("x", "nano", codec, 8).identity(CLEAR)


def test_weights_of_a_controller_decide(codec, tmp_path):
    info = codec_named(codec).info
    found: list[Any] = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        path = tmp_path / f"{len(found)}.safetensors"
        save_controller(ControllerModel(ControllerConfig(info.latent_dim, info.num_codebooks, info.fingerprint)), path)
        spec = ControllerSpec(str(path), bitrate=900)
        system = LinkSystem("ours", "nano", codec, "hold", spec, feedback=Feedback(), dtx=True)
        found.append(system.identity(LOSSY))
        without = replace(system, protected=False)
        assert without.identity(LOSSY) != found[-1]
    assert found[0] == found[1] != found[2]
    speech = 0.1 * np.random.default_rng(0).standard_normal(32_000).astype(np.float32)
    masks = Record()
    list(simulate([speech], without.link(LOSSY), 3, masks))
    assert all(mask.twice == 0 for mask in masks.masks)
    assert without.send(speech, LOSSY, 3).payload_bps == pytest.approx(900, rel=0.1)


def test_a_decoder_that_was_trained_further_is_another_system(codec, tmp_path):
    model = tiny_model()
    next(iter(model.decoder.parameters())).data.add_(0.1)
    save_nano(model, tmp_path / "further.safetensors", {})
    mine, further = link(codec).identity(CLEAR), link(str(tmp_path / "further.safetensors")).identity(CLEAR)
    assert mine["codec"] == further["codec"]
    assert mine["codec_weights"] != further["codec_weights"]


def test_what_is_sent_comes_out_as_long(codec, rng):
    speech = (0.1 * rng.standard_normal(16_123)).astype(np.float32)
    for system in (link(codec), link(codec, transmissions=11), CodecSystem("codec", "nano", codec, 8)):
        sent = system.send(speech, LOSSY, 7)
        again = system.send(speech, LOSSY, 7)
        assert sent.speech.shape == speech.shape
        assert np.array_equal(sent.speech, again.speech)
        assert sent.payload_bps >= sent.token_bps > 0
    arrived = rival("codec2:1200").send(speech, LOSSY, 7, "en")
    assert arrived.speech.shape == speech.shape
    assert arrived.packets_lost > 0


def test_a_rate_is_spent_on_copies_where_much_is_lost(codec):
    form = form_named(codec)
    clear, lossy = told_controller(11, form, CLEAR), told_controller(11, form, parse_channel("uniform:0.3"))
    assert str(clear) == "fixed, 11 codebooks, 0 copies"
    assert isinstance(lossy, FixedController)
    assert lossy.codebooks + lossy.copies == 11
    assert lossy.copies > 0
    assert unprotected(lossy, form) == FixedController(11, 0)
    few = PacketFormat.named("split", 8, 2048)
    assert unprotected(FixedController(8, 7), few) == FixedController(8, 0)


def test_a_history_is_another_system(codec):
    spec = ControllerSpec("fixed", history=(8, 8, 4))
    system = LinkSystem("ours", "nano", codec, "hold", spec, schedule="history", horizon=2)
    speech = (0.1 * np.random.default_rng(0).standard_normal(32_000)).astype(np.float32)
    sent = system.send(speech, LOSSY, 7)
    assert sent.token_bps == pytest.approx(20 * 5 * 12.5, rel=0.1)
    assert (sent.delay_ms, replace(system, wait=0.1).send(speech, LOSSY, 7).delay_ms) == (260.0, 180.0)
    waits = [replace(system, wait=wait).identity(LOSSY) for wait in (None, 0.0, 0.08, 0.1)]
    assert waits[0] != waits[1] != waits[2] == waits[3]
    form = form_named(codec, "history", horizon=3)
    told = told_controller(24, form, LOSSY)
    assert isinstance(told, FixedController)
    assert told.mask.transmissions == 24
    assert told.mask == (13, 8, 3)
    assert unprotected(told, form) == FixedController(16)


def test_opus_is_told_of_the_losses():
    system = rival("opus:12000:20ms")
    assert system.identity(CLEAR) != system.identity(LOSSY)
    assert system.family == "Opus"
    with pytest.raises(InputError):
        rival("soundstream:1600")
