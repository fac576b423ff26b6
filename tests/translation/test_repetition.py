"""Loops are found in every script, and ordinary repetition is none."""

from __future__ import annotations

import time

import pytest

from semaphone.translation.repetition import loops, second_saying

ONCE = {
    "The next day, ": 3,
    "谢谢观看": 3,
    "請訂閱，": 3,
    "ご視聴ありがとうございました。": 3,
    "ขอบคุณครับ": 3,
    "ຂອບໃຈຫຼາຍ": 3,
    "Спасибо за просмотр! ": 3,
    "धन्यवाद दोस्तों ": 3,
    "شكرا لكم ": 3,
    "감사합니다 여러분. ": 3,
    "the ": 6,
    "好": 6,
    "감사합니다. ": 6,
}


@pytest.mark.parametrize(("phrase", "times"), ONCE.items())
def test_a_phrase_over_and_over_is_a_loop_in_every_script(phrase, times):
    assert second_saying(phrase * times) == len(phrase)
    assert second_saying("so " + phrase * times + " and then") == len("so " + phrase)
    assert not loops(phrase * (times - 1))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "...",
        "No, no, no!",
        "不，不，不！",
        "To make a call, press 4. To make a call, press 5.",
        "我们去看看，他们也去想想，大家都去试试。",
        "Donaudampfschifffahrtsgesellschaftskapitän",
    ],
)
def test_ordinary_text_is_none(text):
    assert not loops(text)


def test_letters_without_a_space_are_taken_one_by_one_when_no_word_is_that_long():
    assert second_saying("ha" * 20) == 2
    assert not loops("hahaha")


def test_case_marks_and_width_do_not_count():
    assert loops("Thank you. thank YOU! ＴＨＡＮＫ you")


def test_long_texts_take_no_time():
    begin = time.perf_counter()
    assert not loops(" ".join(str(i * 7919 % 10007) for i in range(1000)))
    assert time.perf_counter() - begin < 2.0
