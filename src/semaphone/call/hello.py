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
keys of SRTP, so a restart of either end makes new ones. Without a key, the nonce depends on the address that a
hello goes to: whoever echoes it has received it there, and nobody can have packets sent to somebody else.

A hello that is not accepted is answered with a refusal, an APP packet named SPHR:

    version  1 byte   1
    reason   1 byte   see Reason
    zeros    2 bytes
    echo    16 bytes  the nonce of the hello that is refused
    tag     16 bytes  as in a hello
"""

from __future__ import annotations

import hmac
import secrets
import struct
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from semaphone.call.address import Address
from semaphone.call.secure import Cipher, Plain, Srtp, derive
from semaphone.packet.bitstream import PacketError
from semaphone.packet.format import PacketFormat
from semaphone.packet.rtcp import App, parse_rtcp, serialize_rtcp
from semaphone.packet.sph_header import SphHeader, parse_header, serialize_header

NAME, REFUSAL = b"SPHN", b"SPHR"
VERSION = 1
TAG_BYTES = NONCE_BYTES = 16
SECURE, ACCEPTED = 1, 2
_FIELDS = struct.Struct(">BBH16s16s")
_REFUSAL = struct.Struct(">BBH16s")


class Reason(Enum):
    """Why a hello is refused."""

    BUSY = 1  # there is a call already
    FORMAT = 2  # another codec or packet format
    OVER = 3  # another call has taken its place


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


def is_refusal(data: bytes) -> bool:
    """Does a datagram look like a refusal? It may still be forged."""
    return len(data) >= 12 and data[1] == 204 and data[8:12] == REFUSAL


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


def serialize_refusal(ssrc: int, nonce: bytes, reason: Reason, key: bytes | None) -> bytes:
    """The answer to a hello with that nonce that is not accepted."""
    fields = _REFUSAL.pack(VERSION, reason.value, 0, nonce)
    packet = serialize_rtcp([App(ssrc, REFUSAL, fields + bytes(TAG_BYTES))])
    return packet[:-TAG_BYTES] + _tag(packet[:-TAG_BYTES], key)


def parse_refusal(data: bytes, key: bytes | None) -> tuple[bytes, Reason]:
    """The nonce of the hello that is refused, and why. Raises PacketError if it is none, or forged."""
    packets = parse_rtcp(data)
    if len(packets) != 1 or not isinstance(packets[0], App) or packets[0].name != REFUSAL:
        raise PacketError("The packet is no refusal.")
    if len(packets[0].data) != _REFUSAL.size + TAG_BYTES:
        raise PacketError("The refusal has another length.")
    version, reason, _, nonce = _REFUSAL.unpack_from(packets[0].data)
    if version != VERSION or reason not in {known.value for known in Reason}:
        raise PacketError("The refusal is of a kind that is not known here.")
    if not hmac.compare_digest(data[-TAG_BYTES:], _tag(data[:-TAG_BYTES], key)):
        raise PacketError("The refusal is forged.")
    return nonce, Reason(reason)


def _tag(data: bytes, key: bytes | None) -> bytes:
    return bytes(TAG_BYTES) if key is None else derive(derive(key, b"semaphone hello"), data)[:TAG_BYTES]


@dataclass(frozen=True)
class Met:
    """What a hello led to."""

    answer: bytes | None  # to be sent back
    new: bool = False  # the other end was not known, or has started anew
    fresh: bool = False  # it echoes our nonce, so it is not a recording of before we started


class Declined(PacketError):
    """A hello that is understood but not accepted: why, and what to send back."""

    def __init__(self, sentence: str, reason: Reason, answer: bytes) -> None:
        super().__init__(sentence)
        self.reason, self.answer = reason, answer


class Meeting:
    """One end's side of it. No clock and no socket. Addresses are those that a hello comes from or goes to."""

    def __init__(self, ssrc: int, header: SphHeader, key: bytes | None, nonce: bytes | None = None) -> None:
        self.ssrc, self.header, self.key = ssrc, header, key
        self.nonce = secrets.token_bytes(NONCE_BYTES) if nonce is None else nonce
        self.peer: Hello | None = None  # the last that was believed
        self._heard = bytes(NONCE_BYTES)
        self._past: deque[bytes] = deque(maxlen=4096)  # never go back: the keys would be used twice

    def nonce_for(self, address: Address | None) -> bytes:
        """Our nonce towards an address. With a key it is the same for all: nobody else makes a hello."""
        if self.key is not None or address is None:
            return self.nonce
        return derive(self.nonce, repr(address).encode())[:NONCE_BYTES]

    def hello(self, address: Address | None = None) -> bytes:
        """What to send until someone answers, and whenever nothing is heard any more."""
        accepted = self.peer is not None and self.peer.nonce == self._heard
        nonce, secure = self.nonce_for(address), self.key is not None
        return serialize_hello(Hello(self.ssrc, nonce, self._heard, self.header, secure, accepted), self.key)

    def receive(
        self, data: bytes, address: Address | None = None, called: Sequence[Address] = (), engaged: bool = False
    ) -> Met:
        """Takes a hello. `called`: where ours go, too, as someone may answer from another address.

        `engaged`: no other end is let in. Raises PacketError, with one sentence, for what cannot be believed, and
        Declined for what cannot be agreed to.
        """
        hello = parse_hello(data, self.key)
        if hello.nonce == self.nonce_for(address):
            raise PacketError("The hello is our own, sent back.")
        self._check(hello, engaged)
        fresh = hello.echo in {self.nonce_for(one) for one in (address, *called)}
        new = fresh and self._known != (hello.nonce, hello.ssrc, hello.header)
        if new and self.key is not None and hello.nonce in self._past:
            raise self._declined(hello, Reason.OVER, "The hello is of a call that is over.")
        if new:
            self._past.append(hello.nonce)
            self.peer = hello
        believed = self._heard
        self._heard = hello.nonce
        answer = None if fresh and hello.accepted else self.hello(address)
        if not fresh and self.peer is not None:
            self._heard = believed  # it may be a recording: answer it, and go on
        return Met(answer, new, fresh)

    @property
    def _known(self) -> tuple[bytes, int, SphHeader] | None:
        return None if self.peer is None else (self.peer.nonce, self.peer.ssrc, self.peer.header)

    def _check(self, hello: Hello, engaged: bool) -> None:
        """Raises Declined for an end with which no call is possible, at all or now."""
        mine, other = self.header, hello.header
        if (other.codec, other.fingerprint, other.sample_rate) != (mine.codec, mine.fingerprint, mine.sample_rate):
            raise self._declined(
                hello,
                Reason.FORMAT,
                f"The other side speaks {other.codec} with weights {other.fingerprint[:12]}, and this side"
                f" {mine.codec} with {mine.fingerprint[:12]}: both need the same.",
            )
        theirs, ours = _tokens(other.format), _tokens(mine.format)
        if theirs != ours:
            raise self._declined(
                hello,
                Reason.FORMAT,
                f"The other side's packets hold {theirs[0]} codebooks of {theirs[1]} entries at {theirs[2]:g} Hz, and"
                f" those of this side {ours[0]} of {ours[1]} at {ours[2]:g} Hz: both need the same.",
            )
        if other.format.schedule == "history":
            raise self._declined(
                hello, Reason.FORMAT, "The other side sends packets with a history, which calls do not take yet."
            )
        if engaged and self.peer is not None and hello.nonce != self.peer.nonce:
            raise self._declined(hello, Reason.BUSY, "There is a call already.")

    def _declined(self, hello: Hello, reason: Reason, sentence: str) -> Declined:
        return Declined(sentence, reason, serialize_refusal(self.ssrc, hello.nonce, reason, self.key))

    def refusal(self, data: bytes, address: Address | None = None, called: Sequence[Address] = ()) -> Reason:
        """Why a hello of ours was refused. Raises PacketError if it was not."""
        nonce, reason = parse_refusal(data, self.key)
        if nonce not in {self.nonce_for(one) for one in (address, *called)}:
            raise PacketError("The refusal is not of our hello.")
        return reason

    def cipher(self) -> Cipher:
        """For the packets between this end and `peer`."""
        assert self.peer is not None
        if self.key is None:
            return Plain()
        mine, other = self.nonce, self.peer.nonce
        purpose = b"semaphone srtp"
        return Srtp(derive(self.key, purpose + mine + other), derive(self.key, purpose + other + mine), self.peer.ssrc)


def _tokens(form: PacketFormat) -> tuple[int, int, float]:
    """What a packet format has to share with a codec."""
    return form.num_codebooks, form.codebook_size, form.frame_rate
