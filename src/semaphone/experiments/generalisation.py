"""Does it work on speech from elsewhere (LargeSC Fig 8)?

    semaphone experiment generalisation --data recordings/ --other elsewhere/ --out results/ --lyra FOLDER

The link and SoundStream over independent losses, on recordings like those of the training and on another corpus.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from semaphone.experiments import link_systems, options
from semaphone.experiments.packet_loss import TRANSMISSIONS
from semaphone.experiments.study import Corpus, PanelPlan, Picture, Study, run_study, within

METRICS = ("visqol", "plcmos")
RIVALS = ("soundstream:1600", "soundstream:3200")
PICTURES = (
    Picture(
        "fig-8",
        "As the paper's Fig 8: quality over independent losses. Solid: recordings like those of the training; dashed: "
        "another corpus.",
        (PanelPlan("visqol", "uniform"), PanelPlan("plcmos", "uniform")),
    ),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the experiment."""
    options.add_corpus_options(parser)
    parser.add_argument("--other", type=Path, required=True, metavar="DIR", help="recordings from elsewhere")
    options.add_system_options(parser)
    options.add_loss_options(parser)


def run(args: argparse.Namespace) -> int:
    """Measure what is not measured yet, draw, write the page."""
    home, other = options.recordings_of(args), options.recordings_of(args, args.other)
    metrics = options.metrics_of(args, METRICS)
    names = [args.data.resolve().name, args.other.resolve().name]
    if names[0] == names[1]:
        names[1] += " (other)"
    links = link_systems.at_rates(args, TRANSMISSIONS, options.recovery_of(args))
    return run_study(
        Study(
            "generalisation",
            "Speech from elsewhere",
            ["ViSQOL compares with the original, so that noise in the recordings themselves weighs on it."],
            [*links, *options.rivals_of(args, RIVALS, RIVALS[:1])],
            [options.Weather("uniform", loss) for loss in options.losses_of(args)],
            [Corpus(names[0], home), Corpus(names[1], other)],
            metrics,
            within(PICTURES, metrics),
        ),
        args,
    )
