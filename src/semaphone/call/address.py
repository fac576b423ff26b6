"""Addresses and durations as people write them: `:5004`, `host:5004`, `[::1]:5004`, `30ms`, `8kbit`."""

from __future__ import annotations

import re
import socket
from typing import Any

from semaphone.errors import InputError

# As the socket library has them: host and port, and with a zone of IPv6 (`%eth0`) flow and number of the interface.
Address = tuple[str, int] | tuple[str, int, int, int]

_PATTERN = re.compile(
    r"(?:\[(?P<v6>[0-9a-fA-F:.]+(?:%[\w.-]+)?)\]|(?P<host>[^:\[\]\s]*)):(?P<port>[0-9]{1,5})", re.ASCII
)


def parse_addresses(text: str, default_host: str = "0.0.0.0") -> list[Address]:
    """All addresses that `host:port` stands for, IPv4 first.

    Raises InputError if it is written otherwise or the host is not known.
    """
    found = _PATTERN.fullmatch(text)
    if found is None or not int(found["port"]) < 65536:
        raise InputError(f"An address is written like host:5004, not {text!r}.")
    host, port = found["v6"] or found["host"] or default_host, int(found["port"])
    try:
        resolved = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as error:
        raise InputError(f"The host {host} is not known.") from error
    addresses = dict.fromkeys(plain_address(entry[4]) for entry in resolved)
    return sorted(addresses, key=is_v6)


def parse_address(text: str, default_host: str = "0.0.0.0") -> Address:
    """`host:port` → the first of its addresses; see `parse_addresses`."""
    return parse_addresses(text, default_host)[0]


def plain_address(address: Any) -> Address:
    """What the socket library gives, as host and port; the zone stays where there is one."""
    host, port = str(address[0]).partition("%")[0], int(address[1])
    return (host, port, 0, int(address[3])) if len(address) == 4 and address[3] else (host, port)


def is_v6(address: Address) -> bool:
    """Is it an address of IPv6?"""
    return ":" in address[0]


def show(address: Address) -> str:
    """As people write it."""
    host = f"{address[0]}%{address[3]}" if len(address) == 4 else address[0]
    return f"[{host}]:{address[1]}" if is_v6(address) else f"{host}:{address[1]}"


def open_socket(address: Address, other: Address | None = None) -> socket.socket:
    """A UDP socket at `address`, connected to `other` if there is one. Raises InputError if it cannot be had."""
    udp = None
    try:
        udp = socket.socket(socket.AF_INET6 if is_v6(address) else socket.AF_INET, socket.SOCK_DGRAM)
        udp.setblocking(False)
        udp.bind(address)
        if other is not None:
            udp.connect(other)
    except OSError as error:
        if udp is not None:
            udp.close()
        reason = error.strerror or error
        raise InputError(
            f"Nothing can be received at {show(address)}: {reason}."
            if other is None
            else f"Nothing can be sent to {show(other)}: {reason}."
        ) from error
    return udp


def parse_duration(text: str) -> float:
    """`30ms`, `0.5s`, `2min`, `1h` or a plain number of s → s. Raises InputError."""
    return _parse(text, {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "": 1.0}, "A duration", "30ms or 2s")


def parse_rate(text: str) -> float:
    """`8kbit`, `1Mbit` or a plain number of bit/s → bit/s. Raises InputError."""
    return _parse(text, {"bit": 1.0, "kbit": 1e3, "Mbit": 1e6, "": 1.0}, "A rate", "8kbit")


def _parse(text: str, units: dict[str, float], what: str, example: str) -> float:
    found = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)([a-zA-Z]*)", text)
    if found is None or found[2] not in units:
        raise InputError(f"{what} is written like {example}, not {text!r}.")
    return float(found[1]) * units[found[2]]
