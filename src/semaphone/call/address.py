"""Addresses and durations as people write them: `:5004`, `host:5004`, `[::1]:5004`, `30ms`, `8kbit`."""

from __future__ import annotations

import re
import socket

from semaphone.errors import InputError

Address = tuple[str, int]


def parse_address(text: str, default_host: str = "0.0.0.0") -> Address:
    """`host:port` → (IP address, port). Raises InputError if it is not one or the host is not known."""
    found = re.fullmatch(r"(?:\[(?P<v6>[0-9a-fA-F:.%\w]+)\]|(?P<host>[^:\[\]\s]*)):(?P<port>[0-9]{1,5})", text)
    if found is None or not int(found["port"]) < 65536:
        raise InputError(f"An address is written like host:5004, not {text!r}.")
    host, port = found["v6"] or found["host"] or default_host, int(found["port"])
    try:
        resolved = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as error:
        raise InputError(f"The host {host} is not known.") from error
    return str(resolved[0][4][0]), port


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
