"""Texts that say the same get the same spelling."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semaphone.metrics.normalise import normalise_text


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ZERO THREE FIVE ONE", "0351."),
        ("three two two seven", "3,227"),
        ("Twenty-one!", "21"),
        ("two thousand and one", "2001"),
        ("nineteen fifty", "1950"),
        ("a hundred", "100"),
        ("one hundred and five", "105"),
        ("one million two hundred thousand and three", "1,200,003"),
        ("the twenty first of May", "the 21st of may"),
        ("the second time", "The 2nd time"),
        ("one point five percent", "1.5%"),
        ("five dollars", "$5"),
        ("I can't, and I won't; it's mine", "I can not and I will not it is mine"),
        ("Mr. Smith's neighbours recognised the grey theatre", "mister smiths neighbors recognized the gray theater"),
        ("Um, he travelled... uh, far", "He traveled far."),
        ("don’t [music] go", "do not go"),
    ],
)
def test_the_same_is_spelled_the_same(one: str, other: str) -> None:
    assert normalise_text(one) == normalise_text(other) != ""


@pytest.mark.parametrize(("one", "other"), [("ten and five", "fifteen"), ("four", "for"), ("hour", "our")])
def test_what_differs_still_differs(one: str, other: str) -> None:
    assert normalise_text(one) != normalise_text(other)


def test_other_languages() -> None:
    assert normalise_text("Ça va? C'est l'été!", "fr") == "ça va c est l été"
    assert normalise_text("你好，世界。", "zh") == "你 好 世 界"


@given(st.text())
def test_any_text_becomes_words_of_letters_and_digits(text: str) -> None:
    words = normalise_text(text)
    assert words == " ".join(words.split())
    assert normalise_text(text.upper().lower()) == normalise_text(text.upper().lower().lower())


@given(st.integers(0, 10**12 - 1))
def test_digits_come_out_one_by_one(number: int) -> None:
    assert normalise_text(f"{number:,}") == " ".join(str(number))
