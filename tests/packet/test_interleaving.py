from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from semaphone.packet.interleaving import interleave


def test_even_indices_are_swapped() -> None:
    got = interleave(np.array([[10, 11, 12, 13, 14], [20, 21, 22, 23, 24]]))
    np.testing.assert_array_equal(got, [[20, 11, 22, 13, 24], [10, 21, 12, 23, 14]])


@given(st.integers(1, 32), st.integers(0, 2**32 - 1))
def test_twice_is_nothing(num_codebooks, seed) -> None:
    block = np.random.default_rng(seed).integers(0, 2048, (2, num_codebooks))
    np.testing.assert_array_equal(interleave(interleave(block)), block)
