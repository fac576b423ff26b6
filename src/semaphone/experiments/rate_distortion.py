"""Quality over rate without loss (LargeSC Fig 4).

    semaphone experiment rate-distortion --data recordings/ --out results/ [--lyra FOLDER] [--limit 40] [--jobs 2]

The link with more and more codebooks beside Opus, AAC, SoundStream (Lyra v2), Codec 2 and a text link. The rate is
that of the payload: tokens, table of contents, and what fills the last byte.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from semaphone.errors import InputError
from semaphone.experiments import link_systems, options
from semaphone.experiments.study import Corpus, PanelPlan, Picture, Study, run_study, within

if TYPE_CHECKING:
    from semaphone.experiments.systems import System

CODEBOOKS = "2,4,6,8,12,16"
QUICK_CODEBOOKS = "4,8,16"
RIVALS = (
    *("opus:6000:60ms", "opus:8000:60ms", "opus:12000:60ms"),
    *("aac:4700", "aac:8000", "aac:20500"),
    *("soundstream:1600", "soundstream:3200", "soundstream:6000"),
    *("codec2:700", "codec2:1200", "codec2:2400", "codec2:3200"),
    "textlink",
)
QUICK_RIVALS = ("opus:6000:60ms", "opus:12000:60ms", "aac:8000", "soundstream:1600", "soundstream:6000", "textlink")
METRICS = ("visqol", "utmos", "plcmos", "wer", "phone_error_rate", "speaker_similarity")
QUICK_METRICS = ("visqol", "utmos", "plcmos", "wer")
_CAPTION = "As the paper's Fig 4: quality over the payload rate without loss"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the experiment."""
    options.add_corpus_options(parser)
    options.add_system_options(parser)
    parser.add_argument("--codebooks", metavar="LIST", help=f"how many to send, with commas (default {CODEBOOKS})")


def run(args: argparse.Namespace) -> int:
    """Measure what is not measured yet, draw, write the page."""
    corpus = Corpus(args.data.resolve().name, options.recordings_of(args))
    metrics = options.metrics_of(args, QUICK_METRICS if args.quick else METRICS)
    return run_study(
        Study(
            "rate-distortion",
            "Quality over rate",
            [
                "No losses. Points of a family are joined. The rate is that of the payload; what headers add is in the "
                "table. ViSQOL compares moment by moment, which is unfair to codecs that generate speech and says "
                "nothing about the text link, which speaks anew: look at several scores.",
            ],
            [*_links(args), *options.rivals_of(args, RIVALS, QUICK_RIVALS)],
            [options.Weather("uniform", 0.0)],
            [corpus],
            metrics,
            within((_figure(metrics), _more(metrics)), metrics),
        ),
        args,
    )


def _figure(metrics: tuple[str, ...]) -> Picture:
    """The paper's two panels; where UTMOS cannot be had, PLCMOS stands in its place."""
    if "utmos" in metrics:
        return Picture("fig-4", f"{_CAPTION}.", (PanelPlan("visqol", "rate"), PanelPlan("utmos", "rate")))
    caption = f"{_CAPTION}. PLCMOS stands in for UTMOS, whose weights are not here."
    return Picture("fig-4", caption, (PanelPlan("visqol", "rate"), PanelPlan("plcmos", "rate")))


def _more(metrics: tuple[str, ...]) -> Picture:
    shown = {panel.metric for panel in _figure(metrics).panels}
    panels = tuple(PanelPlan(metric, "rate") for metric in metrics if metric not in shown)
    return Picture("more", "The other scores over the same rates.", panels)


def _links(args: argparse.Namespace) -> list[System]:
    from semaphone.controller.base import Mask

    info, recovery = link_systems.info_of(args), options.recovery_of(args)
    text = args.codebooks or (QUICK_CODEBOOKS if args.quick else CODEBOOKS)
    if not all(part.isdecimal() and part.isascii() and len(part) < 3 for part in text.split(",")):
        raise InputError(f"--codebooks takes numbers with commas between them, such as {QUICK_CODEBOOKS}.")
    numbers = sorted({min(int(part), info.num_codebooks) for part in text.split(",")})
    found: list[System] = []
    for kind in link_systems.controllers_of(args):
        for number in numbers:
            if kind == "fixed":
                found.append(link_systems.fixed(args, recovery, Mask(number, 0), f"{info.name} {number} codebooks"))
            else:
                rate = link_systems.payload_bps(args, Mask(number, 0))
                found.append(link_systems.adaptive(args, recovery, rate))
    return found
