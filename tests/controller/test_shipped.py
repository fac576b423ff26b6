"""The adaptive controller that comes with the package."""

import numpy as np
import pytest
import torch

from semaphone.audio import read_audio
from semaphone.codec.registry import load_codec
from semaphone.controller.adaptive import AdaptiveController, load
from semaphone.controller.base import LinkLoss
from semaphone.controller.registry import WEIGHTS, ControllerSpec, decided

LEVEL = 17.0  # about 12 transmissions a chunk


@pytest.fixture(scope="module")
def info():
    return load_codec("nano").info


@pytest.fixture(scope="module")
def speech(shared_data):
    """Eight seconds of a voice of the dev set, whole chunks, and how loud each is below the loudest, dB."""
    file = sorted((shared_data / "speech" / "dev").glob("librispeech*/*"))[0]
    samples = read_audio(file, 16_000)[: 100 * 1280]
    power = np.square(samples.reshape(100, 4, 320)).mean(-1).max(-1)
    return torch.from_numpy(samples)[None], 10 * np.log10(power / power.max() + 1e-9)


def sent(info, latents, rate, loss):
    """[T, 2]: tokens of each chunk, and of them twice."""
    controller = AdaptiveController(load(WEIGHTS, info.fingerprint), rate)
    masks, _ = controller.step(latents, LinkLoss(loss), None)
    return np.array([(mask.sent, mask.twice) for mask in masks])


def test_it_is_the_default_of_the_embedded_codec(info):
    assert decided(ControllerSpec(), info).kind == "adaptive"
    assert decided(ControllerSpec(codebooks=8), info).kind == "fixed"
    assert WEIGHTS.stat().st_size < 1e6


def test_words_get_more_than_pauses_and_copies_follow_the_losses(info, speech):
    samples, level = speech
    latents = load_codec("nano").encode(samples, None, 1).latents[0]
    copies = []
    for loss in (0.0, 0.1, 0.2, 0.3):
        masks = sent(info, latents, LEVEL, loss)
        total = masks.sum(1)
        assert total[level > -10].mean() > 2 * total[level < -30].mean()
        assert 8 < total.mean() < 16
        copies.append(masks[:, 1].mean())
    assert copies[0] < 0.5
    assert copies == sorted(copies)
    assert copies[2] > 2


def test_the_rate_alone_covers_what_a_link_may_have(info, speech):
    latents = load_codec("nano").encode(speech[0], None, 1).latents[0]
    bits = info.frame_rate * info.bits_per_token
    for loss in (0.0, 0.2):
        rates = [bits * sent(info, latents, rate, loss).sum(1).mean() for rate in (2, 4, 8, 12, 16, 24, 48)]
        assert rates == sorted(rates)
        assert rates[0] < 400
        assert rates[-1] > 2100
