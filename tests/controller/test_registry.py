import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.codec.tiny import tiny_codec
from tests.packet.test_packetizer import send

from semaphone.controller import registry
from semaphone.controller.adaptive import AdaptiveController, ControllerConfig, ControllerModel, save
from semaphone.controller.base import FixedController, Mask
from semaphone.controller.budget import BudgetController
from semaphone.controller.rate import ConstantRate, RateControl
from semaphone.controller.registry import ControllerSpec, load_controller, padded
from semaphone.errors import InputError
from semaphone.packet.bitstream import PacketError
from semaphone.packet.format import PacketFormat
from semaphone.packet.packetizer import Packetizer

INFO = tiny_codec().info
FORM = PacketFormat(16, 32)


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "c.safetensors"
    save(ControllerModel(ControllerConfig(INFO.latent_dim, INFO.num_codebooks, INFO.fingerprint)), path)
    return path


def test_the_default_is_adaptive_where_there_are_weights(tmp_path, weights, monkeypatch):
    monkeypatch.setattr(registry, "WEIGHTS", tmp_path / "shipped.safetensors")
    assert isinstance(load_controller(ControllerSpec(), INFO, FORM), FixedController)
    assert isinstance(load_controller(ControllerSpec(bitrate=900), INFO, FORM), BudgetController)
    shutil.copy(weights, tmp_path / "shipped.safetensors")
    assert isinstance(load_controller(ControllerSpec(), INFO, FORM), RateControl)
    assert isinstance(load_controller(ControllerSpec(codebooks=4), INFO, FORM), FixedController)
    other = tiny_codec(1).info
    assert isinstance(load_controller(ControllerSpec(), other, FORM), FixedController)


def test_a_file_of_weights(weights):
    found = load_controller(ControllerSpec(str(weights), rate=6.0), INFO, FORM)
    assert isinstance(found, AdaptiveController)
    assert str(found) == "adaptive, L = 6"
    found = load_controller(ControllerSpec(str(weights), bitrate=800), INFO, FORM)
    assert str(found) == "adaptive, 800 bit/s"


def test_a_constant_rate(weights):
    spec = ControllerSpec(str(weights), bitrate=800, constant=True)
    form = padded(spec, INFO, FORM)
    assert form.constant_size == 8
    found = load_controller(spec, INFO, form)
    assert isinstance(found, ConstantRate)
    assert str(found) == "adaptive, packets of 8 bytes"
    fixed = padded(ControllerSpec("fixed", 8, 2, constant=True), INFO, FORM)
    assert fixed.constant_size == max(FORM.sizes([Mask(8, 2), Mask(8, 2)]))
    assert padded(ControllerSpec("fixed"), INFO, FORM) is FORM


def test_a_history():
    found = load_controller(ControllerSpec(history=(8, 8, 4)), INFO, FORM)
    assert isinstance(found, FixedController)
    assert found.mask == Mask(8, 8, 4)
    assert str(found) == "fixed, history of 8, 8, 4 codebooks"
    assert load_controller(ControllerSpec("fixed", history=(8,)), INFO, FORM) == FixedController(8)
    for lengths in ((1, 1, 1, 1), (8, 8, 4), (8, 0, 8), (3, 3)):
        form = PacketFormat.named("history", 16, 2048, copy_distance=len(lengths) - 1)
        form = padded(ControllerSpec("fixed", history=lengths, constant=True), INFO, form)
        packetizer, state = Packetizer(form), None
        for _ in range(9):  # none of them is too long, and one is as long as that
            _, state = packetizer.push(np.zeros(16, np.int64), Mask(*lengths, 0), state)
        packetizer.flush(state)
        with pytest.raises(PacketError, match="does not fit the constant size"):
            send(replace(form, constant_size=form.constant_size - 1), np.zeros((9, 16), int), [Mask(*lengths, 0)] * 9)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        (ControllerSpec("wise"), "Unknown controller 'wise'"),
        (ControllerSpec("no.safetensors"), "no weights for the adaptive controller"),
        (ControllerSpec("budget", codebooks=3), "decides about codebooks and copies itself"),
        (ControllerSpec("fixed", bitrate=900), "no rate"),
        (ControllerSpec("budget", rate=3), "L is for the adaptive controller"),
        (ControllerSpec("fixed", codebooks=17), "1 to 16 codebooks"),
        (ControllerSpec("fixed", codebooks=2, copies=3), "Only tokens that are sent"),
        (ControllerSpec("budget", bitrate=10), "so 10 bit/s are too few"),
        (ControllerSpec("budget", history=(8, 8)), "decides about codebooks and copies itself"),
        (ControllerSpec(history=(17, 8)), "1 to 16 codebooks"),
        (ControllerSpec(history=(4, 5)), "Only tokens that are sent"),
        (ControllerSpec(history=(4, 4, 5)), "carry what was sent again: 5 tokens do not go with 4"),
    ],
)
def test_what_does_not_go_together(spec, sentence):
    with pytest.raises(InputError, match=sentence):
        load_controller(spec, INFO, FORM)


def test_a_constant_rate_with_a_history_is_a_fixed_one():
    form = PacketFormat.named("history", 16, 32)
    with pytest.raises(InputError, match="takes the fixed controller, not budget"):
        padded(ControllerSpec("budget", bitrate=900, constant=True), INFO, form)
