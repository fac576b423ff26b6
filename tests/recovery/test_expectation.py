"""How much of a guessed token to believe."""

from __future__ import annotations

import torch

from semaphone.recovery.expectation import expected_share

POINTS = torch.tensor([[[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.9, 0.1]]])
GUESSED = torch.ones(1, 1, dtype=torch.bool)


def share(probabilities: list[float], token: int, sharpness: float = 1.0) -> float:
    logits = torch.tensor(probabilities).clamp(min=1e-12).log()[None, None]
    return float(expected_share(logits, torch.tensor([[token]]), GUESSED, POINTS, sharpness))


def test_bets_on_what_is_alike_add_up_and_others_cancel():
    assert abs(share([1.0, 0, 0, 0], 0) - 1.0) < 1e-6
    assert abs(share([0.5, 0, 0, 0.5], 0) - 0.95) < 1e-6
    assert share([0.5, 0.5, 0, 0], 0) < 1e-6
    assert share([0.1, 0.9, 0, 0], 0) == 0.0  # never against what was chosen
    assert share([0.6, 0.3, 0.1, 0], 0) < share([0.6, 0.3, 0.1, 0], 0, 3.0) < 1.0


def test_it_is_the_nearest_multiple_on_average():
    torch.manual_seed(1)
    points, logits = torch.randn(1, 20, 6) + 1.0, torch.randn(1, 1, 20)
    token = logits.argmax(-1)
    found = float(expected_share(logits, token, GUESSED, points))
    p, chosen = torch.softmax(logits[0, 0], -1), points[0, token[0, 0]]
    errors = [float((p * (points[0] - w * chosen).square().sum(-1)).sum()) for w in (found - 0.01, found, found + 0.01)]
    assert 0 < found < 1
    assert errors[1] <= min(errors)


def test_received_tokens_count_in_full():
    guessed = torch.tensor([[False], [True]])
    logits = torch.zeros(2, 1, 4)
    found = expected_share(logits, torch.zeros(2, 1, dtype=torch.long), guessed, POINTS)
    assert float(found[0, 0]) == 1.0
    assert float(found[1, 0]) < 1.0
