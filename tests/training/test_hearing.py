import torch
from tests.training.teacher import variables

from semaphone.training.hearing import HeardLoss


def test_the_same_is_no_error_and_gradients_reach_what_was_made():
    torch.manual_seed(0)
    loss, truth = HeardLoss(variables()), 0.1 * torch.randn(2, 6400)
    assert float(loss(truth, truth)) == 0.0
    made = (0.1 * torch.randn(2, 6400)).requires_grad_()
    error = loss(made, truth)
    assert error.item() > 0.01
    error.backward()
    assert made.grad is not None
    assert float(made.grad.abs().sum()) > 0
    assert all(p.grad is None for p in loss.parameters())


def test_nearer_speech_is_heard_as_nearer():
    torch.manual_seed(0)
    loss, truth, noise = HeardLoss(variables()), 0.1 * torch.randn(2, 6400), 0.1 * torch.randn(2, 6400)
    errors = [float(loss(truth + share * noise, truth)) for share in (0.01, 0.1, 1.0)]
    assert errors == sorted(errors)
