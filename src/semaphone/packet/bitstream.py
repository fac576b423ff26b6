"""Bits without gaps, most significant first, as on the wire."""

from __future__ import annotations

from semaphone.errors import InputError


class PacketError(InputError):
    """Bytes that are no packet of this format: truncated, damaged, forged or foreign."""


class BitWriter:
    """Collects numbers of any width; `getvalue` pads the last byte with zeros."""

    def __init__(self) -> None:
        self._value = 0
        self.bits = 0

    def write(self, value: int, width: int) -> None:
        """Appends `value` in `width` bits; ValueError if it does not fit."""
        if not 0 <= value < 1 << width:
            raise ValueError(f"{value} does not fit {width} bits")
        self._value = self._value << width | value
        self.bits += width

    def getvalue(self) -> bytes:
        """All bits so far, in whole bytes."""
        size = -(-self.bits // 8)
        return (self._value << 8 * size - self.bits).to_bytes(size, "big")


class BitReader:
    """Reads what BitWriter wrote; never beyond the end."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "big")
        self._size = 8 * len(data)
        self._position = 0

    @property
    def remaining(self) -> int:
        """Bits not yet read."""
        return self._size - self._position

    def read(self, width: int, what: str) -> int:
        """The next `width` bits; PacketError names `what` is missing."""
        if width > self.remaining:
            raise PacketError(
                f"The packet ends in the middle of {what}: {width} bits are needed, {self.remaining} left."
            )
        self._position += width
        return self._value >> self._size - self._position & (1 << width) - 1

    def end(self, size: int | None = None) -> None:
        """Checks that only zero bits are left: less than a byte, or up to `size` bytes of payload."""
        if size is None and self.remaining >= 8:
            raise PacketError("The packet goes on after its last token.")
        if size is not None and self._size != 8 * size:
            raise PacketError(f"The packet should have {size} bytes, not {self._size // 8}.")
        if self._value & (1 << self.remaining) - 1:
            raise PacketError("The packet's padding is not zero.")
