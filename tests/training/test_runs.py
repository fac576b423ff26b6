import json

import pytest
import torch
from torch import nn

from semaphone.training.runs import FOLLOW, LOG, cosine_rate, follow, run_steps


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
