"""Average latency (LSSC-ST Table II) with fixed and dynamic segments, the cascade, and what a listener waits.

    semaphone experiment translation-latency --data recordings.csv --from fra --out results/

The paper's clock: input is not paced, and eq 7 is the mean computing time of a segment, device to loudspeaker. Beside
it the lag of a listener of the live talk, worked out from the same measured times. Systems take turns recording by
recording, so that a busy machine is equally busy for all; every figure is also given in processor time (`cpu`), which
is what an idle core would take with `--threads 1`. Recordings are joined to talks of about `--talk` seconds,
for a prompt of two segments has no meaningful mean.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from semaphone.commands.translate import add_decoder_options
from semaphone.errors import InputError
from semaphone.lines import Measured

if TYPE_CHECKING:
    from semaphone.translation.corpora import Pair
    from semaphone.translation.segmenter import SegmenterConfig

KEY = ("system", "snr", "talk")
# Options that decide a result.
SETTINGS = ("source", "limit", "talk", "context", "compressor", "doubt", "beam", "threads", "seed")
SYSTEMS = ("fixed", "dynamic", "dynamic-text", "cascade")
# Table II, fra-eng: s.
PAPER = {"fixed": 0.49, "dynamic": 0.41}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the experiment."""
    parser.add_argument("--data", type=Path, required=True, metavar="PATH", help="CSV of recordings or FLEURS folder")
    parser.add_argument("--from", dest="source", default="fra", metavar="LANG")
    parser.add_argument("--limit", type=int, metavar="N", help="use only the first N recordings")
    parser.add_argument("--talk", type=float, default=15.0, metavar="S", help="length of a talk of joined recordings")
    parser.add_argument("--snr", default="-11,4,19", metavar="DB,DB", help="SNRs of the Rayleigh channel, or inf")
    parser.add_argument("--systems", default=",".join(SYSTEMS), help="with commas")
    parser.add_argument("--context", default="left", choices=["none", "left", "resend"])
    parser.add_argument("--compressor", default="cnn", metavar="NAME")
    add_decoder_options(parser)
    parser.add_argument("--threads", type=int, default=1, help="threads of the model")
    parser.add_argument("--seed", type=int, default=0)


def segments_of(system: str) -> SegmenterConfig:
    """Settings of the segmenter in each system."""
    from semaphone.translation.segmenter import SegmenterConfig

    if system == "fixed":
        return SegmenterConfig(mode="fixed")
    return SegmenterConfig(rule="text" if system == "dynamic-text" else "printed")


def talks(pairs: list[Pair], seconds: float) -> list[NDArray[np.float32]]:
    """Recordings joined, half a second apart, to talks of at least `seconds` (the last may be shorter)."""
    from semaphone.audio import read_audio

    found: list[NDArray[np.float32]] = []
    parts: list[NDArray[np.float32]] = []
    for pair in pairs:
        parts += [read_audio(pair.file, 16_000), np.zeros(8_000, np.float32)]
        if sum(len(part) for part in parts) >= seconds * 16_000:
            found.append(np.concatenate(parts))
            parts = []
    return found or [np.concatenate(parts)]


def run(args: argparse.Namespace) -> int:
    """Measures what is not measured yet, then draws."""
    from semaphone.experiments.digests import digest_of
    from semaphone.translation.channel_code import load_code
    from semaphone.translation.corpora import load_pairs

    systems = args.systems.split(",")
    if any(system not in SYSTEMS for system in systems):
        raise InputError(f"The systems are {', '.join(SYSTEMS)}.")
    pairs = load_pairs(args.data, args.source, "eng", limit=args.limit)
    settings = {name: getattr(args, name) for name in SETTINGS}
    lines = Measured(args.out / "results.jsonl", KEY, {**settings, "code": digest_of(load_code(""))})
    for number, speech in enumerate(talks(pairs, args.talk)):
        for snr in args.snr.split(","):
            for system in systems:
                if not lines.get(system=system, snr=snr, talk=number):
                    lines.add({"system": system, "snr": snr, "talk": number, **_measure(system, snr, speech, args)})
        print(f"talk {number}: {len(lines)} results", flush=True)
    draw_results(lines, args.out)
    return 0


