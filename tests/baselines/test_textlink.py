"""Words travel by phrases; a lost packet loses its words unless they are repeated."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semaphone.baselines.base import Packet, transfer
from semaphone.baselines.textlink import Phrase, TextLink, read_packet, speak, write_packet
from semaphone.errors import InputError

PHRASES = [Phrase("One sentence here.", 1.0), Phrase("another one", 2.0), Phrase("ends.", 2.5)]


def test_plain_text_is_the_payload() -> None:
    packets = TextLink().packets(PHRASES)
    assert [p.payload for p in packets] == [b"One sentence here.", b"another one", b"ends."]
    assert [p.send_time for p in packets] == [1.0, 2.0, 2.5]


def test_a_lost_packet_loses_its_words() -> None:
    first, _, third = TextLink().packets(PHRASES)
    assert TextLink().text([first, None, third]) == "One sentence here. ends."
    assert TextLink().text([None, None, None]) == ""


def test_redundancy_brings_them_back_and_costs() -> None:
    link = TextLink(redundancy=2)
    packets = link.packets(PHRASES)
    assert len(packets) == 5
    assert [p.send_time for p in packets] == sorted(p.send_time for p in packets)
    for lost in range(3):
        arrived: list[Packet | None] = [None if lost <= p.sequence < lost + 2 else p for p in packets]
        assert link.text(arrived) == "One sentence here. another one ends."
    assert sum(p.bits for p in packets) > 2 * sum(p.bits for p in TextLink().packets(PHRASES))


@given(st.text(max_size=50), st.lists(st.text(max_size=50), max_size=5))
def test_packets_are_read_as_they_were_written(text: str, earlier: list[str]) -> None:
    assert read_packet(write_packet(text), False) == (text, {})
    count = len(earlier)
    assert read_packet(write_packet(text, earlier), True) == (
        text,
        {count - number: before for number, before in enumerate(earlier)},
    )


def test_the_format_of_rfc_2198() -> None:
    assert write_packet("cd", ["b"]) == bytes([0x80 | 98, 1, 0, 1, 98]) + b"bcd"


@given(st.binary(max_size=40), st.booleans())
def test_foreign_bytes_are_text_or_one_sentence(payload: bytes, redundant: bool) -> None:
    try:
        read_packet(payload, redundant)
    except InputError as error:
        assert str(error).startswith("A packet of the text link")  # noqa: PT017


def test_nothing_to_say_is_silence() -> None:
    assert not speak(" ...").any()
    sent = transfer(TextLink(), np.zeros(16000, np.float32))
    assert sent.packets_sent == 0
    assert not sent.speech.any()


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(InputError):
        TextLink(words_per_packet=0)
    with pytest.raises(InputError):
        TextLink(redundancy=9)


def test_the_voice_says_the_same_every_time() -> None:
    pytest.importorskip("hibari")
    assert np.array_equal(speak("Good evening."), speak("Good evening."))


@pytest.mark.slow
def test_words_cross_the_link() -> None:
    pytest.importorskip("faster_whisper")
    pytest.importorskip("hibari")
    spoken = speak("The first village was poor. They asked for bread and water.")
    sent = transfer(TextLink(), spoken)
    assert sent.packets_sent == 2
    assert "bread and water" in sent.details["text_arrived"]
    assert sent.details["text_bits"] < 8 * 80
    assert 20 < sent.payload_bps < 300
    assert sent.packets_lost == 0
    from semaphone.metrics.text import text_errors, transcribe

    assert text_errors(sent.details["text_sent"], transcribe(sent.speech, "en").text).wer < 0.2
