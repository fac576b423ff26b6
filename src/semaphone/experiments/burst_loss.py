"""Quality over losses that come in bursts of 240 ms (LargeSC Fig 5 c-d): a Gilbert-Elliott channel.

semaphone experiment burst-loss --data recordings/ --out results/ [--lyra FOLDER] [--limit 40] [--jobs 2]
"""

from __future__ import annotations

import argparse

from semaphone.experiments import packet_loss
from semaphone.experiments.study import PanelPlan, Picture, run_study

PICTURES = (
    Picture(
        "fig-5cd",
        "As the paper's Fig 5 (c), (d): quality over the mean loss rate, losses in bursts of 240 ms.",
        (PanelPlan("visqol", "bursts"), PanelPlan("plcmos", "bursts")),
    ),
)

add_arguments = packet_loss.add_arguments


def run(args: argparse.Namespace) -> int:
    """Measure what is not measured yet, draw, write the page."""
    about = [
        "A Gilbert-Elliott channel on the axis of time: everything that is sent in its bad state is lost, and it stays "
        "there for 240 ms on average. Where its mask is fixed, the link is told beforehand of the losses, and how "
        "bursts spoil its copies; Opus is told the loss rate.",
    ]
    title = "Quality over losses in bursts"
    return run_study(packet_loss.loss_study(args, "burst-loss", title, "bursts", about, PICTURES), args)
