"""One talk through changing losses (LargeSC Fig 9): how quality and rate follow the network, moment by moment.

    semaphone experiment timeline --data recordings/ --out results/ [--lyra FOLDER]

The talk meets six phases of 0, 5, 20, 10, 30 and 10 % loss, the same bad moments for every system. The sender learns
of the losses from the receiver's reports, some time later. ViSQOL and PLCMOS look at it through a sliding window of
2.5 s. The picture also shows the original's spectrogram, what each controller sent of every chunk, and the rate.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from semaphone.errors import InputError
from semaphone.experiments import link_systems, options
from semaphone.experiments.rivals import BaselineSystem
from semaphone.experiments.systems import RATE, LinkSystem, fitted, resampled
from semaphone.experiments.timeline_page import METRICS, Row, print_rows, write_rows
from semaphone.lines import Lines

if TYPE_CHECKING:
    from semaphone.audio import Samples
    from semaphone.channel.erasure import ErasureChannel

KEY = ("system", "identity", "talk", "channel", "seed", "window")
LOSSES = "0,0.05,0.2,0.1,0.3,0.1"
RIVALS = ("opus:6000:60ms", "soundstream:1600")
MASK = (8, 3)  # of the fixed controller: the paper's 1.51 kbit/s of tokens


@dataclass(frozen=True)
class Passed:
    """A talk that went through a system."""

    speech: Samples  # 16 kHz, as long as what was said
    packets: list[tuple[float, int, bool]]  # send time in s, bytes of payload, lost
    gross_bps: float
    chunk: float = 0.0  # s of a chunk; 0: not our link
    masks: tuple[tuple[int, int], ...] = ()  # sent and sent twice, of each chunk
    status: tuple[str, ...] = ()  # one digit a token of each chunk: TokenStatus
    told: tuple[float, ...] = ()  # the loss rate as the sender knew it, for each chunk


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the experiment."""
    parser.add_argument("--data", type=Path, required=True, metavar="FILE-OR-DIR", help="a recording, or a folder")
    parser.add_argument("--phase", type=float, metavar="S", help="seconds of each phase (default 5, with --quick 2.5)")
    parser.add_argument("--phases", default=LOSSES, metavar="LIST", help=f"loss rates (default {LOSSES})")
    parser.add_argument("--window", type=float, default=2.5, metavar="S", help="of the scores (default 2.5)")
    parser.add_argument("--hop", type=float, default=0.5, metavar="S", help="between two windows (default 0.5)")
    parser.add_argument(
        "--bitrate",
        type=float,
        metavar="BPS",
        help="payload of budget and adaptive (default: what the fixed mask takes)",
    )
    parser.add_argument("--seed", type=int, default=1, help="of the losses (default 1)")
    parser.add_argument("--quick", action="store_true", help="a first look: short phases")
    options.add_system_options(parser)


def run(args: argparse.Namespace) -> int:
    """Send what was not sent yet, score it, draw."""
    from semaphone.channel.erasure import parse_channel
    from semaphone.commands._progress import progress
    from semaphone.experiments.cells import keep
    from semaphone.experiments.page import player
    from semaphone.experiments.talk import read_talk

    losses, phase = _losses(args), args.phase or (2.5 if args.quick else 5.0)
    speech = read_talk(args.data, phase * len(losses))
    phase = len(speech) / RATE / len(losses)
    if len(speech) / RATE < max(args.window, 0.5 * len(losses)):
        raise InputError(f"The talk lasts {len(speech) / RATE:.1f} s, too short for {len(losses)} phases and a window.")
    channel = parse_channel(_schedule(losses, phase))
    lines = Lines(args.out / "results.jsonl", KEY)
    talk = hashlib.sha256(speech.tobytes()).hexdigest()[:12]
    rows: list[tuple[Row, str]] = []
    sound = args.out / "heard" / f"{talk}-original.mp3"
    sound.parent.mkdir(parents=True, exist_ok=True)
    keep(sound, speech)
    players = [("the original", player(sound))]
    systems = _systems(args)
    with progress() as bar:
        task = bar.add_task("sending", total=len(systems))
        for system in systems:
            bar.update(task, description=system.name)
            place = _place(system, channel, talk, args)
            sound = args.out / "heard" / f"{talk}-{hashlib.sha256(json.dumps(place).encode()).hexdigest()[:12]}.mp3"
            row = lines.get(**place)
            if row is None or not sound.is_file():
                passed = send(system, speech, channel, args.seed)
                keep(sound, passed.speech)
                row = lines.add({**place, **_measured(speech, passed, args)})
            rows.append((row, system.family))
            players.append((system.name, player(sound)))
            bar.advance(task)
    print_rows(rows, losses, phase)
    write_rows(rows, speech, losses, phase, players, args)
    print(f"results in {lines.path}, figure and page in {args.out}")
    return 0


def _losses(args: argparse.Namespace) -> list[float]:
    try:
        losses = [float(part) for part in args.phases.split(",")]
    except ValueError:
        losses = [-1.0]
    if not all(0 <= loss < 1 for loss in losses):
        raise InputError(f"Phases are loss rates from 0 to below 1 with commas, such as {LOSSES}.")
    return losses


