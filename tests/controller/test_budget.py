from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from semaphone.controller.base import LinkLoss, Mask
from semaphone.controller.budget import BudgetController, best_history, best_split


@given(st.integers(1, 40), st.integers(1, 32), st.floats(0, 1), st.floats(0, 1))
def test_the_budget_is_spent(transmissions, codebooks, p, r) -> None:
    mask = best_split(transmissions, codebooks, p, r)
    assert 0 <= mask.twice <= mask.sent <= codebooks
    assert mask.transmissions == min(transmissions, 2 * codebooks)


def test_worse_links_get_more_copies() -> None:
    copies = [best_split(8, 16, p, p).twice for p in (0, 0.02, 0.1, 0.2, 0.3)]
    assert copies[0] == 0
    assert copies == sorted(copies)
    assert copies[-1] >= 3


def test_the_semantic_token_is_the_first_to_go_twice() -> None:
    assert [best_split(11, 16, p, p).twice for p in (0.0, 0.01, 0.05, 0.1)] == [0, 0, 1, 2]


def test_copies_that_are_lost_together_are_worth_nothing() -> None:
    assert best_split(8, 16, 0.3, 1.0) == Mask(8, 0)


@given(st.integers(1, 80), st.integers(1, 32), st.integers(1, 16), st.floats(0, 1), st.floats(0, 1))
def test_a_history_spends_its_budget_on_nested_prefixes(transmissions, codebooks, packets, p, r) -> None:
    mask = best_history(transmissions, codebooks, packets, p, r)
    assert mask.transmissions == min(transmissions, codebooks * packets)
    assert codebooks >= mask.sent == mask[0]
    assert list(mask) == sorted(mask, reverse=True)


def test_a_history_without_loss_has_one_packet_a_token_first() -> None:
    assert best_history(8, 16, 4, 0.0, 0.0) == Mask(8, 0, 0, 0)
    assert best_history(8, 16, 4, 0.3, 1.0) == Mask(8, 0, 0, 0)
    lengths = [best_history(32, 16, 4, p, p) for p in (0.05, 0.2, 0.4)]
    assert lengths == [Mask(16, 15, 1, 0), Mask(16, 12, 4, 0), Mask(14, 10, 6, 2)]
    assert best_history(32, 16, 6, 0.2, 0.75) == Mask(16, 6, 4, 3, 2, 1)  # bursts: fewer tokens, farther


def test_in_heavy_loss_less_is_sent_and_then_more_again() -> None:
    controller = BudgetController(8, 16)
    masks, state = controller.step(torch.zeros(4, 100), LinkLoss(0.5), None)
    assert masks[0].transmissions == 8
    assert masks[-1].transmissions == 4
    masks, _ = controller.step(torch.zeros(4, 200), LinkLoss(0.0), state)
    assert masks[-1] == Mask(8, 0)


def test_what_is_never_sent_need_not_be_computed() -> None:
    assert BudgetController(8, 16).most == 8
    assert BudgetController(20, 16).most == 16


def test_a_wrong_budget() -> None:
    with pytest.raises(ValueError, match="at least one transmission"):
        BudgetController(0, 16)
