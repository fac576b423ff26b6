"""Hostile bytes for everything that reads from the network or a file: only documented errors may come out.

    python benchmarks/fuzz.py [--count 1000000] [--seed 1]

Two thirds of the inputs are good ones with bits turned, pieces cut out, doubled or put together; the others are random.
It ends at the first error that is not documented, and prints the input.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from semaphone.call.hello import Hello, Reason, parse_hello, parse_refusal, serialize_hello, serialize_refusal
from semaphone.controller.base import Mask
from semaphone.errors import InputError
from semaphone.packet.bitstream import PacketError
from semaphone.packet.format import SCHEDULES, PacketFormat
from semaphone.packet.packetizer import Depacketizer, Packetizer
from semaphone.packet.payload import parse
from semaphone.packet.rtcp import App, Bye, ReceiverReport, parse_rtcp, serialize_rtcp
from semaphone.packet.rtp import RtpPacket, parse_rtp, serialize_rtp
from semaphone.packet.sph_header import SphHeader, parse_header, serialize_header

LONGEST = 300  # bytes of a random input


def good_payloads(form: PacketFormat, rng: np.random.Generator) -> list[bytes]:
    """Payloads of a talk of twenty chunks with random tokens and masks."""
    packetizer, found, state = Packetizer(form), [], None
    for _ in range(20):
        tokens = rng.integers(0, form.codebook_size, form.num_codebooks)
        twice, sent = np.sort(rng.integers(0, form.num_codebooks + 1, 2))
        packets, state = packetizer.push(tokens, Mask(int(sent), int(twice)), state, 0.1)
        found += [packet.payload for packet in packets]
    return found


def changed(data: bytes, others: list[bytes], rng: np.random.Generator) -> bytes:
    """An input made of a good one."""
    x = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(0, len(x) + 1))
        kind = rng.integers(0, 5)
        if kind == 0 and x:
            x[at % len(x)] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1:
            del x[at : at + int(rng.integers(1, 9))]
        elif kind == 2:
            x[at:at] = x[at : at + int(rng.integers(1, 9))]
        elif kind == 3:
            x[at:] = others[int(rng.integers(0, len(others)))][at:]
        elif x:
            x[at % len(x)] = int(rng.choice([0, 1, 127, 128, 255]))
    return bytes(x)


def readers(rng: np.random.Generator) -> list[tuple[str, Callable[[bytes], Any], list[bytes]]]:
    """(name, reader, good inputs) of all that reads bytes from outside."""
    found: list[tuple[str, Callable[[bytes], Any], list[bytes]]] = []
    for name in SCHEDULES:
        form = PacketFormat.named(name, 16, 2048, loss_report=True)
        good, depacketizer = good_payloads(form, rng), Depacketizer(form)
        count = len(form.sequences_of(0))
        found.append((f"payload, {name}", lambda data, form=form: parse(form, data), good))  # type: ignore[misc]
        found.append(
            (f"block, {name}", lambda data, d=depacketizer, n=count: d.read([data, *[None] * (n - 1)]), good)  # type: ignore[misc]
        )
    forms = [PacketFormat.named(name, 16, 2048) for name in SCHEDULES]
    headers = [serialize_header(SphHeader("nano", "0123456789abcdef", 16000, form)) for form in forms]
    reports = [serialize_rtcp([ReceiverReport(1, ()), App(1, b"SPHN", bytes(16)), Bye((1,))])]
    header = SphHeader("nano", "0123456789abcdef", 16000, forms[0])
    hellos = [serialize_hello(Hello(1, bytes(16), bytes(16), header, False, True), None)]
    refusals = [serialize_refusal(1, bytes(16), Reason.BUSY, None)]
    packets = [serialize_rtp(RtpPacket(96, 7, 1280, 5, bytes(20)))]
    found += [
        ("header of a stream", parse_header, headers),
        ("RTCP", parse_rtcp, reports),
        ("RTP", parse_rtp, packets),
        ("hello", lambda data: parse_hello(data, None), hellos),
        ("refusal", lambda data: parse_refusal(data, None), refusals),
    ]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    known, began = readers(rng), time.monotonic()
    refused = dict.fromkeys((name for name, _, _ in known), 0)
    for number in range(args.count):
        name, read, good = known[number % len(known)]
        random = rng.random() < 1 / 3
        data = rng.bytes(int(rng.integers(0, LONGEST))) if random else changed(good[number % len(good)], good, rng)
        try:
            read(data)
        except (PacketError, InputError):
            refused[name] += 1
        except Exception as error:
            sys.exit(f"{name}: {type(error).__name__}: {error}\n{data.hex()}")
    each = args.count / len(known)
    for name, count in refused.items():
        print(f"{name:28s} {100 * count / each:5.1f} % refused")
    print(f"{args.count} inputs in {time.monotonic() - began:.0f} s, no error that is not documented")


if __name__ == "__main__":
    main()
