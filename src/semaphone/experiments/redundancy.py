"""What it is worth to send tokens again: quality over payload, gross rate and delay.

    semaphone experiment redundancy --data recordings/ --out results/ [--limit 40] [--jobs 2]

Packets with a history, of several horizons and lengths, beside `sliding`, XOR parity and Opus with its own redundancy
(LBRR), over independent losses and over bursts of several lengths. Other channels, such as recorded losses, come with
--channel.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from semaphone.commands import _history
from semaphone.errors import InputError
from semaphone.experiments import link_systems, options, points
from semaphone.experiments.options import Weather
from semaphone.experiments.parity import ParitySystem
from semaphone.experiments.study import (
    Axis,
    Corpus,
    Measured,
    PanelPlan,
    Picture,
    Study,
    Table,
    run_study,
)

if TYPE_CHECKING:
    from semaphone.experiments.systems import System

# Horizons of 0 to 8, equal lengths; more tokens; fewer with age; every other packet.
HISTORIES = (
    "8x1/8x2/8x3/8x4/8x5/8x6/8x7/8x8/8x9/12x3/16x2/12,8,4,4/16,8,4/16,8,5,3/16,10,5,1/16,6,4,3,2,1/16,8,6,4,3,2,1/8,0,8/"
    "8,0,8,0,8"
)
QUICK_HISTORIES = "8x1/8x4"
EARLIER = (8, 8, 8, 8)  # the history that is also played before all of its packets could have come
WAITS = (0.0, 0.08, 0.16)  # s
RIVALS = ("opus:6000:60ms", "opus:12000:20ms", "opus:24000:20ms")
QUICK_RIVALS = ("opus:12000:20ms",)
PARITIES = (((1, 2, 3),), ((1, 2), (3, 4), (5, 6)))  # as many tokens as 8x2 and 8x4
LOSSES = "0,0.05,0.1,0.2,0.3,0.4"
QUICK_LOSSES = "0,0.3"
BURSTS = "120ms,240ms,480ms"
TYPICAL = {"uniform": 0.3, "bursts": 0.2}  # loss of the pictures over cost
METRICS = ("wer", "phone_error_rate", "plcmos", "visqol")
QUICK_METRICS = ("wer", "plcmos")
COSTS: tuple[Axis, ...] = ("payload", "gross", "delay")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the experiment."""
    options.add_corpus_options(parser)
    options.add_system_options(parser)
    options.add_loss_options(parser, LOSSES)
    options.add_weather_option(parser)
    parser.add_argument(
        "--bursts", default=BURSTS, metavar="LIST", help=f"mean lengths, with commas (default {BURSTS})"
    )
    parser.add_argument(
        "--channel", action="append", default=[], metavar="SPEC", help="one more channel, such as trace:FILE,loop"
    )
    parser.set_defaults(schedule="history")


def run(args: argparse.Namespace) -> int:
    """Measure what is not measured yet, draw, write the page."""
    corpus = Corpus(args.data.resolve().name, options.recordings_of(args))
    metrics = options.metrics_of(args, QUICK_METRICS if args.quick else METRICS)
    weathers = weathers_of(args)
    about = [
        "A history of 8, 8, 4 sends the first 8 tokens of a chunk in its own packet, the first 8 again in the next one "
        "and the first 4 in the one after that. A chunk waits for the last packet that carries some of it: that is the "
        "delay here. Gross rates have 40 bytes of headers a packet.",
    ]
    return run_study(
        Study(
            "redundancy",
            "Tokens sent again",
            about,
            systems_of(args, options.recovery_of(args)),
            weathers,
            [corpus],
            metrics,
            pictures_of(weathers, metrics),
            tables=lambda measured: [costs(measured), *fronts(measured)],
        ),
        args,
    )


def weathers_of(args: argparse.Namespace) -> list[Weather]:
    """Independent losses, bursts of each length, other channels. Raises InputError."""
    from semaphone.channel.erasure import parse_channel

    losses = options.losses_of(args, LOSSES, QUICK_LOSSES)
    bursts = args.bursts.split(",")[: 1 if args.quick else None]
    found = [Weather("uniform", loss) for loss in losses] if args.weather != "bursts" else []
    if args.weather != "uniform":
        found += [Weather("bursts", loss, burst) for burst in bursts for loss in losses]
    for text in args.channel:
        found.append(Weather("other", parse_channel(text).mean_loss, channel=text))
    for weather in found:
        parse_channel(weather.specification)  # a wrong one is told at once
    return found


