"""The text stream: letters where they are spoken."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from semaphone.training.alignment import LETTERS, OTHER, PAD, SIZE, letters, text_stream


def test_letters_are_spread_over_their_word():
    stream = text_stream([("Ab,", 0.08, 0.40), ("c", 0.56, 0.64)], 10)
    a, b, c = (LETTERS[x] for x in "abc")
    assert stream.tolist() == [PAD, a, a, b, b, PAD, PAD, c, PAD, PAD]


def test_fast_words_lose_letters_and_short_ones_may_fall_between():
    assert len(set(text_stream([("abcdefgh", 0.0, 0.32)], 4).tolist())) == 4
    assert not text_stream([("a", 0.05, 0.07), ("!", 0.0, 0.3), ("b", 0.2, 0.2)], 4).any()


def test_spelling():
    assert letters("Don\u2019t") == [LETTERS[x] for x in "don't"]
    assert letters("Été 42") == [LETTERS[x] for x in "ete"]
    assert letters("語") == [OTHER]
    assert SIZE <= 64  # what the recovery model's text stream has by default


@given(st.lists(st.tuples(st.text(), st.floats(-1, 3), st.floats(-1, 3)), max_size=5), st.integers(0, 30))
def test_any_words_give_a_stream(words, chunks):
    stream = text_stream(words, chunks)
    assert stream.shape == (chunks,)
    assert np.all((stream >= 0) & (stream < SIZE))
