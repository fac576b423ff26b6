import numpy as np
import pytest
import torch
from tests.codec.tiny import tiny_codec
from tests.link.test_simulate import speech

from semaphone.channel.erasure import parse_channel
from semaphone.controller.adaptive import AdaptiveController, ControllerConfig, ControllerModel
from semaphone.controller.base import LinkLoss
from semaphone.errors import InputError
from semaphone.link.feedback import EXPECTED, Feedback, LossEstimate, PairEstimate, Reports
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
    reports.observe(1, 2.0, False)
    assert reports.at(3.0).rate < 0.2
    assert reports.bit_rate == 100


def test_the_estimate_settles_at_the_loss_rate(rng):
    estimate, seen = LossEstimate(), []
    for lost in rng.random(3000) < 0.2:
        estimate = estimate.after(bool(lost), 25.0)
        seen.append(estimate.rate)
        assert round(200 * estimate.rate) == pytest.approx(200 * estimate.rate)
    assert np.mean(seen[200:]) == pytest.approx(0.2, abs=0.02)
    assert np.std(seen[200:]) < 0.08


@pytest.mark.parametrize(
    ("channel", "form", "low", "high"),
    [
        ("gilbert-elliott:loss=0.2,burst=240ms", FORM, 0.85, 1.0),  # a burst takes both packets of a block
        ("uniform:0.2", FORM, 0.1, 0.35),
        ("gilbert-elliott:loss=0.2,burst=480ms", PacketFormat.named("bundle:80ms", 16, 32), 0.6, 1.0),
        ("uniform:0.2", PacketFormat.named("bundle:80ms", 16, 32), 0.1, 0.35),
    ],
)
def test_reports_say_how_often_a_copy_is_lost_with_its_token(channel, form, low, high, rng):
    reports = Reports(Feedback(), parse_channel(channel), form)
    sampler, told = reports.channel.sampler(rng), []
    for number in range(4000):
        time = form.send_time(number)
        reports.observe(number, time, sampler.lost(time))
        told.append(reports.at(time))
    again = [one.again for one in told if one.again is not None]
    assert low < np.mean(again) < high
    assert all(one.again is None or one.rate <= one.again <= 1 for one in told)
    oracle = Reports(Feedback("oracle"), parse_channel(channel), form).at(0.0)
    assert low < oracle.again <= high + 1e-9


def test_a_few_lost_pairs_tell_what_losses_are_like():
    assert 0.45 < PairEstimate().rate(0.2) < 0.7  # nothing is known yet
    together = PairEstimate().after(True, True, 125.0).after(True, True, 125.0)
    apart = PairEstimate().after(True, False, 125.0).after(False, True, 125.0)
    assert together.rate(0.2) > 0.8
    assert apart.rate(0.2) < 0.45
    for _ in range(20):
        together, apart = together.after(True, True, 125.0), apart.after(True, False, 125.0)
    assert together.rate(0.2) > 0.95
    assert apart.rate(0.2) == pytest.approx(0.2, abs=0.03)


def test_without_copies_nothing_is_known_of_them():
    form = PacketFormat.named("bundle:80ms", 16, 32, copy_distance=0)
    reports = Reports(Feedback(delay=0.0), parse_channel("uniform:0.5"), form)
    reports.observe(0, 0.0, True)
    told = reports.at(1.0)
    assert told.again == told.rate


def test_nobody_tells_the_sender_anything():
    reports = Reports(None, parse_channel("uniform:0.5"), FORM)
    reports.observe(0, 0.0, True)
    assert reports.at(100.0) == LinkLoss()
    assert reports.bit_rate == 0.0


def test_the_oracle_knows_phases():
    reports = Reports(Feedback("oracle"), parse_channel(FIG9), FORM)
    assert [reports.at(t).rate for t in (0.0, 3.99, 4.0, 9.0, 21.0, 99.0)] == [0.0, 0.0, 0.05, 0.2, 0.1, 0.1]


def test_reports_are_counted():
    record = talk("uniform:0.1", Feedback(), 2.0)
    link = Link(CODEC, follower(), PacketFormat(16, 32, loss_report=True), HoldRecovery(), parse_channel("none"))
    report = record.report(link, 0)
    assert report.feedback_bps == 100
    headers = 320 * report.packets_sent / report.seconds
    assert report.gross_bps == pytest.approx(report.payload_bps + headers + 100, abs=0.5)
    assert report.schedule == "split"


@pytest.mark.parametrize("options", [{"source": "stars"}, {"delay": -1.0}, {"memory": 0.0}])
def test_impossible_feedback(options):
    with pytest.raises(InputError):
        Feedback(**options)


def test_packets_that_were_not_sent_leave_pairs_as_they_are():
    """Numbers go on while pauses are left out: a packet's partner is found by number, not by counting."""
    reports = Reports(Feedback(delay=0.0), parse_channel("uniform:0.5"), FORM)
    for block in (0, 1, 7, 8, 30):  # the first packet of each is lost, the second never
        reports.observe(2 * block, block * 0.16, True)
        reports.observe(2 * block + 1, block * 0.16, False)
    assert reports._pairs.both == 0
    assert reports._pairs.first == pytest.approx(5, abs=0.5)
