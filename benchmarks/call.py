"""A long call between two processes through `semaphone relay`: delay, losses, memory and quality.

    python benchmarks/call.py SPEECH.wav [--seconds 600] [--schedule sliding] [--weather=--loss 0.2 --jitter 30ms ...]
    python benchmarks/call.py SPEECH.wav --out kept/ --judge           # PLCMOS of a call that was kept with --out

Both ends say the recording over and over. Printed are the delays of each stage as both ends measured them, how much
of the machine's time its host gave to others meanwhile (delays of a call are those of the machine, too), memory after a
minute and at the end, and PLCMOS of what was heard beside that of the simulation over the same channel, or at the loss
that the call had if the weather names none (means over stretches of 10 s, with 95 % intervals; needs the extra
`metrics`).
"""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from semaphone.packet.format import USUAL

WEATHER = "--loss 0.2 --jitter 30ms --reorder 0.05"
STRETCH = 10.0  # s that PLCMOS is taken over
CODEBOOKS, COPIES = 8, 2  # of each chunk


def free_port() -> int:
    """A UDP port that nobody uses."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def launch(*arguments: str) -> subprocess.Popen[bytes]:
    """A command of semaphone in a process of its own."""
    return subprocess.Popen([sys.executable, "-m", "semaphone", *arguments])


def megabytes(process: subprocess.Popen[bytes]) -> float:
    """Resident memory of a running process (Linux), 0 if it has ended."""
    try:
        text = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
        return int(text.split("VmRSS:")[1].split()[0]) / 1024
    except (OSError, IndexError):
        return 0.0


def processor_times() -> tuple[int, int]:
    """Of all cores since the machine began: ticks in all, and those that its host gave to others (Linux; else 0)."""
    try:
        times = [int(x) for x in Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:9]]
    except OSError:
        return 0, 0
    return sum(times), times[7]


def call(folder: Path, speech: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Both ends' reports, with their memory."""
    port, door, key = free_port(), free_port(), folder / "key"
    key.unlink(missing_ok=True)
    subprocess.run([sys.executable, "-m", "semaphone", "call", "--new-key", str(key)], check=True)
    common = ["--key-file", str(key), "--codec", args.codec, "--recovery", args.recovery, "--in", str(speech)]
    common += ["--codebooks", str(CODEBOOKS), "--copies", str(COPIES), "--schedule", args.schedule]
    relay = launch("relay", "--listen", f"127.0.0.1:{door}", "--to", f"127.0.0.1:{port}", *shlex.split(args.weather))
    ends = []
    for name, address in (("a", ["--listen", f"127.0.0.1:{port}"]), ("b", ["--connect", f"127.0.0.1:{door}"])):
        out = ["--out", str(folder / f"{name}.wav"), "--report", str(folder / f"{name}.json")]
        ends.append(launch("call", *address, *common, *out))
    began, memory, ticks = time.monotonic(), [], processor_times()
    while any(end.poll() is None for end in ends):
        time.sleep(1.0)
        memory.append([megabytes(end) for end in ends])
        if time.monotonic() - began > args.seconds + 300:
            raise SystemExit("the call does not end")
    relay.send_signal(signal.SIGINT)
    relay.wait()
    whole, stolen = (after - before for after, before in zip(processor_times(), ticks, strict=True))
    print(f"the machine's host took {stolen / max(whole, 1):.1%} of all cores' time")
    reports = []
    for i, name in enumerate("ab"):
        grown = [sample[i] for sample in memory if sample[i]]
        report = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        reports.append({**report, "megabytes": (grown[min(60, len(grown) - 1)], grown[-1])})
    return reports


