import copy
import math
import pickle

import pytest
import torch

from semaphone.controller.adaptive import mask_at
from semaphone.controller.base import FixedController, LinkLoss, Mask
from semaphone.controller.masks import hard_mask, soft_mask, straight_through


def test_masks_equal_the_equations_for_every_importance_and_rate():
    for rate in range(1, 17):
        for step in range(101):
            importance = torch.tensor(step / 100, dtype=torch.float64)
            mask = hard_mask(rate * importance, 16)
            expected = [1.0 if j <= float(rate * importance) else 0.0 for j in range(1, 17)]
            assert mask.tolist() == expected


def test_soft_masks_are_equation_11():
    tau = 3.0
    for i in (0.0, 0.7, 2.5, 7.9):
        soft = soft_mask(torch.tensor(i, dtype=torch.float64), 8, tau)
        for j in range(1, 9):
            ratio = math.cosh(tau * (i - j)) / math.cosh(tau * (-i + j + 1))
            assert soft[j - 1] == pytest.approx(math.log(ratio) / (2 * tau) + 0.5, abs=1e-9)


def test_soft_masks_do_not_overflow():
    assert torch.isfinite(soft_mask(torch.tensor([0.0, 1e4]), 16, 100.0)).all()


def test_the_straight_through_estimator():
    level = torch.tensor([2.5], requires_grad=True)
    mask = straight_through(level, 6, 4.0)
    assert torch.equal(mask.detach().round(), hard_mask(level.detach(), 6))
    mask.sum().backward()
    assert level.grad is not None
    assert float(level.grad) > 0.5


def test_an_empty_mask_has_a_gradient_if_the_slope_comes_first():
    for ahead, least, most in ((0.0, 0.0, 0.1), (1.0, 0.9, 1.1)):
        level = torch.tensor([0.4], requires_grad=True)
        straight_through(level, 6, 5.0, ahead).sum().backward()
        assert level.grad is not None
        assert least <= float(level.grad) <= most


def test_a_token_goes_never_once_or_twice():
    s, c = hard_mask(torch.tensor(3.0), 5), hard_mask(torch.tensor(1.0), 5)
    assert (s + c).tolist() == [2, 1, 1, 0, 0]  # eq 5
    mask = mask_at(4.0, importance=(0.75, 0.25), num_codebooks=5)
    assert mask == Mask(3, 1)
    assert (mask.sent, mask.twice, mask.transmissions) == (3, 1, 4)


def test_a_mask_of_a_history_has_more_lengths():
    mask = Mask(8, 8, 4, 2)
    assert (mask.sent, mask.twice, mask.transmissions) == (8, 8, 22)
    assert [mask.at(age) for age in range(6)] == [8, 8, 4, 2, 0, 0]
    assert Mask(5) == Mask(5, 0) == (5, 0)
    assert copy.deepcopy(mask) == pickle.loads(pickle.dumps(mask)) == mask
    assert repr(mask) == "Mask(8, 8, 4, 2)"


def test_the_fixed_controller():
    masks, _ = FixedController(8, 4).step(torch.zeros(16, 3), LinkLoss(0.3), None)
    assert masks == [Mask(8, 4)] * 3
    with pytest.raises(ValueError, match="copies"):
        FixedController(4, 5)
