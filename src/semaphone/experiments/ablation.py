"""What the language model and the protection are worth (LargeSC Fig 7).

    semaphone experiment ablation --data recordings/ --out results/ [--limit 40] [--jobs 2]

The whole link beside the same without the language model (lost tokens are held, or left out) and without protection
(no token goes twice; the rate is spent on more codebooks), all at one rate and over the same losses.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

from semaphone.experiments import link_systems, options
from semaphone.experiments.study import Corpus, PanelPlan, Picture, Study, run_study, within

if TYPE_CHECKING:
    from semaphone.experiments.systems import LinkSystem, System

METRICS = ("visqol", "plcmos", "wer", "phone_error_rate")
QUICK_METRICS = ("visqol", "plcmos")
TRANSMISSIONS = 15  # of tokens a chunk: 2.06 kbit/s
PICTURES = (
    Picture(
        "fig-7",
        "As the paper's Fig 7: quality over independent losses, with parts taken away.",
        (PanelPlan("visqol", "uniform"), PanelPlan("plcmos", "uniform")),
    ),
    Picture(
        "words",
        "The same for words and phones.",
        (PanelPlan("wer", "uniform"), PanelPlan("phone_error_rate", "uniform")),
    ),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the experiment."""
    options.add_corpus_options(parser)
    options.add_link_options(parser)
    options.add_loss_options(parser)


def run(args: argparse.Namespace) -> int:
    """Measure what is not measured yet, draw, write the page."""
    corpus = Corpus(args.data.resolve().name, options.recordings_of(args))
    metrics = options.metrics_of(args, QUICK_METRICS if args.quick else METRICS)
    recovery = options.recovery_of(args)
    about = [
        "Without protection no token goes twice, and what that saves is spent on more codebooks: the rate of tokens "
        "is the same as far as the codec has codebooks.",
    ]
    if recovery in ("hold", "none"):
        about.append(f"The language model is not part of this run: recovery is {recovery}.")
    return run_study(
        Study(
            "ablation",
            "What each part is worth",
            about,
            variants(args, recovery),
            [options.Weather("uniform", loss) for loss in options.losses_of(args)],
            [corpus],
            metrics,
            within(PICTURES, metrics),
        ),
        args,
    )


def variants(args: argparse.Namespace, recovery: str) -> list[System]:
    """The whole link and what is left without a part, for each controller."""
    found: list[System] = []
    kinds = link_systems.controllers_of(args)
    for whole in link_systems.at_rates(args, [TRANSMISSIONS], recovery):
        found += _without(whole, recovery, "adaptive: " if len(kinds) > 1 and "adaptive" in whole.family else "")
    return found


def _without(whole: LinkSystem, recovery: str, prefix: str) -> list[LinkSystem]:
    plain = recovery in ("hold", "none")  # there is no language model to begin with

    def named(name: str) -> str:
        if plain:
            return f"{prefix}protection, {name}"
        return f"{prefix}whole ({name})" if name == recovery else f"{prefix}without language model ({name})"

    ways = dict.fromkeys([recovery, "hold", "none"]) if recovery != "none" else [recovery]
    kept = [replace(whole, name=named(name), recovery=name) for name in ways]
    return [*kept, replace(whole, name=f"{prefix}without protection ({recovery})", protected=False)]
