from __future__ import annotations

import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semaphone.call.hello import (
    Declined,
    Hello,
    Meeting,
    Reason,
    is_hello,
    is_refusal,
    parse_hello,
    parse_refusal,
    serialize_hello,
    serialize_refusal,
)
from semaphone.call.secure import Plain, Refused, Srtp, new_key, read_key
from semaphone.errors import InputError
from semaphone.packet.bitstream import PacketError
from semaphone.packet.format import PacketFormat
from semaphone.packet.rtcp import ReceiverReport, serialize_rtcp
from semaphone.packet.rtp import RtpPacket, serialize_rtp
from semaphone.packet.sph_header import SphHeader

KEY, OTHER_KEY = bytes(range(32)), bytes(32)
HEADER = SphHeader("nano", "0123456789abcdef", 16000, PacketFormat(16, 2048, loss_report=True))
HELLO = Hello(0xDECAFBAD, bytes(range(16)), bytes(16), HEADER, True, False)
GOLDEN = "80cc001fdecafbad5350484e0101003e000102030405060708090a0b0c0d0e0f000000000000000000000000000000005350484e"

pytest.importorskip("pylibsrtp")


def rtp(sequence: int = 1, ssrc: int = 2) -> bytes:
    return serialize_rtp(RtpPacket(96, sequence, 0, ssrc, b"speech"))


# --- keys


def test_a_key_file_is_private_and_never_overwritten(tmp_path) -> None:
    path = tmp_path / "k"
    new_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(read_key(path)) == 32
    with pytest.raises(InputError, match="never overwritten"):
        new_key(path)
    os.chmod(path, 0o644)
    with pytest.raises(InputError, match="can be read by others; mend it with: chmod 600"):
        read_key(path)


@pytest.mark.parametrize("text", ["", "abc", "00" * 31, "x" * 64, "\xff"])
def test_what_is_no_key(tmp_path, text) -> None:
    path = tmp_path / "k"
    path.write_text(text, encoding="latin-1")
    path.chmod(0o600)
    with pytest.raises(InputError, match="holds no key"):
        read_key(path)
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_key(tmp_path / "missing")


# --- SRTP


def test_packets_cross_once_and_only_unharmed() -> None:
    one, other = Srtp(KEY, OTHER_KEY, 7), Srtp(OTHER_KEY, KEY, 2)
    sent = one.protect(rtp())
    assert len(sent) == len(rtp()) + 10
    assert b"speech" not in sent
    for position in range(0, len(sent), 5):
        forged = bytearray(sent)
        forged[position] ^= 1
        with pytest.raises(Refused, match="forged"):
            other.unprotect(bytes(forged))
    assert other.unprotect(sent) == rtp()
    with pytest.raises(Refused, match="replayed"):
        other.unprotect(sent)
    with pytest.raises(Refused, match="forged"):
        other.unprotect(one.protect(rtp(2, ssrc=3)))
    report = serialize_rtcp([ReceiverReport(2)])
    protected = one.protect_rtcp(report)
    assert other.unprotect_rtcp(protected) == report
    with pytest.raises(Refused, match="replayed"):
        other.unprotect_rtcp(protected)


@given(st.binary(max_size=2000))
def test_garbage_is_forged(data) -> None:
    cipher = Srtp(KEY, OTHER_KEY, 2)
    for unprotect in (cipher.unprotect, cipher.unprotect_rtcp):
        with pytest.raises(Refused, match="forged"):
            unprotect(data)


# --- hello


def test_golden_hello() -> None:
    data = serialize_hello(HELLO, KEY)
    assert data.hex().startswith(GOLDEN)
    assert parse_hello(data, KEY) == HELLO
    assert is_hello(data)


def test_hellos_that_are_refused() -> None:
    data = serialize_hello(HELLO, KEY)
    for size in range(len(data)):
        with pytest.raises(PacketError):
            parse_hello(data[:size], KEY)
    for position in range(len(data)):
        forged = bytearray(data)
        forged[position] ^= 4
        with pytest.raises(PacketError):
            parse_hello(bytes(forged), KEY)
    with pytest.raises(PacketError, match="different keys"):
        parse_hello(data, OTHER_KEY)
    with pytest.raises(PacketError, match="One side of the call is encrypted"):
        parse_hello(data, None)


def meet(a: Meeting, b: Meeting) -> None:
    """Passes hellos on until nobody answers."""
    data: bytes | None = a.hello()
    sides = [b, a]
    for turn in range(6):
        if data is None:
            return
        data = sides[turn % 2].receive(data).answer
    raise AssertionError("they never stop greeting")


@pytest.mark.parametrize("key", [KEY, None])
def test_two_ends_meet_and_have_the_same_keys(key) -> None:
    a, b = Meeting(1, HEADER, key), Meeting(2, HEADER, key)
    meet(a, b)
    assert a.peer is not None
    assert b.peer is not None
    assert (a.peer.nonce, b.peer.nonce) == (b.nonce, a.nonce)
    packet = rtp(ssrc=1)
    assert b.cipher().unprotect(a.cipher().protect(packet)) == packet
    assert isinstance(a.cipher(), Plain) == (key is None)


def test_a_restart_makes_new_keys() -> None:
    a, b = Meeting(1, HEADER, KEY), Meeting(2, HEADER, KEY)
    meet(a, b)
    old = b.cipher().protect(rtp(ssrc=2))
    restarted = Meeting(2, HEADER, KEY)
    meet(a, restarted)
    assert a.peer is not None
    assert a.peer.nonce == restarted.nonce
    with pytest.raises(Refused):
        a.cipher().unprotect(old)