def simulated(speech: Path, loss: float, args: argparse.Namespace) -> np.ndarray[Any, Any]:
    """What the simulation makes of the same recording at the same loss."""
    from semaphone.audio import read_blocks
    from semaphone.channel.erasure import Uniform, parse_channel
    from semaphone.codec.registry import load_codec
    from semaphone.controller.base import FixedController
    from semaphone.link.simulate import Link, simulate
    from semaphone.packet.format import PacketFormat
    from semaphone.recovery.registry import load_recovery

    codec = load_codec(args.codec)
    info = codec.info
    sizes = (info.num_codebooks, info.codebook_size)
    form = PacketFormat.named(args.schedule, *sizes, frame_rate=info.frame_rate, loss_report=True)
    recovery = load_recovery(args.recovery, info)
    words = shlex.split(args.weather)
    channel = parse_channel(words[words.index("--channel") + 1]) if "--channel" in words else Uniform(loss)
    link = Link(codec, FixedController(CODEBOOKS, COPIES), form, recovery, channel)
    return np.concatenate(list(simulate(read_blocks(speech, info.sample_rate), link, seed=7)))


def plcmos_of(samples: np.ndarray[Any, Any]) -> str:
    """Mean over stretches, with its interval."""
    from semaphone.metrics.bootstrap import bootstrap_mean
    from semaphone.metrics.pair import NotScorable
    from semaphone.metrics.quality import plcmos

    size = int(STRETCH * 16000)
    scores = []
    for start in range(0, len(samples) - size + 1, size):
        try:
            scores.append(plcmos(samples[start : start + size]))
        except NotScorable:  # nothing at all was heard
            scores.append(1.0)
    interval = bootstrap_mean(scores, np.random.default_rng(0))
    return f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}] over {len(scores)} stretches"


def main() -> None:
    """Call, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("speech", type=Path)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--codec", default="nano")
    parser.add_argument("--recovery", default="lm")
    parser.add_argument("--schedule", default=USUAL, help=f"of packets (default {USUAL})")
    parser.add_argument("--weather", default=WEATHER, help=f"options of semaphone relay (default {WEATHER})")
    parser.add_argument("--out", type=Path, help="keep what was said, heard and reported here")
    parser.add_argument("--no-quality", action="store_true", help="leave PLCMOS out")
    parser.add_argument("--judge", action="store_true", help="no call: PLCMOS of the one that was kept in --out")
    args = parser.parse_args()
    if args.judge and args.out is None:
        parser.error("--judge needs --out")

    import soundfile

    from semaphone.audio import read_audio, to_pcm16

    with tempfile.TemporaryDirectory() if args.out is None else nullcontext(args.out) as name:
        folder = Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        speech = folder / "speech.wav"
        if args.judge:
            reports = [json.loads((folder / f"{end}.json").read_text(encoding="utf-8")) for end in "ab"]
        else:
            samples = read_audio(args.speech, 16000)
            soundfile.write(speech, to_pcm16(np.resize(samples, int(args.seconds * 16000))), 16000)
            reports = call(folder, speech, args)
            show(reports)
        if not args.no_quality:
            heard, _ = soundfile.read(folder / "a.wav", dtype="float32")
            print("PLCMOS of the call:      ", plcmos_of(heard[: soundfile.info(speech).frames]))
            print("PLCMOS of the simulation:", plcmos_of(simulated(speech, reports[0]["loss_rate"], args)))


def show(reports: list[dict[str, Any]]) -> None:
    """Delays, losses and memory of both ends."""
    for end, report in zip(("listening", "calling"), reports, strict=True):
        print(f"{end}: {report['seconds']:.0f} s, {report['loss_rate']:.1%} lost or late, {report['arrivals']}")
        print(f"  blocks: {report['blocks_played']} played, {report['blocks_stretched']} of them stretched,")
        late, skipped = report["too_late"], report["skipped"]
        print(f"  {late} decoded too late, {skipped} skipped, {report['overruns']} not encoded in time")
        first, last = report["megabytes"]
        print(f"  memory after a minute and at the end: {first:.1f} and {last:.1f} MB")
        for stage, delay in report["latency_ms"].items():
            print(f"  {stage:14}{delay['p50']:8.1f} ms  p99 {delay['p99']:8.1f} ms")


if __name__ == "__main__":
    main()
