"""Options that the experiments on quality share, and what they stand for."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from semaphone.commands import _history, _link
from semaphone.errors import InputError, SemaphoneError
from semaphone.packet.format import HORIZON, SCHEDULES, USUAL

if TYPE_CHECKING:
    from semaphone.experiments.corpus import Recording
    from semaphone.experiments.rivals import BaselineSystem

LOSSES = "0,0.05,0.1,0.2,0.3"
QUICK_LOSSES = "0,0.1,0.3"
RIVALS: tuple[str, ...] = (
    *("opus:6000:60ms", "opus:12000:20ms", "aac:8000", "soundstream:1600", "soundstream:3200"),
    *("codec2:1200", "textlink"),
)
QUICK_RIVALS = ("opus:6000:60ms", "opus:12000:20ms", "aac:8000", "soundstream:1600", "textlink")
KINDS = ("uniform", "bursts")  # of weather
_QUICK_RECORDINGS = 2
_QUICK_SECONDS = (2.0, 4.0)  # recordings of this length are preferred for a quick look


@dataclass(frozen=True)
class Weather:
    """A channel of an experiment."""

    kind: str  # "uniform", "bursts", or "other" of a channel that is named
    loss: float  # mean rate
    burst: str = "240ms"  # mean length of a burst
    channel: str = ""  # another one, as `parse_channel` reads it

    @property
    def specification(self) -> str:
        """As `parse_channel` reads it; without loss both kinds are the same."""
        if self.channel:
            return self.channel
        if self.loss == 0:
            return "none"
        if self.kind == "uniform":
            return f"uniform:{self.loss:g}"
        return f"gilbert-elliott:loss={self.loss:g},burst={self.burst}"

    @property
    def title(self) -> str:
        """For tables."""
        if self.channel:
            return f"{self.loss:.0%}, {self.channel.rpartition('/')[2]}"
        if self.loss == 0:
            return "no loss"
        return f"{self.loss:.0%} " + ("uniform" if self.kind == "uniform" else f"in bursts of {self.burst}")


def count(text: str) -> int:
    """A whole number of 1 or more, of an option."""
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:10]) < 10**9):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def add_corpus_options(parser: argparse.ArgumentParser) -> None:
    """Recordings, workers, seeds, scores."""
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="recordings")
    parser.add_argument("--limit", type=count, metavar="N", help="use only N recordings, evenly spaced")
    parser.add_argument("--jobs", type=count, metavar="N", help="worker processes (default 1; 2 for a quick look)")
    parser.add_argument("--seed", type=_link.whole, default=1, help="of the weather (default 1)")
    parser.add_argument("--draws", type=count, default=1, metavar="N", help="weathers for each recording (default 1)")
    parser.add_argument("--quick", action="store_true", help="two short recordings and few settings, for a first look")
    parser.add_argument("--metrics", metavar="LIST", help="only these, with commas (default: those of the figures)")
    parser.add_argument(
        "--words",
        choices=["text", "heard"],
        default="text",
        help="judge words against the text of metadata.csv where there is one (default), or against what the "
        "recogniser hears in the original",
    )
    parser.add_argument("--results", type=Path, metavar="FILE", help="rows to go on from (default: in --out)")


def add_link_options(parser: argparse.ArgumentParser) -> None:
    """The link."""
    parser.add_argument("--codec", default="nano", help="nano, mimi, mimi:FOLDER or a file of nano weights")
    parser.add_argument("--recovery", help="lm, hold, none or a file of weights (default: lm if there)")
    add_packet_options(parser)
    parser.add_argument(
        "--controllers",
        metavar="LIST",
        help="fixed,adaptive: what decides how much is sent (default: those there; for a quick look fixed)",
    )
    parser.add_argument(
        "--adaptive", default="adaptive", metavar="FILE", help="weights of the adaptive controller (default: shipped)"
    )
    parser.add_argument(
        "--feedback",
        choices=["receiver", "oracle"],
        default="receiver",
        help="what the adaptive controller knows of losses: reports of the receiver (default), or the truth",
    )
    parser.add_argument(
        "--dtx",
        action=argparse.BooleanOptionalAction,
        help="with the adaptive controller pauses are not sent (default, but in `adaptive` they are)",
    )


def add_packet_options(parser: argparse.ArgumentParser) -> None:
    """How tokens are laid out in packets."""
    parser.add_argument(
        "--schedule",
        choices=SCHEDULES,
        default=USUAL,
        help="sliding: a packet for each chunk, with half of it and half of the one before (default); split: two "
        "packets for two chunks at a time; history: a packet for each chunk, with the beginnings of those before",
    )
    parser.add_argument(
        "--spacing",
        default="0ms",
        metavar="TIME",
        help="split: by which the second packet of a block leaves later, such as 80ms (default 0ms)",
    )
    parser.add_argument(
        "--horizon",
        metavar="N",
        help=f"history: so many later packets can carry tokens again (default {HORIZON}, or as --history says)",
    )
    parser.add_argument(
        "--history",
        metavar="S0,S1,...",
        help="history: tokens of a chunk in its own packet, in the next one, and so on, such as "
        f"{_history.EXAMPLE}, in place of what suits the losses; several of them with / between",
    )
    _history.add_wait_option(parser)


def spacing_of(args: argparse.Namespace) -> float:
    """The same in s. Raises InputError."""
    from semaphone.call.address import parse_duration

    return parse_duration(args.spacing)


def horizon_of(args: argparse.Namespace, frame_rate: float) -> int | None:
    """The horizon of a history in packets, if one is named. Raises InputError."""
    _history.check_schedule(args)
    return None if args.horizon is None else _history.parse_horizon(args.horizon, frame_rate)


def add_system_options(parser: argparse.ArgumentParser) -> None:
    """The link, and what stands beside it."""
    add_link_options(parser)
    parser.add_argument(
        "--rivals", metavar="LIST", help=f"other systems, with commas (default: {','.join(RIVALS)}, as far as there)"
    )
    parser.add_argument("--lyra", type=Path, metavar="DIR", help="folder of Lyra v2's models, for SoundStream")


def add_loss_options(parser: argparse.ArgumentParser, default: str = LOSSES) -> None:
    """The weather."""
    parser.add_argument("--losses", metavar="LIST", help=f"loss rates, with commas (default {default})")


def add_weather_option(parser: argparse.ArgumentParser) -> None:
    """Which kinds of losses, for experiments that know both."""
    parser.add_argument("--weather", choices=KINDS, help="only independent losses, or only bursts (default both)")


def weathers_of(args: argparse.Namespace, default: str, quick: str) -> list[Weather]:
    """Every loss rate in each kind of weather. Raises InputError."""
    losses = losses_of(args, default, quick)
    kinds = KINDS if args.weather is None else (args.weather,)
    return [Weather(kind, loss) for kind in kinds for loss in losses]


def losses_of(args: argparse.Namespace, default: str = LOSSES, quick: str = QUICK_LOSSES) -> list[float]:
    """The loss rates that are asked for. Raises InputError."""
    text = args.losses or (quick if args.quick else default)
    try:
        losses = sorted({float(part) for part in text.split(",") if part})
    except ValueError:
        raise InputError(f"--losses takes numbers with commas between them, such as {QUICK_LOSSES}.") from None
    if not losses or not all(0 <= loss < 1 for loss in losses):
        raise InputError(f"Loss rates lie from 0 to below 1, such as {QUICK_LOSSES}.")
    return losses


def jobs_of(args: argparse.Namespace) -> int:
    """Worker processes: those asked for, or one; for a quick look two, where there are two cores."""
    if args.jobs is not None:
        return int(args.jobs)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(2, cores) if args.quick else 1


def recordings_of(args: argparse.Namespace, folder: Path | None = None) -> list[Recording]:
    """The recordings to measure on; for a quick look, two short ones."""
    from semaphone.experiments.corpus import load_corpus, read_recordings

    folder = args.data if folder is None else folder
    if not args.quick or args.limit is not None:
        return read_recordings(load_corpus(folder, args.limit), texts=args.words == "text")
    found = read_recordings(load_corpus(folder, 60), texts=args.words == "text")
    low, high = _QUICK_SECONDS
    short = [recording for recording in found if low <= recording.seconds <= high]
    number = min(_QUICK_RECORDINGS, len(found))
    if len(short) < number:
        short = sorted(found, key=lambda recording: abs(recording.seconds - (low + high) / 2))[:number]
    return [short[(2 * i + 1) * len(short) // (2 * number)] for i in range(number)]


def metrics_of(args: argparse.Namespace, default: Sequence[str]) -> tuple[str, ...]:
    """Metrics by name; of the default ones, those that are installed. Raises InputError if a named one is not."""
    from semaphone.metrics.scores import METRICS, metric_names

    if args.metrics is not None:
        named = metric_names([name for name in args.metrics.split(",") if name])
        for name in named:
            if lack := _lacks(name):
                raise InputError(f"{METRICS[name].title} cannot be measured: {lack}; leave {name} out of --metrics.")
        return named
    there = [name for name in default if not _lacks(name)]
    for name in default:
        if name not in there:
            print(f"left out: {METRICS[name].title}: {_lacks(name)}")
    return metric_names(there)


def _lacks(metric: str) -> str:
    """What keeps a metric from being computed here; "" if nothing does."""
    import numpy as np

    from semaphone.metrics import quality
    from semaphone.metrics.scores import METRICS, scorer_versions

    missing = [package for package in METRICS[metric].packages if package not in scorer_versions([metric])]
    if missing:
        return f"{missing[0]} is not installed"
    if metric == "utmos":
        try:
            quality.utmos(np.sin(np.arange(16_000, dtype=np.float32) / 8))
        except SemaphoneError as error:
            return str(error)
    return ""


def recovery_of(args: argparse.Namespace) -> str:
    """The recovery that is asked for; without a name, the language model where its weights are, else hold."""
    from semaphone.experiments.systems import codec_named, recovery_named
    from semaphone.recovery.registry import default_recovery

    name = args.recovery or default_recovery(codec_named(args.codec).info)
    recovery_named(name, args.codec)
    return str(name)


def rivals_of(
    args: argparse.Namespace, default: Sequence[str] = RIVALS, quick: Sequence[str] = QUICK_RIVALS
) -> list[BaselineSystem]:
    """Baselines; of the default ones, those that can be had here. Raises InputError if a named one cannot."""
    from semaphone.experiments.rivals import rival

    named = args.rivals is not None
    found: list[BaselineSystem] = []
    for specification in args.rivals.split(",") if named else (quick if args.quick else default):
        if not specification or (not named and specification.startswith("soundstream") and args.lyra is None):
            continue
        try:
            system = rival(specification, args.lyra)
            _try(system)
        except SemaphoneError as error:
            if named:
                raise
            print(f"left out: {specification}: {error}")
            continue
        found.append(system)
    return found


def _try(system: BaselineSystem) -> None:
    """Raises MissingExtraError if what a system needs is not there."""
    import numpy as np

    from semaphone.baselines.textlink import speak
    from semaphone.channel.erasure import parse_channel

    speech = np.float32(0.1) * np.sin(np.arange(8_000, dtype=np.float32) / 8)
    system.send(speech, parse_channel("none"), 0, "en")
    if system.specification == "textlink":
        speak("yes")
