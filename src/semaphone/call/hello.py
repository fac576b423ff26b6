"""How two ends of a call meet: hello packets, who is there, what they speak, and keys for it.

A hello is an RTCP APP packet (RFC 3550 §6.7) named SPHN. Its data, most significant byte first:

    version  1 byte   1
    flags    1 byte   1: the packets are SRTP; 2: the sender has accepted the number that it echoes
    size     2 bytes  of the header
    nonce   16 bytes  random, new whenever an end starts
    echo    16 bytes  the last nonce heard from the other end, zeros if none was
    header            of an .sph file (docs/wire-format.md): codec, fingerprint, sample rate, packet format
    padding           zeros, to a whole 32-bit word
    tag     16 bytes  HMAC-SHA-256 of the whole packet before it, cut short; zeros if there is no key

An end believes a hello only if it echoes the end's own nonce: a recorded one does not. Both nonces go into the
keys of SRTP, so a restart of either end makes new ones.
"""

from __future__ import annotations

import hmac
import secrets
import struct
from collections import deque
from dataclasses import dataclass

from semaphone.call.secure import Cipher, Plain, Srtp, derive
from semaphone.packet.bitstream import PacketError
from semaphone.packet.rtcp import App, parse_rtcp, serialize_rtcp
from semaphone.packet.sph_header import SphHeader, parse_header, serialize_header

NAME = b"SPHN"
VERSION = 1
TAG_BYTES = NONCE_BYTES = 16
SECURE, ACCEPTED = 1, 2
_FIELDS = struct.Struct(">BBH16s16s")


@dataclass(frozen=True)
class Hello:
    """What a hello packet says."""

    ssrc: int  # of the stream that its sender will send
    nonce: bytes
    echo: bytes
    header: SphHeader
    secure: bool
    accepted: bool


def is_hello(data: bytes) -> bool:
    """Does a datagram look like a hello? It may still be forged."""
    return len(data) >= 12 and data[1] == 204 and data[8:12] == NAME


def serialize_hello(hello: Hello, key: bytes | None) -> bytes:
    """The packet, with its tag if there is a key."""
    header = serialize_header(hello.header)
    flags = SECURE * hello.secure | ACCEPTED * hello.accepted
    data = _FIELDS.pack(VERSION, flags, len(header), hello.nonce, hello.echo) + header
    data += bytes(-len(data) % 4)
    packet = serialize_rtcp([App(hello.ssrc, NAME, data + bytes(TAG_BYTES))])
    return packet[:-TAG_BYTES] + _tag(packet[:-TAG_BYTES], key)


def parse_hello(data: bytes, key: bytes | None) -> Hello:
    """What a hello says. Raises PacketError if it is none, or not from someone who has the key."""
    packets = parse_rtcp(data)
    if len(packets) != 1 or not isinstance(packets[0], App) or packets[0].name != NAME:
        raise PacketError("The packet is no hello.")
    app = packets[0]
    if len(app.data) < _FIELDS.size + TAG_BYTES:
        raise PacketError("The hello is too short.")
    version, flags, size, nonce, echo = _FIELDS.unpack_from(app.data)
    if version != VERSION:
        raise PacketError(f"The hello has version {version}, and only {VERSION} is known here.")
    if bool(flags & SECURE) != (key is not None):
        raise PacketError("One side of the call is encrypted and the other one is not.")
    if not hmac.compare_digest(data[-TAG_BYTES:], _tag(data[:-TAG_BYTES], key)):
        raise PacketError("The hello is forged, or the two sides have different keys.")
    body = app.data[_FIELDS.size : -TAG_BYTES]
    if not size <= len(body) < size + 4 or any(body[size:]):
        raise PacketError("The hello has no sound header.")
    return Hello(app.ssrc, nonce, echo, parse_header(body[:size]), bool(flags & SECURE), bool(flags & ACCEPTED))


def _tag(data: bytes, key: bytes | None) -> bytes:
    return bytes(TAG_BYTES) if key is None else derive(derive(key, b"semaphone hello"), data)[:TAG_BYTES]


@dataclass(frozen=True)
class Met:
    """What a hello led to."""

    answer: bytes | None  # to be sent back
    new: bool  # the other end was not known, or has started anew
    fresh: bool  # it echoes our nonce, so it is not a recording of before we started


class Meeting:
    """One end's side of it. No clock and no socket."""

    def __init__(self, ssrc: int, header: SphHeader, key: bytes | None, nonce: bytes | None = None) -> None:
        self.ssrc, self.header, self.key = ssrc, header, key
        self.nonce = secrets.token_bytes(NONCE_BYTES) if nonce is None else nonce
        self.peer: Hello | None = None  # the last that was believed
        self._heard = bytes(NONCE_BYTES)
        self._past: deque[bytes] = deque(maxlen=4096)  # never go back: the keys would be used twice

    def hello(self) -> bytes:
        """What to send until someone answers, and whenever nothing is heard any more."""
        accepted = self.peer is not None and self.peer.nonce == self._heard
        hello = Hello(self.ssrc, self.nonce, self._heard, self.header, self.key is not None, accepted)
        return serialize_hello(hello, self.key)

    def receive(self, data: bytes) -> Met:
        """Takes a hello. Raises PacketError, with one sentence, for what cannot be believed or agreed to."""
        hello = parse_hello(data, self.key)
        if hello.nonce == self.nonce:
            raise PacketError("The hello is our own, sent back.")
        mine, other = self.header, hello.header
        if (other.codec, other.fingerprint, other.sample_rate) != (mine.codec, mine.fingerprint, mine.sample_rate):
            raise PacketError(
                f"The other side speaks {other.codec} with weights {other.fingerprint[:12]}, and this side"
                f" {mine.codec} with {mine.fingerprint[:12]}: both need the same."
            )
        fresh = hello.echo == self.nonce
        known = None if self.peer is None else (self.peer.nonce, self.peer.ssrc, self.peer.header)
        new = fresh and known != (hello.nonce, hello.ssrc, hello.header)
        if new and self.key is not None and hello.nonce in self._past:
            raise PacketError("The hello is of a call that is over.")
        if new:
            self._past.append(hello.nonce)
            self.peer = hello
        believed = self._heard
        self._heard = hello.nonce
        answer = None if fresh and hello.accepted else self.hello()
        if not fresh and self.peer is not None:
            self._heard = believed  # it may be a recording: answer it, and go on
        return Met(answer, new, fresh)

    def cipher(self) -> Cipher:
        """For the packets between this end and `peer`."""
        assert self.peer is not None
        if self.key is None:
            return Plain()
        mine, other = self.nonce, self.peer.nonce
        purpose = b"semaphone srtp"
        return Srtp(derive(self.key, purpose + mine + other), derive(self.key, purpose + other + mine), self.peer.ssrc)
