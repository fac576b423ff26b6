"""Keys and SRTP (RFC 3711): what keeps a call private, and forged or replayed packets out.

Both ends hold the same key file. From it and from a fresh random number of each end (see hello.py) every call,
and every restart of one end, gets keys of its own for either direction: AES-128 in counter mode with tags of 80
bits. So no packet of an earlier call means anything in a later one.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path
from typing import Any, Protocol

from semaphone.errors import InputError, MissingExtraError

KEY_BYTES = 32
_MASTER_BYTES = 30  # AES-128 key and 112-bit salt


class Refused(Exception):
    """A packet that is not let in; the text says why: `forged` or `replayed`."""


class Cipher(Protocol):
    """RTP and RTCP packets as they are ⇄ as they travel. `unprotect` raises Refused."""

    def protect(self, packet: bytes) -> bytes: ...

    def unprotect(self, packet: bytes) -> bytes: ...

    def protect_rtcp(self, packet: bytes) -> bytes: ...

    def unprotect_rtcp(self, packet: bytes) -> bytes: ...


class Plain:
    """No protection at all."""

    def protect(self, packet: bytes) -> bytes:
        """The packet itself, as in the other calls."""
        return packet

    unprotect = protect_rtcp = unprotect_rtcp = protect


class Srtp:
    """SRTP with one key a direction. What comes in must be of the source `ssrc`."""

    def __init__(self, sending: bytes, receiving: bytes, ssrc: int) -> None:
        srtp = _pylibsrtp()
        policy = srtp.Policy
        self._error = srtp.Error
        self._out = srtp.Session(policy(sending[:_MASTER_BYTES], policy.SSRC_ANY_OUTBOUND))
        self._in = srtp.Session(policy(receiving[:_MASTER_BYTES], policy.SSRC_SPECIFIC, ssrc))

    def protect(self, packet: bytes) -> bytes:
        """RTP → SRTP."""
        return bytes(self._out.protect(packet))

    def protect_rtcp(self, packet: bytes) -> bytes:
        """RTCP → SRTCP."""
        return bytes(self._out.protect_rtcp(packet))

    def unprotect(self, packet: bytes) -> bytes:
        """SRTP → RTP. Raises Refused."""
        return self._unprotect(self._in.unprotect, packet)

    def unprotect_rtcp(self, packet: bytes) -> bytes:
        """SRTCP → RTCP. Raises Refused."""
        return self._unprotect(self._in.unprotect_rtcp, packet)

    def _unprotect(self, unprotect: Any, packet: bytes) -> bytes:
        try:
            return bytes(unprotect(packet))
        except (self._error, ValueError) as error:  # ValueError: longer than any packet
            raise Refused("replayed" if "replay" in str(error) else "forged") from error


def check_srtp() -> None:
    """Raises MissingExtraError if SRTP is not installed."""
    _pylibsrtp()


def _pylibsrtp() -> Any:
    try:
        import pylibsrtp
    except ImportError:
        raise MissingExtraError("An encrypted call", "call") from None
    return pylibsrtp


def derive(key: bytes, purpose: bytes) -> bytes:
    """32 bytes for one purpose: HMAC-SHA-256."""
    return hmac.new(key, purpose, hashlib.sha256).digest()


def new_key(path: str | Path) -> None:
    """Writes a random key that only its owner can read. Raises InputError if the file exists or cannot be made."""
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        raise InputError(f"{path} exists already, and a key is never overwritten.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}.") from error
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(secrets.token_hex(KEY_BYTES) + "\n")


def read_key(path: str | Path) -> bytes:
    """The key of a file. Raises InputError if there is none, or if others can read it."""
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(4 * KEY_BYTES)
    except OSError as error:
        raise InputError(f"The key file {path} cannot be read: {error.strerror}.") from error
    if os.name == "posix" and mode & 0o077:
        raise InputError(f"The key file {path} can be read by others; mend it with: chmod 600 {path}")
    try:
        key = bytes.fromhex(text.decode("ascii").strip())
    except (UnicodeDecodeError, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise InputError(f"{path} holds no key; semaphone call --new-key FILE makes one.")
    return key
