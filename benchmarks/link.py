"""Speed of the link on one core: real-time factor and delay of a block, part by part.

    python benchmarks/link.py [--codec nano] [--seconds 60] [--recovery hold]

A block of 160 ms at a time, as in a call, at 20 % loss. Beside it, as a yardstick of the machine, a
product of two 512 × 512 matrices is timed in the same run.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from semaphone.channel.erasure import parse_channel
from semaphone.codec.registry import load_codec
from semaphone.commands._link import one_thread, settle
from semaphone.controller.base import FixedController
from semaphone.link.simulate import Link, Record, simulate
from semaphone.packet.format import USUAL, PacketFormat
from semaphone.recovery.registry import NAMES, load_recovery


def yardstick() -> float:
    """Milliseconds of a 512 × 512 × 512 product, the median of 200."""
    a = torch.randn(512, 512)
    times = []
    for _ in range(200):
        began = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - began)
    return 1000 * float(np.median(times))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codec", default="nano")
    parser.add_argument("--codebooks", type=int, default=16)
    parser.add_argument("--copies", type=int, default=2)
    parser.add_argument("--recovery", choices=NAMES, default="hold")
    parser.add_argument("--schedule", default=USUAL)
    parser.add_argument("--seconds", type=float, default=60.0)
    args = parser.parse_args()
    one_thread()
    codec = load_codec(args.codec)
    info = codec.info
    form = PacketFormat.named(args.schedule, info.num_codebooks, info.codebook_size, frame_rate=info.frame_rate)
    controller = FixedController(args.codebooks, args.copies)
    link = Link(codec, controller, form, load_recovery(args.recovery, info), parse_channel("uniform:0.2"))
    rng = np.random.default_rng(0)
    speech = (0.1 * rng.standard_normal(int(args.seconds * info.sample_rate))).astype(np.float32)
    for _ in simulate([speech[: 4 * info.sample_rate]], link, 0):  # warm up
        pass
    settle()
    record = Record()
    for _ in simulate([speech], link, 0, record):
        pass
    report = record.report(link, 0)
    print(f"{'part':12}{'p50 ms':>10}{'p99 ms':>10}")
    for name, q in report.latency_ms.items():
        print(f"{name:12}{q.p50:10.2f}{q.p99:10.2f}")
    print(f"real-time factor of encoding, recovery and decoding on one core: {report.real_time_factor:.3f}")
    print(f"yardstick: 512 x 512 x 512 product in {yardstick():.2f} ms")


if __name__ == "__main__":
    main()
