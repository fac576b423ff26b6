"""From tokens to bits on the wire (LargeSC eq 24): R_total = R_payload + N_pkt · R_header + R_ctrl, part by part.

    semaphone experiment overhead --out results/ [--transmissions 4,11,15]

Payloads, RTP, SRTP and RTCP are made by the code that a call uses, and counted in bytes; IP and UDP headers have the
sizes of their RFCs, and a compressed header (ROHC, RFC 5795) the smallest one that carries UDP's checksum. The paper's
own sum stands beside: it counts no table of contents, 6.25 packets a second, and feedback without headers.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from semaphone.errors import InputError, MissingExtraError
from semaphone.experiments.terminal import print_table
from semaphone.lines import Lines
from semaphone.packet.format import USUAL, PacketFormat

KEY = ("setting", "transmissions", "codebooks", "codebook_size", "frame_rate")
UDP, RTP, IPV4, IPV6 = 8, 12, 20, 40  # bytes (RFCs 768, 3550, 791, 8200)
ROHC = 3  # bytes: a base header of one byte and UDP's checksum (RFC 5795, RFC 3095 §5.7)
PAPER_PACKETS, PAPER_HEADER, PAPER_FEEDBACK = 6.25, 40, 80  # a second, bytes, bit/s
CHUNKS = 640  # that are sent for every row, 51 s; a multiple of every block

# Parts of the rate in the order in which they are stacked.
PARTS = {
    "tokens": "tokens",
    "contents": "table of contents, padding",
    "report": "loss report",
    "rtp": "RTP",
    "udp_ip": "UDP and IP",
    "rohc": "compressed header (ROHC)",
    "tag": "SRTP tag",
    "feedback": "feedback (RTCP)",
}


@dataclass(frozen=True)
class Setting:
    """How packets are made and over what they go."""

    name: str
    about: str
    schedule: str = "split"
    network: str = "IPv4"  # IPv4, IPv6 or ROHC
    loss_report: bool = False  # a byte a packet says how much of the other direction is lost
    srtp: bool = False
    rtcp: float = 0.0  # compound packets a second
    printed: bool = False  # the paper's sum, from its own figures


SETTINGS = (
    Setting(
        "paper, as printed", "eq 24 with the paper's figures: headers of 40 bytes, 80 bit/s of feedback", printed=True
    ),
    Setting("block, IPv4", "what that takes in bytes: one packet a block, copies in the next one", "block"),
    Setting("split, IPv4", "two interleaved packets a block, as the paper's interleaving of 160 ms needs"),
    Setting("split, IPv6", "the same over IPv6", network="IPv6"),
    Setting("split, ROHC", "the same with compressed headers", network="ROHC"),
    Setting("call, IPv4", "semaphone call: loss reports, SRTP, RTCP every second", USUAL, "IPv4", True, True, 1.0),
    Setting("call, IPv6", "the same over IPv6", USUAL, "IPv6", True, True, 1.0),
    *(
        Setting(f"satellite {ms} ms, {network}", text, f"bundle:{ms}ms", network, loss_report=True)
        for ms in (80, 160, 320)
        for network, text in (
            ("IPv4", f"a 3GPP satellite bundle of {ms} ms, loss reports in the packets"),
            ("ROHC", f"a 3GPP satellite bundle of {ms} ms with compressed headers"),
        )
    ),
)


@dataclass(frozen=True)
class Overhead:
    """Rates in bit/s."""

    setting: str
    transmissions: int  # tokens a chunk, copies included
    codebooks: int
    codebook_size: int
    frame_rate: float
    packet_rate: float  # packets of speech a second
    parts: dict[str, float] = field(default_factory=dict)  # names of PARTS
    equation: float = 0.0  # eq 24 from packet rate, header size and tokens alone
    wire_bytes: int = 0  # RTP or SRTP packets as they were made, counted; 0 for the paper's sum

    @property
    def total(self) -> float:
        """Everything."""
        return sum(self.parts.values())

    @property
    def payload(self) -> float:
        """What RTP carries."""
        return sum(self.parts[name] for name in ("tokens", "contents", "report"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the experiment."""
    parser.add_argument(
        "--transmissions",
        default="4,11,15",
        metavar="L,...",
        help="tokens a chunk, copies included (default 4,11,15: the paper's 0.55, 1.51 and 2.06 kbit/s)",
    )
    parser.add_argument("--codebooks", type=int, default=8, help="of the codec (default 8, the paper's; nano has 16)")
    parser.add_argument("--codebook-size", type=int, default=2048, help="entries of a codebook (default 2048)")
    parser.add_argument("--frame-rate", type=float, default=12.5, help="chunks a second (default 12.5)")