def _schedule(losses: Sequence[float], phase: float) -> str:
    ends = [round(phase * i, 3) for i in range(len(losses) + 1)]
    return "schedule:" + ",".join(f"{a:g}-{b:g}s={p:g}" for a, b, p in zip(ends, ends[1:], losses, strict=False))


def _systems(args: argparse.Namespace) -> list[LinkSystem | BaselineSystem]:
    """Our link with every controller that is there (or named), and the others."""
    from semaphone.controller.base import Mask
    from semaphone.controller.registry import ControllerSpec

    recovery, info = options.recovery_of(args), link_systems.info_of(args)
    names = ["fixed", "budget"] if args.controllers is None else [n for n in args.controllers.split(",") if n]
    if args.controllers is None and not link_systems.why_no_adaptive(args):
        names.append("adaptive")
    found: list[LinkSystem | BaselineSystem] = []
    mask = Mask(min(MASK[0], info.num_codebooks), min(MASK[1], info.num_codebooks))
    bitrate = args.bitrate or link_systems.payload_bps(args, mask)
    for name in names:
        if name == "fixed":
            spec = ControllerSpec("fixed", mask.sent, mask.twice)
        elif name in ("budget", "adaptive"):
            spec = ControllerSpec(args.adaptive if name == "adaptive" else name, bitrate=bitrate)
        else:
            raise InputError(f"Controllers are fixed, budget and adaptive, not {name!r}.")
        system = LinkSystem(f"{info.name}, {name}", "ours", args.codec, recovery, spec)
        system.link(_nothing_lost())  # is everything there?
        found.append(system)
    return found + [system for system in options.rivals_of(args, RIVALS) if system.specification != "textlink"]


def _nothing_lost() -> ErasureChannel:
    from semaphone.channel.erasure import parse_channel

    return parse_channel("none")


def _place(
    system: LinkSystem | BaselineSystem, channel: ErasureChannel, talk: str, args: argparse.Namespace
) -> dict[str, Any]:
    identity = json.dumps(system.identity(channel), sort_keys=True)
    return {
        "system": system.name,
        "identity": hashlib.sha256(identity.encode()).hexdigest()[:12],
        "talk": talk,
        "channel": str(channel),
        "seed": args.seed,
        "window": f"{args.window:g}/{args.hop:g}",
    }


def send(system: LinkSystem | BaselineSystem, speech: Samples, channel: ErasureChannel, seed: int) -> Passed:
    """A talk at 16 kHz through a system; ours hears of the losses, Opus is told their mean beforehand."""
    if isinstance(system, BaselineSystem):
        return _through_baseline(system, speech, channel, seed)
    from semaphone.link.feedback import Feedback
    from semaphone.link.simulate import Record, simulate

    link = replace(system.link(channel), feedback=Feedback())
    info, record = link.codec.info, Record()
    heard = np.concatenate(list(simulate([resampled(speech, RATE, info.sample_rate)], link, seed, record)))
    heard = resampled(heard, info.sample_rate, RATE)
    return Passed(
        fitted(heard, len(speech)),
        [(time, size, gone) for time, size, _, gone in record.packets],
        record.report(link, seed).gross_bps,
        info.chunk_samples / info.sample_rate,
        tuple((mask.sent, mask.twice) for mask in record.masks),
        tuple("".join(str(int(one)) for one in row) for row in record.status),
        tuple(record.told),
    )


def _through_baseline(system: BaselineSystem, speech: Samples, channel: ErasureChannel, seed: int) -> Passed:
    from semaphone.baselines.base import rates

    baseline = system.make(channel.mean_loss).calibrated(speech)
    packets, _ = baseline.encode(speech, None, last=True)
    sampler = channel.sampler(np.random.default_rng(seed))
    gone = [sampler.lost(packet.send_time) for packet in packets]
    heard, _ = baseline.decode([None if g else p for p, g in zip(packets, gone, strict=True)], None, last=True)
    sent = [(packet.send_time, len(packet.payload), lost) for packet, lost in zip(packets, gone, strict=True)]
    return Passed(fitted(heard, len(speech)), sent, round(rates(packets, len(speech) / RATE)[2], 1))


def _measured(speech: Samples, passed: Passed, args: argparse.Namespace) -> Row:
    """Scores in sliding windows, and what was sent."""
    from semaphone.link.report import versions
    from semaphone.metrics.scores import METRICS as ALL
    from semaphone.metrics.scores import scorer_versions, sliding_scores

    windows = sliding_scores(
        speech, passed.speech, RATE, METRICS, window_s=args.window, hop_s=args.hop, max_delay_s=0.0
    )
    seconds = len(speech) / RATE
    return {
        "seconds": round(seconds, 3),
        "payload_bps": round(8 * sum(size for _, size, _ in passed.packets) / seconds, 1),
        "gross_bps": passed.gross_bps,
        "packets_lost": sum(gone for *_, gone in passed.packets),
        "packets": [[round(time, 3), size, int(gone)] for time, size, gone in passed.packets],
        "chunk": passed.chunk,
        "masks": passed.masks,
        "status": passed.status,
        "told": passed.told,
        "times": [round((w.start_s + w.end_s) / 2, 3) for w in windows],
        **{name: [_rounded(getattr(w.scores, name), ALL[name].digits + 2) for w in windows] for name in METRICS},
        "scorers": scorer_versions(METRICS),
        "versions": versions(),
    }


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
