"""The training of recovery on a device that is no CPU."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from tests.training.elsewhere import DEVICE, Alone, moved, there
from tests.training.test_recovery import BOTH, MODEL, C, ramps
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from semaphone.recovery.base import TokenStatus
from semaphone.recovery.rq_transformer import RQTransformer
from semaphone.training.device import autocast
from semaphone.training.recovery import Losses, _update
from semaphone.training.recovery_batches import Batch, planned
from semaphone.training.recovery_dev import entropies
from semaphone.training.runs import follow


@BOTH
@pytest.mark.parametrize("text", [False, True])
def test_a_step_stays_on_its_device_and_waits_for_nothing(model, text):
    c = replace(C, model=model, dropout=0.1)
    p = planned(ramps(text=text), c, 0)
    fresh = RQTransformer(model)
    assert len(p.guessed)
    assert p.has_text == text
    with FakeTensorMode() as mode:
        batch = Batch(*(there(mode, getattr(p.batch, f.name)) for f in fields(Batch)))
        p = replace(p, batch=batch, rows=there(mode, p.rows), guessed=there(mode, p.guessed))
        net = moved(mode, fresh).train()
        losses = Losses(net, c, sparse=False)
        average = {k: v.clone() for k, v in net.state_dict().items()}
        losses._lambda = there(mode, losses._lambda)
        with Alone():
            past = losses.past(p)
            found = losses.of(p, past)
            found["loss"].backward()
            norm = torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            follow(average, net, 10, 0.99)
        assert all(x.device == DEVICE for x in (past, norm, *found.values(), *average.values()))
        assert ("text" in found) == text


@BOTH
def test_the_dev_set_is_looked_at_on_the_device(model, monkeypatch):
    fresh = RQTransformer(model)
    monkeypatch.setattr(FakeTensor, "tolist", lambda x: [True] * len(x))
    with FakeTensorMode() as mode, torch.no_grad():
        net = moved(mode, fresh).eval()
        tokens = there(mode, torch.zeros(2, 5, 4, dtype=torch.int64))
        status = there(mode, torch.full((2, 5, 4), int(TokenStatus.LOST)))
        with Alone():
            entropy, right = entropies(net, tokens, status, status)
        assert entropy.device == right.device == DEVICE


@BOTH
def test_all_codebooks_at_once_give_the_same_losses(model):
    c = replace(C, model=model)
    p = planned(ramps(text=True), c, 3)
    found, slopes = [], []
    for sparse in (True, False):
        torch.manual_seed(0)
        net = RQTransformer(model).eval()
        losses = Losses(net, c, sparse)
        past = losses.past(p)
        found.append({"past": past.float(), **losses.of(p, past)})
        found[-1]["loss"].backward()
        slopes.append({name: v.grad for name, v in net.named_parameters() if v.grad is not None})
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name])
    assert slopes[0].keys() == slopes[1].keys()
    for name, slope in slopes[0].items():
        torch.testing.assert_close(slope, slopes[1][name])


def test_bfloat16_has_the_types_that_all_codebooks_at_once_need():
    c = replace(C, bf16=True)
    p = planned(ramps(), c, 3)
    losses = Losses(RQTransformer(MODEL).train(), c, sparse=False)
    with autocast(torch.device("cpu"), bf16=True):
        found = losses.of(p, losses.past(p))
    found["loss"].backward()
    assert found["loss"].dtype == torch.float32
    assert all(torch.isfinite(v.grad).all() for v in losses.model.parameters() if v.grad is not None)


def test_a_step_with_gradients_that_are_not_finite_is_left_out():
    net = RQTransformer(MODEL)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    optimiser = torch.optim.AdamW(net.parameters(), 0.1, fused=True)
    for norm, moves in ((float("nan"), False), (float("inf"), False), (1.0, True)):
        for value in net.parameters():
            value.grad = torch.full_like(value, norm)
        _update(optimiser, torch.tensor(norm))
        same = all(torch.equal(value, before[name]) for name, value in net.named_parameters())
        assert same != moves
    assert all(float(state["step"]) == 1.0 for state in optimiser.state.values())


def test_one_look_up_for_all_tables_is_the_same():
    """What a GPU does instead of a look-up for each codebook, in numbers."""
    from semaphone.recovery import depth

    net = RQTransformer(MODEL)
    ids, text = torch.randint(0, 32, (7, 4)), torch.zeros(7, dtype=torch.int64)
    one = depth.embed_each(net.depth_decoder, ids, text)
    torch.testing.assert_close(depth.embed_together(net.depth_decoder, ids, text), one)
    assert np.prod(one.shape) == 7 * 4 * MODEL.depth_width
