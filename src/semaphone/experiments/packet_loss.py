"""Quality over packet loss (LargeSC Figs 5 and 6).

    semaphone experiment packet-loss --data recordings/ --out results/ [--lyra FOLDER] [--limit 40] [--jobs 2]

The link at 1.51 and 2.06 kbit/s of tokens, as in the paper, beside what a user would pick instead, over independent
losses. `burst-loss` (burst_loss.py) is the same over bursts of 240 ms.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from semaphone.experiments import link_systems, options
from semaphone.experiments.study import Axis, Corpus, PanelPlan, Picture, Study, run_study, within

if TYPE_CHECKING:
    from semaphone.experiments.systems import System

TRANSMISSIONS = (11, 15)  # of tokens a chunk, copies included: 1.51 and 2.06 kbit/s with 11 bits at 12.5 Hz
METRICS = ("visqol", "plcmos", "wer", "phone_error_rate", "log_f0_rmse")
QUICK_METRICS = ("visqol", "plcmos", "wer", "log_f0_rmse")
PICTURES = (
    Picture(
        "fig-5ab",
        "As the paper's Fig 5 (a), (b): quality over the rate of independent losses.",
        (PanelPlan("visqol", "uniform"), PanelPlan("plcmos", "uniform")),
    ),
    Picture(
        "fig-6",
        "As the paper's Fig 6: words and melody over the rate of independent losses; here phones as well, heard by a "
        "recogniser of another family.",
        (PanelPlan("wer", "uniform"), PanelPlan("log_f0_rmse", "uniform"), PanelPlan("phone_error_rate", "uniform")),
    ),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the experiment."""
    options.add_corpus_options(parser)
    options.add_system_options(parser)
    options.add_loss_options(parser)


def run(args: argparse.Namespace) -> int:
    """Measure what is not measured yet, draw, write the page."""
    about = [
        "The link is set to a rate of tokens, copies included. A fixed mask is made for the loss rate, told "
        "beforehand, as Opus is; an adaptive controller learns it from reports. All meet the same losses on the axis "
        "of time. Opus has in-band redundancy and concealment, AAC interpolates, SoundStream and Codec 2 conceal, "
        "the text link is the floor that any voice has to beat.",
    ]
    return run_study(loss_study(args, "packet-loss", "Quality over packet loss", "uniform", about, PICTURES), args)


def loss_study(
    args: argparse.Namespace, name: str, title: str, kind: Axis, about: list[str], pictures: tuple[Picture, ...]
) -> Study:
    """The study of one kind of weather; metrics are those of its figures."""
    corpus = Corpus(args.data.resolve().name, options.recordings_of(args))
    shown = {panel.metric for picture in pictures for panel in picture.panels}
    metrics = options.metrics_of(args, [m for m in (QUICK_METRICS if args.quick else METRICS) if m in shown])
    systems: list[System] = [
        *link_systems.at_rates(args, TRANSMISSIONS, options.recovery_of(args)),
        *options.rivals_of(args),
    ]
    weathers = [options.Weather(kind, loss) for loss in options.losses_of(args)]
    return Study(
        name,
        title,
        about,
        systems,
        weathers,
        [corpus],
        metrics,
        within(pictures, metrics),
    )
