"""Does the language model fill gaps better than holding the last token, or than nothing?

    semaphone experiment recovery --data recordings/ --out results/ [--recoveries lm,hold,none] [--jobs 2]

One rate, the same packets lost for all, independent losses and bursts of 240 ms. Nothing goes twice unless `--copies`
says so: this is about filling gaps, not about avoiding them. The verdict of every point rests on
paired differences with 95 % bootstrap intervals: PLCMOS must be better at every point, and words or phones from 20 %
loss on.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from semaphone.errors import InputError, SemaphoneError
from semaphone.experiments import link_systems, options, points
from semaphone.experiments.study import Corpus, Measured, Study, in_both_weathers, run_study, within

if TYPE_CHECKING:
    from semaphone.experiments.options import Weather
    from semaphone.experiments.systems import System

LOSSES = "0.1,0.2,0.3"
QUICK_LOSSES = "0.1,0.3"
SPOKEN = ("wer", "phone_error_rate")  # words or phones: one of them is enough
METRICS = ("plcmos", *SPOKEN)
FROM = 0.2  # the loss rate from which words or phones must be better
PICTURES = in_both_weathers("recovery", "Quality, words and phones", METRICS)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the experiment."""
    options.add_corpus_options(parser)
    parser.add_argument("--codec", default="nano", help="nano, mimi, mimi:FOLDER or a file of nano weights")
    parser.add_argument(
        "--recoveries",
        metavar="LIST",
        help="with commas, the one to be judged first: lm, hold, none, files of weights (default: those there)",
    )
    parser.add_argument("--codebooks", type=options.count, default=8, metavar="S", help="tokens sent of each chunk")
    parser.add_argument(
        "--copies", type=int, default=0, metavar="C", help="how many of them go twice (default 0: copies hide losses)"
    )
    options.add_packet_options(parser)
    options.add_loss_options(parser, LOSSES)
    options.add_weather_option(parser)


def run(args: argparse.Namespace) -> int:
    """Measure what is not measured yet, judge, draw, write the page."""
    corpus = Corpus(args.data.resolve().name, options.recordings_of(args))
    metrics = options.metrics_of(args, METRICS)
    weathers = options.weathers_of(args, LOSSES, QUICK_LOSSES)
    about = [
        f"{args.codebooks} tokens of each chunk, {args.copies} of them twice. Differences are paired: the same "
        "recording, the same packets lost.",
    ]
    return run_study(
        Study(
            "recovery",
            "What fills the gaps",
            about,
            _systems(args),
            weathers,
            [corpus],
            metrics,
            within(PICTURES, metrics, weathers),
            verdicts,
        ),
        args,
    )


def _systems(args: argparse.Namespace) -> list[System]:
    from semaphone.controller.base import Mask
    from semaphone.experiments.systems import codec_named, recovery_named

    codec_named(args.codec)
    named = args.recoveries is not None
    found: list[System] = []
    for name in args.recoveries.split(",") if named else ("lm", "hold", "none"):
        try:
            recovery_named(name, args.codec)
        except SemaphoneError as error:
            if named:
                raise
            print(f"left out: recovery {name}: {error}")
            continue
        title = Path(name).stem if name.endswith(".safetensors") else name
        if args.copies < 0 or args.copies > args.codebooks:
            raise InputError(f"Of {args.codebooks} tokens {args.copies} cannot be copied.")
        found.append(link_systems.fixed(args, name, Mask(args.codebooks, args.copies), title))
    return found


def verdicts(measured: Measured) -> list[str]:
    """A sentence a point, and one about all."""
    systems = measured.study.systems
    if len(systems) < 2:
        return ["Only one recovery is here, so there is nothing to compare it with."]
    ours, others = systems[0], systems[1:]
    sentences, met = [], []
    for weather in measured.study.weathers:
        if weather.loss > 0:
            good, sentence = _verdict(measured, ours, others, weather)
            met.append(good)
            sentences.append(sentence)
    against = " and ".join(system.name for system in others)
    whole = "met" if met and all(met) else f"not met at {met.count(False)} of {len(met)} points"
    if None in met:
        whole = whole if False in met else f"met at {met.count(True)} of {len(met)} points"
        whole += f"; {met.count(None)} cannot be judged by these metrics"
    return [*sentences, f"{ours.name} against {against}: the bar is {whole}."]


def _verdict(measured: Measured, ours: System, others: Sequence[System], weather: Weather) -> tuple[bool | None, str]:
    """Is the bar met in this weather (None: that takes metrics that are not there), and a sentence."""
    spoken, parts = weather.loss >= FROM - 1e-9, []
    asked = measured.study.metrics
    good: bool | None = None
    if "plcmos" in asked and (not spoken or any(metric in asked for metric in SPOKEN)):
        good = True
    for other in others:
        found = {metric: measured.difference(ours, other, weather, metric) for metric in measured.study.metrics}
        good = good and points.better(found.get("plcmos"), "plcmos")
        if spoken:
            good = good and any(points.better(found.get(m), m) for m in SPOKEN)
        shown = ", ".join(f"{points.title_of(m)} {points.said(interval, m)}" for m, interval in found.items())
        parts.append(f"{ours.name} − {other.name}: {shown}")
    word = "not judged" if good is None else "met" if good else "not met"
    return good, f"{weather.title}: {word}. {'; '.join(parts)}"
