"""What a guessed token adds to the codec's sum."""

from __future__ import annotations

import torch

from semaphone.recovery.expectation import expected_entries

POINTS = torch.tensor([[[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.9, 0.1]]])
GUESSED = torch.ones(1, 1, dtype=torch.bool)


def expected(probabilities: list[float], sharpness: float = 1.0) -> list[float]:
    logits = torch.tensor(probabilities).clamp(min=1e-12).log()[None, None]
    return expected_entries(logits, GUESSED, POINTS, sharpness)[0, 0].tolist()


def test_bets_on_what_is_alike_add_up_and_others_cancel():
    torch.testing.assert_close(expected([1.0, 0, 0, 0]), [1.0, 0.0])
    torch.testing.assert_close(expected([0.5, 0, 0, 0.5]), [0.95, 0.05])
    torch.testing.assert_close(expected([0.5, 0.5, 0, 0]), [0.0, 0.0], atol=1e-6, rtol=0)
    assert expected([0.6, 0.3, 0.1, 0])[0] < expected([0.6, 0.3, 0.1, 0], 3.0)[0] < 1.0


def test_it_is_nearest_to_the_truth_on_average():
    generator = torch.Generator().manual_seed(1)
    points = torch.randn(1, 20, 6, generator=generator) + 1.0
    logits = torch.randn(1, 1, 20, generator=generator)
    p = torch.softmax(logits[0, 0], -1)

    def error(place: torch.Tensor) -> float:
        return float((p * (points[0] - place).square().sum(-1)).sum())

    found = expected_entries(logits, GUESSED, points)[0, 0]
    others = [*points[0], *(found + 0.01 * torch.randn(6, generator=generator) for _ in range(20))]
    assert error(found) < min(error(place) for place in others)


def test_received_tokens_add_nothing_besides():
    guessed = torch.tensor([[False], [True]])
    found = expected_entries(torch.zeros(2, 1, 4), guessed, POINTS)
    assert found[0].tolist() == [[0.0, 0.0]]
    torch.testing.assert_close(found[1, 0], POINTS[0].mean(0))
