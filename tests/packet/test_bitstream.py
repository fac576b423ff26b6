from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semaphone.packet.bitstream import BitReader, BitWriter, PacketError

numbers = st.integers(0, 40).flatmap(lambda width: st.tuples(st.integers(0, 2**width - 1), st.just(width)))


@given(st.lists(numbers))
def test_what_is_written_is_read(pairs) -> None:
    writer = BitWriter()
    for value, width in pairs:
        writer.write(value, width)
    reader = BitReader(writer.getvalue())
    assert [reader.read(width, "a number") for _, width in pairs] == [value for value, _ in pairs]
    assert reader.remaining == -sum(width for _, width in pairs) % 8
    reader.end()


def test_most_significant_bit_first() -> None:
    writer = BitWriter()
    writer.write(0b101, 3)
    writer.write(0b1, 1)
    writer.write(0x7FF, 11)
    assert writer.getvalue() == bytes([0b10111111, 0b11111110])


def test_limits() -> None:
    for value, width in ((8, 3), (-1, 3), (1, 0)):
        with pytest.raises(ValueError, match="does not fit"):
            BitWriter().write(value, width)
    with pytest.raises(
        PacketError, match=r"^The packet ends in the middle of its tokens: 11 bits are needed, 8 left\.$"
    ):
        BitReader(b"\xff").read(11, "its tokens")
    with pytest.raises(PacketError, match=r"^The packet's padding is not zero\.$"):
        BitReader(b"\x01").end(1)
    with pytest.raises(PacketError, match=r"^The packet goes on after its last token\.$"):
        BitReader(b"\x00\x00").end()
    with pytest.raises(PacketError, match=r"^The packet should have 3 bytes, not 2\.$"):
        BitReader(b"\x00\x00").end(3)
