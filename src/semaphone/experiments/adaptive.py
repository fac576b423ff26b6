"""Is the adaptive controller worth more than fixed masks of the same payload?

    semaphone experiment adaptive --data recordings/ --out results/ [--transmissions 12] [--jobs 2]

All have the same average payload and meet the same losses: the adaptive controller, every fixed way of spending so
many transmissions a chunk on codebooks and copies, and full duplication. The controller has one L for each weather,
with which its average payload over all recordings is that of the others (matching.py); with `--dtx` it keeps that
payload within each recording instead. The best fixed mask is chosen for each point in hindsight, by its PLCMOS. From
20 % loss on PLCMOS must be better (paired, 95 % bootstrap intervals); below, it may be 0.05 and the word error rate one
point worse at the most. Beside them stand the paper's ablations (Fig 7): the same without language model, and
without copies.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from semaphone.errors import InputError
from semaphone.experiments import link_systems, options, points
from semaphone.experiments.matching import matched, spent
from semaphone.experiments.study import Corpus, Measured, Study, in_both_weathers, run_study, within
from semaphone.experiments.systems import form_named

if TYPE_CHECKING:
    from semaphone.controller.base import Mask
    from semaphone.experiments.options import Weather
    from semaphone.experiments.systems import System

LOSSES = "0,0.1,0.2,0.3"
QUICK_LOSSES = "0,0.3"
METRICS = ("plcmos", "wer", "phone_error_rate")
FROM = 0.2  # the loss rate from which PLCMOS must be better
WORSE_PLCMOS, WORSE_WER = 0.05, 0.01  # what it may be worse by below that
TRANSMISSIONS = 12  # a chunk, copies included: an even number, so that full duplication has the same rate
ABLATION = "adaptive, without a part"  # family of the systems that are not judged
PICTURES = in_both_weathers("adaptive", "At one payload: quality", METRICS)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the experiment."""
    options.add_corpus_options(parser)
    options.add_link_options(parser)
    parser.add_argument(
        "--transmissions",
        type=options.count,
        default=TRANSMISSIONS,
        metavar="L",
        help=f"of tokens a chunk, copies included; an even number (default {TRANSMISSIONS})",
    )
    parser.add_argument(
        "--ablations",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="also without language model, and without copies (default)",
    )
    options.add_loss_options(parser, LOSSES)
    options.add_weather_option(parser)


def run(args: argparse.Namespace) -> int:
    """Measure what is not measured yet, judge, draw, write the page."""
    if args.transmissions % 2:
        raise InputError(f"--transmissions is an even number, so that all can be sent twice, not {args.transmissions}.")
    if reason := link_systems.why_no_adaptive(args):
        raise InputError(reason)
    corpus = Corpus(args.data.resolve().name, options.recordings_of(args))
    metrics = options.metrics_of(args, METRICS)
    recovery = options.recovery_of(args)
    weathers = options.weathers_of(args, LOSSES, QUICK_LOSSES)
    systems = contestants(args, recovery, corpus, weathers)
    about = [
        f"{args.transmissions} transmissions of tokens a chunk, spent on codebooks (S) and copies (C), and the "
        f"adaptive controller at their payload. Recovery: {recovery}.",
    ]
    return run_study(
        Study(
            "adaptive",
            "Adaptive against fixed",
            about,
            systems,
            weathers,
            [corpus],
            metrics,
            within(PICTURES, metrics, weathers),
            verdicts,
        ),
        args,
    )


def contestants(args: argparse.Namespace, recovery: str, corpus: Corpus, weathers: Sequence[Weather]) -> list[System]:
    """The adaptive controller first, then the fixed masks, full duplication last of them, then the ablations."""
    masks = fixed_masks(args.transmissions, link_systems.info_of(args).num_codebooks)
    bitrate = link_systems.payload_bps(args, masks[-1]) if args.dtx else None
    ours = link_systems.adaptive(args, recovery, bitrate, "adaptive")
    channels = [weather.specification for weather in weathers]
    bare = replace(ours, name="adaptive, without copies", family=ABLATION, protected=False)
    if not args.dtx:
        form = form_named(args.codec, args.schedule, options.spacing_of(args), ours.horizon)
        target = spent(masks[-1], form, args.codec, corpus.recordings)
        ours = matched(ours, channels, corpus.recordings, target, args.seed)
        bare = matched(bare, channels, corpus.recordings, target, args.seed) if args.ablations else bare
    found: list[System] = [ours]
    for mask in masks:
        name = f"fixed S={mask.sent}, C={mask.twice}"
        found.append(link_systems.fixed(args, recovery, mask, name if mask is not masks[-1] else "full duplication"))
    if not args.ablations:
        return found
    if recovery not in ("hold", "none"):
        found.append(replace(ours, name="adaptive, without language model (hold)", family=ABLATION, recovery="hold"))
    return [*found, bare]


def fixed_masks(transmissions: int, most: int) -> list[Mask]:
    """Ways of spending so many transmissions on codebooks and copies, four or five; full duplication is the last."""
    from semaphone.controller.base import Mask

    half = transmissions // 2
    if half > most:
        raise InputError(f"{transmissions} transmissions are more than twice the codec's {most} codebooks.")
    masks = [Mask(transmissions - copies, copies) for copies in range(half + 1)]
    masks = [mask for mask in masks if mask.sent <= most]
    if len(masks) > 4:  # every other one, and full duplication
        masks = sorted({*masks[::2], masks[-1]}, key=lambda mask: mask.twice)
    return masks


def verdicts(measured: Measured) -> list[str]:
    """A sentence a point, and one about all."""
    ours, *fixed = (system for system in measured.study.systems if system.family != ABLATION)
    sentences, met = [], []
    for weather in {w.specification: w for w in measured.study.weathers}.values():
        good, sentence = _verdict(measured, ours, fixed, weather)
        met.append(good)
        sentences.append(sentence)
    whole = "met" if all(met) else f"not met at {met.count(False)} of {len(met)} points"
    return [*sentences, f"adaptive against the best fixed mask and full duplication: the bar is {whole}."]


def _verdict(measured: Measured, ours: System, fixed: list[System], weather: Weather) -> tuple[bool, str]:
    def quality(system: System) -> float:
        found = measured.estimate(system, weather, "plcmos")
        return float("-inf") if found is None else found.mean

    best = max(fixed, key=quality)
    good, parts = True, []
    for other in dict.fromkeys((best, fixed[-1])):
        found = {m: measured.difference(ours, other, weather, m) for m in measured.study.metrics}
        sound, words = found.get("plcmos"), found.get("wer")
        if weather.loss >= FROM - 1e-9:
            good = good and points.better(sound, "plcmos")
        else:
            good = good and sound is not None and sound.mean >= -WORSE_PLCMOS
            good = good and words is not None and words.mean <= WORSE_WER
        shown = ", ".join(f"{points.title_of(m)} {points.said(interval, m)}" for m, interval in found.items())
        parts.append(f"against {other.name} {shown}")
    spent, theirs = (points.mean(measured.of(s, weather), "payload_bps") / 1000 for s in (ours, best))
    rates = f"payload {spent:.2f} to {theirs:.2f} kbit/s"
    return good, f"{weather.title}: {'met' if good else 'not met'}, {rates}. {'; '.join(parts)}"