def systems_of(args: argparse.Namespace, recovery: str) -> list[System]:
    """Histories, what was there before, parity, Opus."""
    from semaphone.controller.base import Mask

    info = link_systems.info_of(args)
    found: list[System] = []
    for text in (args.history or (QUICK_HISTORIES if args.quick else HISTORIES)).split("/"):
        lengths = _history.parse_lengths(text)
        if max(lengths) <= info.num_codebooks:
            found.append(replace(link_systems.history(args, recovery, lengths), family=family(info.name, lengths)))
    if not found:
        raise InputError(f"None of these histories fits the {info.num_codebooks} codebooks of {info.name}.")
    if args.history is None and not args.quick and max(EARLIER) <= info.num_codebooks:
        whole = replace(link_systems.history(args, recovery, EARLIER), family=f"{info.name} history, played earlier")
        found += [replace(whole, name=f"{whole.name} after {1000 * wait:.0f} ms", wait=wait) for wait in WAITS]
    count = min(8, info.num_codebooks)
    sliding = link_systems.fixed(args, recovery, Mask(count, count), f"{info.name} sliding, {count} twice")
    found.append(replace(sliding, family=f"{info.name} sliding", schedule="sliding", horizon=None))
    for parities in PARITIES:
        ages = " and ".join("+".join(map(str, one)) for one in parities)
        name = f"{info.name} {count}, XOR of {ages}"
        found.append(ParitySystem(name, f"{info.name} XOR parity", args.codec, recovery, count, parities))
    return [*found, *options.rivals_of(args, RIVALS, QUICK_RIVALS)]


def family(codec: str, lengths: tuple[int, ...]) -> str:
    """Histories that belong together in a figure."""
    if list(lengths) != sorted(lengths, reverse=True):
        return f"{codec} history with gaps"
    if lengths[0] != lengths[-1]:
        return f"{codec} history, fewer with age"
    return f"{codec} history of {lengths[0]}"


def pictures_of(weathers: Sequence[Weather], metrics: Sequence[str]) -> list[Picture]:
    """Quality over what it costs, in typical losses of each kind."""
    found = []
    for kind, burst in dict.fromkeys((weather.kind, weather.burst) for weather in weathers if weather.kind in TYPICAL):
        lossy = [w for w in weathers if (w.kind, w.burst) == (kind, burst) and w.loss > 0]
        if not lossy:
            continue
        shown = min(lossy, key=lambda weather: abs(weather.loss - TYPICAL[kind]))
        name = "cost-uniform" if kind == "uniform" else f"cost-bursts-{burst}"
        panels = tuple(PanelPlan(metric, "gross", weather=shown) for metric in metrics)
        panels += tuple(PanelPlan(judge(metrics), axis, weather=shown) for axis in COSTS if axis != "gross")
        found.append(Picture(name, f"Quality over what it costs, {shown.title}.", panels))
    return found


def judge(metrics: Sequence[str]) -> str:
    """The score that says what is worth its cost: words, if they are counted."""
    return "wer" if "wer" in metrics else metrics[0]


def costs(measured: Measured) -> Table:
    """Delay, and chunks of which nothing came, of each system and weather."""
    weathers = list({weather.specification: weather for weather in measured.study.weathers}.values())
    rows = []
    for system in measured.study.systems:
        found = [measured.of(system, weather) for weather in weathers]
        delays = [row["delay_ms"] for some in found for row in some if row.get("delay_ms") is not None]
        if not delays:
            continue
        gone = [[row["chunk_loss"] for row in some if row.get("chunk_loss") is not None] for some in found]
        shares = [f"{sum(some) / len(some):.1%}" if some else "–" for some in gone]
        rows.append([system.name, f"{sum(delays) / len(delays):.0f}", *shares])
    head = ["system", "delay, ms", *(weather.title for weather in weathers)]
    return Table("Delay without computation, and chunks of which nothing came in time", head, rows)


def fronts(measured: Measured) -> list[Table]:
    """Of each weather, the systems that no cheaper one beats, by gross rate and words."""
    from semaphone.metrics.scores import METRICS as KNOWN

    study, found = measured.study, []
    metric = judge(study.metrics)
    sign = 1.0 if KNOWN[metric].higher_is_better else -1.0
    for weather in {weather.specification: weather for weather in study.weathers if weather.loss > 0}.values():
        rows, best = [], float("-inf")
        there = [
            (points.mean(rows_, "gross_bps"), s, rows_) for s in study.systems if (rows_ := measured.of(s, weather))
        ]
        for gross, system, some in sorted(there, key=lambda one: one[0]):
            estimate = points.estimate(some, metric)
            if estimate is None or sign * estimate.mean <= best:
                continue
            best = sign * estimate.mean
            scores = [points.shown(points.estimate(some, name), name) for name in study.metrics]
            payload = points.mean(some, "payload_bps")
            rows.append([system.name, f"{gross / 1000:.2f}", f"{payload / 1000:.2f}", *scores])
        head = ["system", "gross", "payload", *(points.title_of(name) for name in study.metrics)]
        found.append(Table(f"Not beaten by a cheaper one, {weather.title}", head, rows))
    return found
