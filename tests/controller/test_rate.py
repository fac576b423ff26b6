from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from semaphone.controller.adaptive import AdaptiveController, ControllerConfig, ControllerModel, mask_at
from semaphone.controller.base import LinkLoss, Mask
from semaphone.controller.budget import BudgetController
from semaphone.controller.rate import PEAK, ConstantRate, RateControl, search
from semaphone.errors import InputError
from semaphone.packet.format import SCHEDULES, PacketFormat
from semaphone.packet.packetizer import Packetizer

SPLIT = PacketFormat(16, 2048)


def adaptive(seed: int = 0, scale: float = 1.0) -> AdaptiveController:
    """Random weights; the last layer's are scaled, from indifferent to always at an extreme."""
    torch.manual_seed(seed)
    model = ControllerModel(ControllerConfig(24, 16))
    with torch.no_grad():
        last = model.channel[2]
        assert isinstance(last, torch.nn.Linear)
        last.weight.mul_(scale)
        last.bias.mul_(scale)
    return AdaptiveController(model)


def latents(chunks: int, seed: int = 0) -> torch.Tensor:
    """Loud and quiet passages."""
    rng = np.random.default_rng(seed)
    level = np.repeat(np.exp(rng.normal(0, 1, -(-chunks // 10))), 10)[:chunks]
    return torch.from_numpy((level * rng.standard_normal((24, chunks))).astype(np.float32))


def payload(masks: list[Mask], form: PacketFormat, talking: list[bool] | None = None) -> float:
    """bit/s of a talk with these masks: packetized, and packets of pauses left out but for one block in six."""
    packetizer, state, size, silent = Packetizer(form), None, 0, 0
    for mask in masks:
        packets, state = packetizer.push(np.zeros(16, np.int64), mask, state)
        if packets:
            silent = 0 if any(packet.token_bits for packet in packets) else silent + 1
            if silent <= 1 or silent % 6 == 0:
                size += sum(len(packet.payload) for packet in packets)
    return 8 * size * form.frame_rate / len(masks)


@pytest.mark.parametrize(
    ("target", "scale"), [(500, 5.0), (500, 100.0), (800, 1.0), (1500, 5.0), (1500, 100.0), (3000, 1.0), (3000, 100.0)]
)
def test_the_target_holds_whatever_the_network_says(target, scale):
    masks, _ = RateControl(adaptive(3, scale), target, SPLIT).step(latents(200), LinkLoss(0.1), None)
    assert payload(masks, SPLIT) == pytest.approx(target, rel=0.03)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_in_every_schedule(schedule):
    form = PacketFormat.named(schedule, 16, 2048, loss_report=True)
    masks, _ = RateControl(adaptive(1, 5.0), 1200, form).step(latents(160), LinkLoss(0.2), None)
    assert payload(masks, form) == pytest.approx(1200, rel=0.03)


def test_pauses_leave_something_for_speech():
    talking = [not (60 <= i % 90 < 80) for i in range(360)]
    masks, _ = RateControl(adaptive(), 1000, SPLIT).step(latents(360), LinkLoss(0.0), None, talking)
    assert not any(mask.sent for mask, speech in zip(masks, talking, strict=True) if not speech)
    assert payload(masks, SPLIT) == pytest.approx(1000, rel=0.03)
    costs = [sum(SPLIT.sizes(masks[i : i + 2])) * 8 / 160 for i in range(0, 360, 2)]
    assert max(costs) <= PEAK * 1.3  # kbit/s; a single token is the least step


def test_what_long_silence_leaves_is_bounded():
    talking = [i >= 3000 for i in range(3300)]
    masks, state = RateControl(adaptive(), 1000, SPLIT).step(latents(3300), LinkLoss(0.0), None, talking)
    assert payload(masks[3000:], SPLIT) < 2.1 * 1000
    assert len(state.recent) <= 64
    assert abs(state.credit) <= 10 * 1000


class Loud:
    """As much as the first latent says."""

    name = "loud"

    def demands(self, latents, losses, state):
        return [partial(mask_at, importance=(float(x), 0.3 * float(x)), num_codebooks=16) for x in latents[0]], None


def test_the_content_decides_within_the_target():
    importance = torch.from_numpy(np.random.default_rng(0).uniform(0.1, 1, (1, 250)))
    masks, _ = RateControl(Loud(), 1500, SPLIT).step(importance, LinkLoss(0.0), None)
    given = np.array([mask.transmissions for mask in masks])
    assert np.corrcoef(importance[0].numpy(), given)[0, 1] > 0.7
    assert payload(masks, SPLIT) == pytest.approx(1500, rel=0.03)


def test_chunk_by_chunk_is_the_whole():
    control = RateControl(adaptive(0, 5.0), 1000, SPLIT)
    talking = [i % 7 > 2 for i in range(60)]
    whole, _ = control.step(latents(60), LinkLoss(0.1), None, talking)
    state, masks = None, []
    for t in range(60):
        one, state = control.step(latents(60)[:, t : t + 1], LinkLoss(0.1), state, talking[t : t + 1])
        masks += one
    assert masks == whole


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_packets_of_one_size_are_filled(schedule, scale):
    form = PacketFormat.named(schedule, 16, 2048)
    size = int(1600 * form.block_duration / (8 * form.packets_per_block))
    control = ConstantRate(adaptive(2, scale), size, replace(form, constant_size=size))
    masks, _ = control.step(latents(60), LinkLoss(0.1), None, [False] * 60)
    packetizer, state, filled = Packetizer(replace(form, constant_size=size)), None, []
    for mask in masks:
        packets, state = packetizer.push(np.zeros(16, np.int64), mask, state)
        filled += [packet.token_bits / (8 * size - packet.toc_bits) for packet in packets]
        assert all(len(packet.payload) == size for packet in packets)
    assert np.mean(filled) > 0.7


def test_a_budget_can_be_a_constant_rate():
    control = ConstantRate(BudgetController(8, 16), 16, replace(SPLIT, constant_size=16))
    masks, _ = control.step(latents(20), LinkLoss(0.3), None)
    assert all(mask.twice > 0 for mask in masks)


def test_targets_that_cannot_be():
    for target in (100, 5000):
        with pytest.raises(InputError, match="lies between 400 and"):
            RateControl(adaptive(), target, SPLIT)


def test_search():
    assert search(lambda rate: rate <= 7.0) == pytest.approx(7.0, rel=0.01)
    assert search(lambda rate: False) == pytest.approx(0.25, rel=0.01)
