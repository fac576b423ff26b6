from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semaphone.packet.bitstream import PacketError
from semaphone.packet.rtp import HeaderExtension, RtpPacket, is_rtcp, parse_rtp, serialize_rtp, unwrap

# A first packet of a talk spurt, and one with everything that a header can have.
PLAIN = RtpPacket(96, 17861, 2560, 0xDECAFBAD, bytes.fromhex("1f5002008027ff4000"), marker=True)
FULL = RtpPacket(
    97, 65535, 0xFFFFFFFF, 1, b"speech", csrc=(2, 3), extension=HeaderExtension(0xBEDE, b"abcd"), padding_size=2
)
GOLDEN = {
    PLAIN: "80e045c500000a00decafbad1f5002008027ff4000",
    FULL: "b261ffffffffffff000000010000000200000003bede0001616263647370656563680002",
}

words = st.integers(0, 2**32 - 1)
packets = st.builds(
    RtpPacket,
    st.integers(0, 127),
    st.integers(0, 65535),
    words,
    words,
    st.binary(max_size=60),
    st.booleans(),
    st.lists(words, max_size=15).map(tuple),
    st.none()
    | st.builds(
        HeaderExtension, st.integers(0, 65535), st.lists(st.binary(min_size=4, max_size=4), max_size=3).map(b"".join)
    ),
    st.integers(0, 255),
)


@pytest.mark.parametrize("packet", GOLDEN)
def test_golden_packets(packet) -> None:
    assert serialize_rtp(packet).hex() == GOLDEN[packet]
    assert parse_rtp(bytes.fromhex(GOLDEN[packet])) == packet


@given(packets)
def test_round_trip(packet) -> None:
    assert parse_rtp(serialize_rtp(packet)) == packet


@given(st.binary(max_size=80))
def test_garbage_is_refused_or_a_packet(data) -> None:
    try:
        packet = parse_rtp(data)
    except PacketError:
        return
    assert parse_rtp(serialize_rtp(packet)) == packet


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (GOLDEN[PLAIN][:22], "The RTP packet ends in the middle of its header, after 11 bytes."),
        ("40" + GOLDEN[PLAIN][2:], "The RTP packet has version 1, not 2."),
        (GOLDEN[FULL][:38], "The RTP packet ends in the middle of its list of contributing sources."),
        (GOLDEN[FULL][:46], "The RTP packet ends in the middle of its header extension."),
        (GOLDEN[FULL][:54], "The RTP packet ends in the middle of its header extension."),
        (GOLDEN[FULL][:-2] + "09", "The RTP packet claims a padding of 9 bytes, which cannot be."),
        (GOLDEN[FULL][:-2] + "00", "The RTP packet claims a padding of 0 bytes, which cannot be."),
    ],
)
def test_truncated_and_forged(data, sentence) -> None:
    with pytest.raises(PacketError) as caught:
        parse_rtp(bytes.fromhex(data))
    assert str(caught.value) == sentence


@pytest.mark.parametrize("wrong", [{"payload_type": 128}, {"sequence_number": 65536}, {"timestamp": -1}])
def test_fields_that_do_not_fit(wrong) -> None:
    values = {"payload_type": 96, "sequence_number": 0, "timestamp": 0, "ssrc": 0, **wrong}
    with pytest.raises(ValueError, match="fit an RTP header"):
        serialize_rtp(RtpPacket(**values))


def test_rtcp_shares_the_port() -> None:
    assert not is_rtcp(serialize_rtp(PLAIN))
    assert is_rtcp(bytes.fromhex("80c80006"))
    assert not is_rtcp(b"\x80")


@given(st.integers(-(2**40), 2**40), st.integers(-30000, 30000))
def test_counters_wrap(near, distance) -> None:
    assert unwrap((near + distance) % 65536, near, 16) == near + distance
