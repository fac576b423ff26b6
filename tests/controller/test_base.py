from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semaphone.controller.base import LinkLoss

rates = st.floats(0, 1)


@given(rates, rates)
def test_mendable_losses_are_those_that_copies_mend(p, r):
    rate = LinkLoss(p, r).mendable
    assert 0 <= rate <= 0.5
    assert rate * (1 - rate) == pytest.approx(p * (1 - max(r, p)), abs=1e-9)


@given(st.floats(0, 0.5))
def test_independent_losses_are_as_they_are(p):
    assert LinkLoss(p).mendable == p
    assert LinkLoss(p, p).mendable == pytest.approx(p, abs=1e-6)
    assert LinkLoss(p, 0.0).mendable == pytest.approx(p, abs=1e-6)  # nothing can be less likely to be lost again


def test_what_a_burst_takes_no_copy_mends():
    assert LinkLoss(0.3, 1.0).mendable == 0.0
