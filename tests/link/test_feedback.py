import numpy as np
import pytest
import torch
from tests.codec.tiny import tiny_codec
from tests.link.test_simulate import speech

from semaphone.channel.erasure import parse_channel
from semaphone.controller.adaptive import AdaptiveController, ControllerConfig, ControllerModel
from semaphone.link.feedback import EXPECTED, Feedback, Reports
from semaphone.link.simulate import Link, Record, simulate
from semaphone.packet.format import PacketFormat
from semaphone.recovery.hold import HoldRecovery

CODEC = tiny_codec()
FORM = PacketFormat(16, 32)
FIG9 = "schedule:0-4s=0,4-8s=0.05,8-12s=0.2,12-16s=0.1,16-20s=0.3,20-24s=0.1"


def follower() -> AdaptiveController:
    """Weights made by hand: half of the tokens go whatever is said, and copies follow p."""
    model = ControllerModel(ControllerConfig(CODEC.info.latent_dim, 16))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "alpha" not in name:
                weight.zero_()
        weights = dict(model.channel.named_parameters())
        weights["0.weight"][0, 1] = 1.0  # p goes through; sin² of it is small
        weights["2.bias"].copy_(torch.tensor([0.0, -3.0]))
        weights["2.weight"][1, 0] = 12.0
    return AdaptiveController(model, 16.0)


def talk(channel: str, feedback: Feedback, seconds: float = 24.0, seed: int = 3) -> Record:
    form = PacketFormat(16, 32, loss_report=True)
    link = Link(CODEC, follower(), form, HoldRecovery(), parse_channel(channel), feedback)
    record = Record()
    for _ in simulate([speech(round(16000 * seconds))], link, seed, record):
        pass
    return record


def test_copies_follow_the_loss_rate_of_the_moment():
    """Fig 9's phases, known without smoothing: copies change with the next block."""
    record = talk(FIG9, Feedback("oracle"))
    copies = np.array([mask.twice for mask in record.masks])[:300]
    middle = [copies[50 * phase : 50 * (phase + 1) - 2] for phase in range(6)]
    assert all((phase == phase[0]).all() for phase in middle)  # the last block of a phase leaves in the next one
    quiet, light, heavy, less, worst, again = (int(phase[0]) for phase in middle)
    assert quiet <= light < less == again < heavy < worst
    assert {mask.sent for mask in record.masks[:198]} == {8}


def test_copies_rise_within_half_a_second_of_the_report_and_fall_again():
    feedback = Feedback(delay=0.3, memory=1.0)
    record = talk("schedule:0-6s=0,6-12s=0.5,12-24s=0", feedback)
    copies = np.array([mask.twice for mask in record.masks])
    told = np.array(record.told)
    first_loss = next(time for time, _, _, lost in record.packets if lost)
    before = told[: int(first_loss / 0.08)]
    assert told[0] == EXPECTED
    assert (np.diff(before) <= 0).all()
    assert before[-1] < 0.01
    first_told = (len(before) + int(np.argmax(told[len(before) :] > before[-1]))) * 0.08
    assert first_told <= first_loss + 0.3 + 0.16 + 1e-6  # the delay, and the block that is being filled
    high = copies.max()
    assert high >= copies[20:75].max() + 4
    rise = np.argmax(told > 0.2)
    calm = copies[:75].min()
    assert copies[rise : rise + 6].max() > calm + 1  # within half a second of such a report
    assert copies[250:].max() <= calm + 1  # and everything is as before


def test_reports_are_late_by_their_delay():
    reports = Reports(Feedback(delay=0.5), parse_channel("uniform:0.5"), FORM)
    reports.observe(0, 1.0, True)
    assert reports.at(1.49).rate == EXPECTED
    # One of nine: eight are presumed, a tenth of them lost.
    assert reports.at(1.5).rate == pytest.approx(1.8 / 9, abs=0.01)
