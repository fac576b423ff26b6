"""One stream in numpy gives what a batch in PyTorch gives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from tests.recovery.test_lm import MOSHI, NANO, K, N

from semaphone.recovery.base import TokenStatus
from semaphone.recovery.lone import eligible
from semaphone.recovery.rq_transformer import RQTransformer
from semaphone.recovery.sampling import Sampling


def both(config=NANO) -> tuple[RQTransformer, RQTransformer]:
    torch.manual_seed(4)
    slow = RQTransformer(config).eval()
    fast = RQTransformer(config).eval()
    fast.load_state_dict(slow.state_dict())
    fast.prepare()
    assert fast.lone is not None
    assert slow.lone is None
    return slow, fast


@pytest.mark.parametrize("config", [NANO, MOSHI, replace(NANO, layers=3, depth_layers=2, heads=4, window=4)])
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=1.0, seed=3)])
def test_the_same_numbers(config, sampling):
    slow, fast = both(config)
    rng = torch.Generator().manual_seed(1)
    a = b = None
    for _ in range(15):  # longer than the window
        tokens = torch.randint(0, K, (1, N), generator=rng)
        status = torch.randint(0, 4, (1, N), generator=rng)
        first = slow.step(tokens, status, a, sampling=sampling, all_logits=True)
        second = fast.step(tokens, status, b, sampling=sampling, all_logits=True)
        torch.testing.assert_close(first.logits, second.logits, rtol=1e-4, atol=1e-5)
        assert torch.equal(first.tokens, second.tokens)
        a, b = first.state, second.state
        for left, right in zip((*a.window.keys, *a.window.values), (*b.window.keys, *b.window.values), strict=True):
            torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5)


def test_a_stream_may_join_a_batch_and_leave_it():
    slow, fast = both()
    rng = torch.Generator().manual_seed(2)
    tokens = torch.randint(0, K, (8, 1, N), generator=rng)
    status = torch.full((1, N), int(TokenStatus.LOST))
    lone: Any = None
    together: Any = None
    for one in tokens[:4]:
        lone = fast.step(one, status, lone).state
        together = slow.step(one.expand(2, -1), status.expand(2, -1), together).state
    for left, right in zip(lone.window.keys, together.window.keys, strict=True):
        torch.testing.assert_close(left[0], right[0], rtol=1e-4, atol=1e-5)


def test_who_may_take_the_fast_way():
    slow, _ = both()
    assert eligible(slow)
    assert not eligible(RQTransformer(NANO).to(torch.bfloat16))
    assert not eligible(RQTransformer(replace(NANO, width=1024, heads=8)))


def test_what_is_trained_on_is_prepared_anew():
    _, fast = both()
    fast.train()
    assert fast.lone is None