def _measure(system: str, snr: str, speech: NDArray[np.float32], args: argparse.Namespace) -> dict[str, Any]:
    from semaphone.baselines.cascade import Cascade
    from semaphone.channel.fading import FadingChannel
    from semaphone.translation.chain import Chain, timed
    from semaphone.translation.models.whisper import WhisperConfig, WhisperTranslator
    from semaphone.translation.radio import make_radio, parse_snr

    value = parse_snr(snr)
    radio = make_radio("trained", None if value == float("inf") else FadingChannel("rayleigh", value))
    settings = {name: getattr(args, name) for name in ("source", "context", "compressor", "doubt", "beam", "threads")}
    config = WhisperConfig(**settings)
    if system == "cascade":
        cascade, begin = Cascade(config, radio), time.process_time()
        result = cascade.run(speech, args.seed)
        cpu = time.process_time() - begin
        return {"delay": result.delay, "compute": result.compute, "cpu": cpu, "seconds": result.seconds}
    chain = Chain(WhisperTranslator(config), radio, segments_of(system))
    talk = chain.run([speech], args.seed)
    return {
        "segments": [asdict(segment) for segment in timed(talk)],
        "cpu_segments": [asdict(segment) for segment in timed(talk, cpu=True)],
        "seconds": talk.seconds,
    }


def figures(lines: list[dict[str, Any]], system: str) -> dict[str, float]:
    """Figures of one system over all its talks and SNRs."""
    from semaphone.metrics.latency import TimedSegment, report

    found = [line for line in lines if line["system"] == system]
    if system == "cascade":
        delays = [(line["delay"], line["seconds"] + line["cpu"]) for line in found]
        wall, cpu_time = np.mean(delays, axis=0)
        return {"average_latency_s": float(wall), "average_latency_s_cpu": float(cpu_time)}
    measured, cpu = (
        [[TimedSegment(**s) for s in line[name]] for line in found] for name in ("segments", "cpu_segments")
    )
    out = report(measured).as_dict()
    out.update({f"{name}_cpu": value for name, value in report(cpu).as_dict().items()})
    out["mean_segment_s"] = float(np.mean([s.end - s.start for talk in measured for s in talk]))
    return out


def draw_results(lines: Measured, out: Path) -> None:
    """Figure and page from result lines."""
    from semaphone.experiments.page import Curve, draw, paragraph, save, table, write_page

    found = list(lines)
    systems = [system for system in SYSTEMS if any(line["system"] == system for line in found)]
    rows: list[list[object]] = []
    for system in systems:
        shown = figures(found, system)
        rows.append([system, PAPER.get(system, ""), *(shown.get(name, "") for name in _COLUMNS)])
        print(system, {name: round(value, 3) for name, value in shown.items()}, flush=True)
    head = ["system", "the paper, fra-eng (s)", *(name.replace("_", " ") for name in _COLUMNS)]
    parts = [table(head, rows)]
    parts.append(paragraph("The cascade's latency is its whole delay: nothing is heard before the talk is over."))
    curves = []
    for system in systems:
        if system != "cascade":
            snrs = sorted({line["snr"] for line in found}, key=float)
            y = [figures([x for x in found if x["snr"] == snr], system)["average_latency_s"] for snr in snrs]
            curves.append(Curve(system, [min(float(snr), 40.0) for snr in snrs], y))
    if curves:
        figure = draw(curves, "Average latency (eq 7), Rayleigh", "SNR (dB)", "s a segment")
        parts.append(save(figure, out, "latency"))
    write_page(out / "index.html", "Latency of translation", parts)


_COLUMNS = (
    "average_latency_s",
    "average_latency_s_cpu",
    "listener_lag_p50_s",
    "listener_lag_p99_s",
    "listener_lag_p50_s_cpu",
    "listener_lag_p99_s_cpu",
    "mean_segment_s",
)