def run(args: argparse.Namespace) -> int:
    """Make packets, count, print, draw."""
    lines = Lines(args.out / "results.jsonl", KEY)
    wanted = _wanted(args)
    found: list[Overhead] = []
    for transmissions in wanted:
        for setting in SETTINGS:
            try:
                row = measure(setting, transmissions, args.codebooks, args.codebook_size, args.frame_rate)
            except MissingExtraError as error:
                print(f"left out: {setting.name}: {error}")
                continue
            stored = asdict(row) | {"total": row.total}
            if lines.get(**{name: stored[name] for name in KEY}) != stored:
                lines.add(stored)
            found.append(row)
    _print(found)
    _page(found, args)
    print(f"results in {lines.path}, table and figure in {args.out}")
    return 0


def _wanted(args: argparse.Namespace) -> list[int]:
    try:
        wanted = [int(text) for text in args.transmissions.split(",")]
    except ValueError:
        raise InputError(f"Transmissions are whole numbers with commas, not {args.transmissions!r}.") from None
    for transmissions in wanted:
        if not 2 <= transmissions <= 2 * args.codebooks:
            raise InputError(f"With {args.codebooks} codebooks a chunk takes 2 to {2 * args.codebooks} transmissions.")
    return wanted


def measure(
    setting: Setting, transmissions: int, codebooks: int = 8, codebook_size: int = 2048, frame_rate: float = 12.5
) -> Overhead:
    """One row. Raises InputError for settings that do not fit, MissingExtraError where SRTP is not installed."""
    form = PacketFormat.named(
        setting.schedule, codebooks, codebook_size, frame_rate=frame_rate, loss_report=setting.loss_report
    )
    about = (setting.name, transmissions, codebooks, codebook_size, frame_rate)
    tokens = transmissions * form.bits_per_token * frame_rate
    if setting.printed:
        headers = 8 * PAPER_HEADER * PAPER_PACKETS
        named = {"tokens": tokens, "rtp": headers * RTP / PAPER_HEADER, "feedback": float(PAPER_FEEDBACK)}
        parts = dict.fromkeys(PARTS, 0.0) | named | {"udp_ip": headers * (UDP + IPV4) / PAPER_HEADER}
        return Overhead(*about, PAPER_PACKETS, parts, tokens + headers + PAPER_FEEDBACK)
    parts, wire_bytes = _sent(setting, form, transmissions)
    header = ROHC if setting.network == "ROHC" else RTP + UDP + (IPV6 if setting.network == "IPv6" else IPV4)
    equation = tokens + form.packet_rate * 8 * header
    return Overhead(*about, form.packet_rate, parts, equation, wire_bytes)


def _sent(setting: Setting, form: PacketFormat, transmissions: int) -> tuple[dict[str, float], int]:
    """Parts of the rate, from packets as they are made, and the bytes of all RTP or SRTP packets."""
    import numpy as np

    from semaphone.controller.base import Mask
    from semaphone.packet.packetizer import Packetizer, PacketizerState
    from semaphone.packet.rtp import RtpPacket, serialize_rtp

    sent = min(transmissions, form.num_codebooks)
    mask = Mask(sent, transmissions - sent)
    rng = np.random.default_rng(0)
    packetizer = Packetizer(form)
    cipher = _cipher() if setting.srtp else None
    state: PacketizerState | None = None
    token_bits = payload_bits = rtp_bytes = wire_bytes = packets = 0
    skipped = form.reach * form.chunks_per_block  # chunks before something of earlier ones rides along
    for chunk in range(CHUNKS + skipped):
        tokens = rng.integers(0, form.codebook_size, form.num_codebooks)
        made, state = packetizer.push(tokens, mask, state, 0.1)
        if chunk < skipped:
            continue
        for packet in made:
            rtp = serialize_rtp(RtpPacket(96, packet.sequence % 2**16, 0, 1, packet.payload))
            wire = rtp if cipher is None else cipher.protect(rtp)
            packets += 1
            token_bits += packet.token_bits
            payload_bits += 8 * len(packet.payload)
            rtp_bytes += len(rtp)
            wire_bytes += len(wire)
    seconds = CHUNKS / form.frame_rate
    report = 8 * packets * setting.loss_report
    compressed, below = setting.network == "ROHC", UDP + (IPV6 if setting.network == "IPv6" else IPV4)
    parts = {
        "tokens": token_bits / seconds,
        "contents": (payload_bits - token_bits - report) / seconds,
        "report": report / seconds,
        "rtp": 0.0 if compressed else (8 * rtp_bytes - payload_bits) / seconds,
        "udp_ip": 0.0 if compressed else 8 * packets * below / seconds,
        "rohc": 8 * packets * ROHC / seconds if compressed else 0.0,
        "tag": 8 * (wire_bytes - rtp_bytes) / seconds,
        "feedback": setting.rtcp * 8 * (_rtcp_bytes(cipher) + below) if setting.rtcp else 0.0,
    }
    return parts, wire_bytes


def _cipher() -> Any:
    from semaphone.call.secure import KEY_BYTES, Srtp

    return Srtp(bytes(KEY_BYTES), bytes(range(KEY_BYTES)), 1)


