"""How long a sound takes from mouth to ear (LargeSC Table II, eqs 21-23), part by part.

    semaphone experiment latency --data recordings/ --out results/ [--recovery FILE] [--lyra FOLDER]

A talk goes through the real transmitter and receiver, block by block, in every schedule; each part of the computing
is timed where it happens. Waiting follows from the schedule: a sound waits until its block is complete and its last
copy has left, and for the decoder's overlap. The network itself takes no time here, as in the paper. Beside it: Opus,
SoundStream, and a text link, which is what the paper's SyncSC does.

Computing times are those of this machine at this moment, so a second run gives others.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from semaphone.errors import InputError, MissingExtraError
from semaphone.experiments import options
from semaphone.experiments.digests import digest_of
from semaphone.experiments.latency_page import print_rows, write_rows
from semaphone.experiments.timing import Timed, time_baseline, time_link, time_text
from semaphone.lines import Lines

if TYPE_CHECKING:
    from semaphone.audio import Samples

KEY = ("method", "setting", "identity", "talk", "machine")
SCHEDULES = "sliding,split,block,bundle:80ms,bundle:160ms,bundle:320ms"
RIVALS = ("opus:8000:20ms", "opus:8000:60ms", "soundstream:6000", "textlink")
CODEBOOKS, COPIES = 8, 7  # the paper's 2.06 kbit/s


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the experiment."""
    parser.add_argument("--data", type=Path, required=True, metavar="FILE-OR-DIR", help="a recording, or a folder")
    parser.add_argument("--seconds", type=float, metavar="S", help="of speech to send (default 30, with --quick 8)")
    parser.add_argument("--quick", action="store_true", help="a first look")
    parser.add_argument("--loss", type=float, default=0.1, help="share of packets lost on the way (default 0.1)")
    parser.add_argument("--schedules", default=SCHEDULES, metavar="LIST", help=f"default {SCHEDULES}")
    parser.add_argument("--codebooks", type=options.count, help=f"tokens sent of each chunk (default {CODEBOOKS})")
    parser.add_argument("--copies", type=int, help=f"of them twice (default {COPIES}, the paper's 2.06 kbit/s)")
    parser.add_argument("--seed", type=int, default=1, help="of the losses (default 1)")
    options.add_system_options(parser)


def run(args: argparse.Namespace) -> int:
    """Time what is not timed yet, print the table, draw."""
    from semaphone.commands._progress import progress
    from semaphone.experiments.talk import read_talk

    seconds = args.seconds or (8.0 if args.quick else 30.0)
    speech = read_talk(args.data, seconds)
    talk = hashlib.sha256(speech.tobytes()).hexdigest()[:12]
    machine = _machine()
    lines = Lines(args.out / "results.jsonl", KEY)
    rows: list[dict[str, Any]] = []
    methods = [*_ours(args, speech), *_rivals(args, speech)]
    with progress() as bar:
        task = bar.add_task("timing", total=len(methods))
        for method, setting, identity, timed in methods:
            bar.update(task, description=f"{method}, {setting}")
            place = {"method": method, "setting": setting, "identity": identity, "talk": talk, "machine": machine}
            row = lines.get(**place)
            if row is None:
                try:
                    row = lines.add({**place, **timed().row()})
                except MissingExtraError as error:
                    bar.console.print(f"left out: {method}: {error}")
            if row is not None:
                rows.append(row)
            bar.advance(task)
    print_rows(rows)
    write_rows(rows, args.out)
    print(f"results in {lines.path}, table and figure in {args.out}")
    return 0


class Method(NamedTuple):
    """Something to time."""

    method: str
    setting: str
    identity: str  # a digest of all that decides what is computed: weights, settings, packages
    timed: Callable[[], Timed]


def _identity(facts: object) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def _ours(args: argparse.Namespace, speech: Samples) -> Iterator[Method]:
    from semaphone.controller.base import FixedController
    from semaphone.experiments.systems import RATE, codec_named, recovery_named, resampled
    from semaphone.packet.format import PacketFormat

    if not 0 <= args.loss < 1:
        raise InputError(f"A loss rate lies from 0 to below 1, not at {args.loss:g}.")
    name = options.recovery_of(args)
    codec = codec_named(args.codec)
    info = codec.info
    codebooks = min(args.codebooks or CODEBOOKS, info.num_codebooks)
    copies = min(COPIES if args.copies is None else args.copies, codebooks)
    speech = resampled(speech, RATE, info.sample_rate)
    for schedule in args.schedules.split(","):
        form = PacketFormat.named(schedule, info.num_codebooks, info.codebook_size, frame_rate=info.frame_rate)
        about = f"{schedule}, {codebooks} + {copies} tokens, recovery {name}, {args.loss:.0%} lost"
        controller, recovery = FixedController(codebooks, copies), recovery_named(name, args.codec)
        identity = _identity([info.fingerprint, digest_of(codec), digest_of(recovery), args.seed])
        timed = partial(time_link, speech, codec, controller, form, recovery, args.loss, args.seed)
        yield Method(info.name, about, identity, timed)


def _rivals(args: argparse.Namespace, speech: Samples) -> Iterator[Method]:
    from semaphone.channel.erasure import parse_channel

    channel = parse_channel(f"uniform:{args.loss:g}")
    for system in options.rivals_of(args, RIVALS):
        made, identity = system.make(args.loss), _identity(system.identity(channel))
        if made.info.name == "textlink":
            yield Method(
                "text link", "as SyncSC: Whisper, text, a synthetic voice", identity, partial(time_text, speech)
            )
        else:
            about = f"{args.loss:.0%} expected"
            yield Method(made.info.title, about, identity, partial(time_baseline, speech, made))


def _machine() -> str:
    """What computed: the processor's name where the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