def test_a_recorded_hello_changes_nothing() -> None:
    a, b = Meeting(1, HEADER, KEY), Meeting(2, HEADER, KEY)
    recorded = [a.hello()]
    recorded.append(b.receive(recorded[0]).answer or b"")
    recorded.append(a.receive(recorded[1]).answer or b"")
    b.receive(recorded[2])
    later = Meeting(2, HEADER, KEY)
    meet(a, later)
    for data in recorded:
        for end in (a, later):
            try:
                assert not end.receive(data).new
            except PacketError as error:
                assert str(error) in ("The hello is of a call that is over.", "The hello is our own, sent back.")  # noqa: PT017
    assert a.peer is not None
    assert a.peer.nonce == later.nonce
    assert later.peer is not None
    assert later.peer.nonce == a.nonce


def test_different_codecs_do_not_meet() -> None:
    other = SphHeader("mimi", "ff", 24000, PacketFormat(8, 2048))
    with pytest.raises(PacketError, match="The other side speaks mimi with weights ff, and this side nano"):
        Meeting(1, HEADER, KEY).receive(Meeting(2, other, KEY).hello())


@pytest.mark.parametrize(
    "form",
    [PacketFormat(32, 2048), PacketFormat(8, 2048), PacketFormat(16, 4096), PacketFormat(16, 2048, frame_rate=25.0)],
)
@pytest.mark.parametrize("key", [KEY, None])
def test_packets_that_do_not_fit_the_codec_are_refused(form, key) -> None:
    a, b = Meeting(1, HEADER, key), Meeting(2, SphHeader("nano", "0123456789abcdef", 16000, form), key)
    with pytest.raises(Declined, match=r"The other side's packets hold .* both need the same") as caught:
        a.receive(b.hello())
    assert b.refusal(caught.value.answer) is Reason.FORMAT
    assert a.peer is None
    meet(a, Meeting(3, HEADER, key))


def test_packets_with_a_history_are_refused() -> None:
    form = PacketFormat.named("history", HEADER.format.num_codebooks, HEADER.format.codebook_size)
    a, b = Meeting(1, HEADER, KEY), Meeting(2, SphHeader("nano", "0123456789abcdef", 16000, form), KEY)
    with pytest.raises(Declined, match="packets with a history"):
        a.receive(b.hello())
    assert a.peer is None


def test_golden_refusal() -> None:
    data = serialize_refusal(0xDECAFBAD, bytes(range(16)), Reason.BUSY, None)
    assert data.hex() == "80cc000bdecafbad5350485201010000" + bytes(range(16)).hex() + "00" * 16
    assert is_refusal(data)
    assert not is_hello(data)
    assert parse_refusal(data, None) == (bytes(range(16)), Reason.BUSY)


def test_refusals_that_are_refused() -> None:
    data = serialize_refusal(7, bytes(range(16)), Reason.BUSY, KEY)
    assert parse_refusal(data, KEY) == (bytes(range(16)), Reason.BUSY)
    for size in range(len(data)):
        with pytest.raises(PacketError):
            parse_refusal(data[:size], KEY)
    for position in range(len(data)):
        forged = bytearray(data)
        forged[position] ^= 4
        with pytest.raises(PacketError):
            parse_refusal(bytes(forged), KEY)
    with pytest.raises(PacketError, match="not of our hello"):
        Meeting(1, HEADER, KEY).refusal(data)


@pytest.mark.parametrize("key", [KEY, None])
def test_who_is_engaged_lets_nobody_else_in(key) -> None:
    a, b, other = Meeting(1, HEADER, key), Meeting(2, HEADER, key), Meeting(3, HEADER, key)
    meet(a, b)
    for _ in range(2):
        with pytest.raises(Declined, match="There is a call already") as caught:
            a.receive(other.hello(), engaged=True)
        assert other.refusal(caught.value.answer) is Reason.BUSY
        assert len(caught.value.answer) < len(other.hello())
        a.receive(b.hello(), engaged=True)  # its own end may greet again
    assert a.peer is not None
    assert a.peer.nonce == b.nonce
    meet(a, other)  # not engaged any more
    if key is not None:  # whose place was taken learns of it
        with pytest.raises(Declined, match="of a call that is over") as caught:
            meet(a, b)
        assert b.refusal(caught.value.answer) is Reason.OVER


def test_without_a_key_a_nonce_holds_for_one_address() -> None:
    here, victim, home = ("127.0.0.1", 1), ("127.0.0.1", 2), ("127.0.0.1", 3)
    a, attacker = Meeting(1, HEADER, None), Meeting(2, HEADER, None)
    answer = a.receive(attacker.hello(home), here).answer
    assert answer is not None
    attacker.receive(answer, home)
    forged = attacker.hello(home)
    assert not a.receive(forged, victim).new  # who has not received it there
    assert a.receive(forged, here).new
    # Whom we call may answer from another of its addresses.
    caller, callee = Meeting(3, HEADER, None), Meeting(4, HEADER, None)
    answer = callee.receive(caller.hello(home), here).answer
    assert answer is not None
    assert caller.receive(answer, victim, [home]).new


def test_an_own_hello_sent_back_is_refused() -> None:
    a = Meeting(1, HEADER, KEY)
    with pytest.raises(PacketError, match="our own"):
        a.receive(a.hello())


@given(st.binary(max_size=200))
def test_garbage_is_no_hello(data) -> None:
    meeting = Meeting(1, HEADER, None)
    for packet in (data, bytes.fromhex("80cc0002decafbad5350484e") + data):
        with pytest.raises(PacketError):
            meeting.receive(packet)