def _rtcp_bytes(cipher: Any) -> int:
    """A compound packet as `semaphone call` sends it: SR with one report, SDES, XR with the VoIP metrics."""
    from semaphone.call.control import CNAME
    from semaphone.packet.rtcp import ReportBlock, SenderReport, SourceDescription, VoipMetrics, serialize_rtcp

    report = SenderReport(1, 0, 0, 0, 0, (ReportBlock(2, 0, 0, 0, 0, 0, 0),))
    compound = serialize_rtcp([report, SourceDescription(1, CNAME), VoipMetrics(1, 2, 0, 0, 0, 0, 0, 0, 0, 0)])
    return len(compound if cipher is None else cipher.protect_rtcp(compound))


# Table and figure.


def _name(row: Overhead) -> str:
    rate = row.parts["tokens"] / 1000
    return f"{row.transmissions} tokens a chunk, {rate:.2f} kbit/s"


def _print(rows: Sequence[Overhead]) -> None:
    for transmissions in dict.fromkeys(row.transmissions for row in rows):
        ours = [row for row in rows if row.transmissions == transmissions]
        cells = [[row.setting, *_cells(row)] for row in ours]
        print_table(["setting", *_head()], cells, f"bit/s: {_name(ours[0])}")


def _head() -> list[str]:
    return ["packets/s", *PARTS.values(), "total", "eq 24"]


def _cells(row: Overhead) -> list[str]:
    return [
        f"{row.packet_rate:g}",
        *(f"{row.parts[name]:.0f}" if row.parts[name] else "–" for name in PARTS),
        f"{row.total:.0f}",
        f"{row.equation:.0f}",
    ]


def _page(rows: Sequence[Overhead], args: argparse.Namespace) -> None:
    from semaphone.experiments.page import paragraph, save, table, write_page

    seconds = CHUNKS / args.frame_rate
    parts = [
        paragraph(
            f"Bit/s of one direction, from {seconds:.0f} s of packets. Payloads, RTP, SRTP and RTCP were made and "
            "counted; IP and UDP headers have the sizes of their RFCs; a compressed header is assumed to take "
            f"{ROHC} bytes, which is the best case. The column eq 24 is the paper's sum with this packet rate and "
            "header: tokens and headers, without a table of contents, padding, tags or feedback."
        ),
        paragraph(
            "The paper counts 6.25 packets a second, which interleaving within 160 ms doubles, and one byte of "
            "feedback every 100 ms without headers; in IPv4 packets of its own that byte would cost "
            f"{_lonely_feedback():.0f} bit/s."
        ),
    ]
    for transmissions in dict.fromkeys(row.transmissions for row in rows):
        ours = [row for row in rows if row.transmissions == transmissions]
        parts.append(f"<h2>{_name(ours[0])}</h2>")
        parts.append(table(["setting", *_head()], [[row.setting, *_cells(row)] for row in ours]))
    parts.append(save(_figure(rows), args.out, "overhead"))
    parts.append(table(["setting", "what it is"], [[setting.name, setting.about] for setting in SETTINGS]))
    write_page(args.out / "index.html", "From tokens to bits on the wire (LargeSC eq 24)", parts)


def _lonely_feedback() -> float:
    return 10 * 8 * (1 + UDP + IPV4 + RTP)


def _figure(rows: Sequence[Overhead]) -> Any:
    from matplotlib.figure import Figure

    from semaphone.experiments.pictures import COLOURS

    wanted = list(dict.fromkeys(row.transmissions for row in rows))
    names = list(dict.fromkeys(row.setting for row in rows))
    figure = Figure(figsize=(3.0 + 3.4 * len(wanted), 0.34 * len(names) + 1.9), layout="constrained")
    panels = figure.subplots(1, len(wanted), sharey=True, squeeze=False)[0]
    hatches = ("", "", "//", "", "", "\\\\", "", "..")
    most = max(row.total for row in rows) / 1000
    for axes, transmissions in zip(panels, wanted, strict=True):
        ours = {row.setting: row for row in rows if row.transmissions == transmissions}
        left = [0.0] * len(names)
        for i, (part, text) in enumerate(PARTS.items()):
            values = [ours[name].parts[part] / 1000 if name in ours else 0.0 for name in names]
            axes.barh(
                names, values, left=left, color=COLOURS[i], hatch=hatches[i], label=text, edgecolor="white", lw=0.4
            )
            left = [a + b for a, b in zip(left, values, strict=True)]
        for name, end in zip(names, left, strict=True):
            axes.text(end + 0.01 * most, name, f"{end:.2f}", va="center", fontsize=8)
        axes.set(title=_name(next(iter(ours.values()))), xlabel="kbit/s", xlim=(0, 1.14 * most))
        axes.title.set_fontsize(10)
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)
    panels[0].invert_yaxis()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return figure
