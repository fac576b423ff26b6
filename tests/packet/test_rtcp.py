from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semaphone.packet.bitstream import PacketError
from semaphone.packet.rtcp import (
    App,
    Bye,
    ReceiverReport,
    ReportBlock,
    SenderReport,
    SourceDescription,
    VoipMetrics,
    parse_rtcp,
    serialize_rtcp,
)

BLOCK = ReportBlock(0xBC5E9A40, 51, -3, 65536 + 630, 1906, 0x12345678, 65536)
GOLDEN = {
    SenderReport(0x6D2467AA, 2**32 * 3_900_000_000 + 2**31, 0x66A8D7FE, 269, 13557, (BLOCK,)): (
        "81c8000c6d2467aae87547008000000066a8d7fe0000010d000034f5bc5e9a4033fffffd00010276000007721234567800010000"
    ),
    ReceiverReport(1): "80c9000100000001",
    SourceDescription(0x6D2467AA, "call@here"): "81ca00046d2467aa010963616c6c406865726500",
    Bye((0x6D2467AA,), "done"): "81cb00036d2467aa04646f6e65000000",
    App(1, b"SPHN", b"12345678"): "80cc0004000000015350484e3132333435363738",
    VoipMetrics(1, 2, 26, 1, 128, 5, 320, 4000, 61, 180, jb_nominal=40, jb_maximum=60, jb_abs_max=500): (
        "80cf000a0000000107000008000000021a01800501400fa0003d00b47f7f7f107f7f7f7f30000028003c01f4"
    ),
}


words, shorts, octets = st.integers(0, 2**32 - 1), st.integers(0, 65535), st.integers(0, 255)
blocks = st.lists(
    st.builds(ReportBlock, words, octets, st.integers(-(2**23), 2**23 - 1), words, words, words, words), max_size=3
).map(tuple)
packets = st.one_of(
    st.builds(SenderReport, words, st.integers(0, 2**64 - 1), words, words, words, blocks),
    st.builds(ReceiverReport, words, blocks),
    st.builds(SourceDescription, words, st.text(max_size=20)),
    st.builds(Bye, st.lists(words, max_size=3).map(tuple), st.text(max_size=20)),
    st.builds(App, words, st.just(b"TEST"), st.integers(0, 5).map(lambda n: bytes(4 * n)), st.integers(0, 31)),
    st.builds(
        VoipMetrics,
        *([words] * 2 + [octets] * 4 + [shorts] * 4 + [octets, st.booleans()] + [shorts] * 3),
    ),
)


@pytest.mark.parametrize("packet", GOLDEN)
def test_golden_packets(packet) -> None:
    assert serialize_rtcp([packet]).hex() == GOLDEN[packet]
    assert parse_rtcp(bytes.fromhex(GOLDEN[packet])) == [packet]


@pytest.mark.parametrize("packet", GOLDEN)
def test_every_truncation_is_refused(packet) -> None:
    data = bytes.fromhex(GOLDEN[packet])
    for size in range(len(data)):
        with pytest.raises(PacketError, match=r"^The RTCP packet "):
            parse_rtcp(data[:size])


@given(st.lists(packets, min_size=1, max_size=4))
def test_round_trip(compound) -> None:
    data = serialize_rtcp(compound)
    assert len(data) % 4 == 0
    assert parse_rtcp(data) == compound


@given(st.binary(max_size=100))
def test_garbage_is_refused_or_parsed(data) -> None:
    for start in (b"", bytes.fromhex("81ca0003"), bytes.fromhex("80cf000a00000001")):
        try:
            parse_rtcp(start + data)
        except PacketError as error:
            assert str(error).startswith("The RTCP packet ")  # noqa: PT017


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ("", "The RTCP packet is empty."),
        ("80c9", "The RTCP packet ends in the middle of a header."),
        ("00c9000100000001", "The RTCP packet has version 0, not 2."),
        ("80c90002000000", "The RTCP packet of type 201 ends before its 12 bytes."),
        ("81c9000100000001", "The RTCP packet of type 201 is shorter than what it claims to hold."),
        ("a0c9000100000003", "The RTCP packet claims a padding of 3 bytes, which cannot be."),
    ],
)
def test_exact_texts(data, sentence) -> None:
    with pytest.raises(PacketError) as caught:
        parse_rtcp(bytes.fromhex(data))
    assert str(caught.value) == sentence


def test_what_is_not_known_is_skipped() -> None:
    unknown_type, unknown_block = "80d10001abababab", "80cf000300000001040000010000" + "0000"
    assert parse_rtcp(bytes.fromhex(unknown_type + unknown_block + "80c9000100000001")) == [ReceiverReport(1)]
    assert parse_rtcp(bytes.fromhex("a0c900020000000100000004")) == [ReceiverReport(1)]  # padded
