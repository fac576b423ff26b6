"""tshark, another reader of RTP and RTCP, finds in our packets what we put there, and nothing wrong with them."""

from __future__ import annotations

import csv
import io
import shutil
import struct
import subprocess

import pytest
from tests.packet.test_rtcp import BLOCK
from tests.packet.test_rtcp import GOLDEN as RTCP
from tests.packet.test_rtp import GOLDEN as RTP
from tests.packet.test_rtp import PLAIN

from semaphone.packet.rtcp import App, SenderReport, SourceDescription, VoipMetrics, serialize_rtcp
from semaphone.packet.rtp import serialize_rtp

pytestmark = pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")

RTP_PORT, RTCP_PORT = 5004, 5005
RAW_IP = 101  # link type of a capture that begins with IP headers


def capture(datagrams: list[tuple[int, bytes]]) -> bytes:
    """A pcap file of UDP datagrams (port, payload)."""
    out = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, RAW_IP)
    for n, (port, payload) in enumerate(datagrams):
        udp = struct.pack("!HHHH", port, port, 8 + len(payload), 0) + payload
        address = bytes([127, 0, 0, 1])
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), n, 0, 64, 17, 0) + 2 * address + udp
        out += struct.pack("<IIII", n, 0, len(ip), len(ip)) + ip
    return out


def decoded(datagrams: list[tuple[int, bytes]], *fields: str) -> list[dict[str, str]]:
    """What tshark reads in each of them."""
    command = ["tshark", "-r", "-", "-T", "fields", "-E", "header=y", "-E", "separator=,", "-E", "quote=d"]
    command += ["-d", f"udp.port=={RTP_PORT},rtp", "-d", f"udp.port=={RTCP_PORT},rtcp", "-E", "aggregator=;"]
    for field in ("_ws.expert.message", "_ws.malformed", "frame.protocols", *fields):
        command += ["-e", field]
    done = subprocess.run(command, input=capture(datagrams), capture_output=True, check=True, timeout=120)
    return list(csv.DictReader(io.StringIO(done.stdout.decode())))


def complaints(rows: list[dict[str, str]]) -> list[str]:
    """Everything that tshark has to remark."""
    return [found for row in rows if (found := row["_ws.expert.message"] + row["_ws.malformed"])]


def test_headers_of_rtp():
    fields = ("rtp.version", "rtp.marker", "rtp.p_type", "rtp.seq", "rtp.timestamp", "rtp.ssrc", "rtp.padding")
    rows = decoded([(RTP_PORT, serialize_rtp(packet)) for packet in RTP], *fields)
    assert [row["frame.protocols"] for row in rows] == ["raw:ip:udp:rtp"] * len(RTP)
    assert complaints(rows) == []
    for packet, row in zip(RTP, rows, strict=True):
        found = [int(row[name], 0) for name in ("rtp.p_type", "rtp.seq", "rtp.timestamp", "rtp.ssrc")]
        assert found == [packet.payload_type, packet.sequence_number, packet.timestamp, packet.ssrc]
        assert row["rtp.version"] == "2"
        assert row["rtp.marker"] in (("1", "True") if packet.marker else ("0", "False"))


@pytest.mark.parametrize("packet", RTCP)
def test_every_kind_of_rtcp(packet):
    (row,) = decoded([(RTCP_PORT, serialize_rtcp([packet]))], "rtcp.pt")
    assert row["frame.protocols"] == "raw:ip:udp:rtcp"
    assert complaints([row]) == []
    assert int(row["rtcp.pt"]) == int(RTCP[packet][2:4], 16)


def test_a_compound_packet_as_a_call_sends_it():
    sender = SenderReport(7, 2**32 * 3_900_000_000, 160, 12, 300, (BLOCK,))
    metrics = VoipMetrics(7, BLOCK.ssrc, 26, 1, 128, 5, 320, 4000, 61, 180)
    compound = serialize_rtcp([sender, SourceDescription(7, "call"), metrics, App(7, b"SPHN", b"12345678")])
    (row,) = decoded([(RTCP_PORT, compound)], "rtcp.pt", "rtcp.ssrc.fraction", "rtcp.xr.voipmetrics.burstdensity")
    assert row["rtcp.pt"] == "200;202;207;204"
    assert row["rtcp.ssrc.fraction"] == f"{BLOCK.fraction_lost};26"  # of the report and of the metrics
    assert row["rtcp.xr.voipmetrics.burstdensity"] == "128"
    assert complaints([row]) == []


def test_a_broken_packet_is_complained_about():
    """The tests above could fail."""
    whole = serialize_rtcp([SenderReport(7, 2**32 * 3_900_000_000, 160, 12, 300, (BLOCK,))])
    assert complaints(decoded([(RTCP_PORT, whole[:-8])], "rtcp.pt"))
    assert decoded([(RTP_PORT, b"\x00" + serialize_rtp(PLAIN)[1:])], "rtp.version")[0]["rtp.version"] != "2"
