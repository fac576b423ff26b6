import json
import time

import pytest
import torch
from torch import nn

from semaphone.training.runs import FOLLOW, LOG, Pace, cosine_rate, follow, run_steps


def test_learning_rate_warms_up_and_falls():
    rates = [cosine_rate(step, 6e-4, 3e-5, 5, 100) for step in range(101)]
    assert rates[0] == pytest.approx(6e-4 / 5)
    assert max(rates) == pytest.approx(6e-4)
    assert rates[-1] == pytest.approx(3e-5)
    assert cosine_rate(1000, 6e-4, 3e-5, 5, 100) == pytest.approx(3e-5)


def test_averages_follow_slowly():
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = {name: value.clone() for name, value in model.state_dict().items()}
    nn.init.ones_(model.weight)
    follow(average, model, 10_001, 0.999)
    assert float(average["weight"]) == 0.0  # not one of the steps that count
    follow(average, model, 10_000, 0.999)
    assert float(average["weight"]) == pytest.approx(1 - 0.999**FOLLOW)


class Counting:
    def __init__(self, out):
        self.step, self.out, self.saved = 0, out, []

    def advance(self):
        self.step += 1
        return {"loss": float(self.step)}

    def save(self):
        self.saved.append(self.step)


def test_a_run_logs_means_saves_and_looks(tmp_path):
    run, told = Counting(tmp_path), []
    run_steps(run, LOG + 20, 40, lambda *a: told.append(a), lambda step: {"dev": 1.0} if step == 30 else None)
    assert run.saved == [40, LOG + 20]
    assert [step for step, _ in told] == [30, LOG, LOG + 20]
    assert told[1][1]["loss"] == pytest.approx((1 + LOG) / 2)
    assert told[2][1]["loss"] == pytest.approx(LOG + 10.5)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines == [{"step": step, **row} for step, row in told]
    run_steps(run, LOG + 30, 40, lambda *a: None)
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 4


def test_averaging_starts_from_early_weights():
    model = nn.Linear(1, 1, bias=False)
    average = {"weight": torch.zeros(1, 1)}
    nn.init.ones_(model.weight)
    follow(average, model, 10, 0.999)
    assert float(average["weight"]) > 0.9


class Clock:
    """A clock that steps move on."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_a_time_is_made_a_number_of_steps():
    clock, settled, waits = Clock(), list[int](), list[float]()
    pace = Pace(60.0, settled.append, lambda: waits.append(clock.now), clock, warm=3, measured=4)
    found = []
    for step in range(11, 21):
        clock.now += 5.0 if step < 14 else 0.5  # the first steps take longer
        found.append(pace.tick(step))
    assert found[:6] == [None] * 6
    assert found[7:] == [None] * 3
    assert settled == [found[6]] == [17 + round((60.0 - 17.0) / 0.5)]
    assert len(waits) == 2


def test_a_time_that_is_over_still_gives_a_step():
    clock, settled = Clock(), list[int]()
    pace = Pace(1.0, settled.append, clock=clock, warm=1, measured=1)
    for step in (1, 2):
        clock.now += 9.0
        pace.tick(step)
    assert settled == [3]


def test_a_run_ends_where_its_pace_says(tmp_path):
    run, told, settled = Counting(tmp_path), [], list[int]()
    clock = Clock()

    def wait():
        clock.now += 1.0  # so that the two looks at the clock are a second apart: a fifth of it a step

    pace = Pace(4.0, settled.append, wait, clock, warm=5, measured=5)
    run_steps(run, 10**9, 10**9, lambda *a: told.append(a), pace=pace)
    assert settled == [10 + 10] == [run.step]
    assert (10, {"steps": 20}) in told
    assert run.saved == [20]


def test_a_deadline_ends_a_run_after_a_step(tmp_path):
    run, told = Counting(tmp_path), []
    run_steps(run, 100, 10**9, lambda *a: told.append(a), deadline=time.monotonic() - 1)
    assert run.step == 1
    assert run.saved == [1]
    assert told[0][1]["loss"] == 1.0


def test_losses_may_be_tensors(tmp_path):
    class Tensors(Counting):
        def advance(self):
            found = super().advance()
            return {"loss": torch.tensor(found["loss"]), "plain": found["loss"]}

    told = []
    run_steps(Tensors(tmp_path), 4, 10, lambda *a: told.append(a))
    assert told[0][1]["loss"] == told[0][1]["plain"] == 2.5
