"""`semaphone experiment NAME`: redoes a figure or table of the papers.

Each experiment is a module of `semaphone.experiments` with `add_arguments(parser)` and `run(args) -> int`. It writes
its measurements as JSON lines while it goes, goes on from them when it was interrupted, and then draws its figures.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from typing import Any

from semaphone.commands._train_translation import accept_negative_ranges

# Name on the command line → (module, what it shows). Modules are imported only when they are run.
EXPERIMENTS: dict[str, tuple[str, str]] = {
    "codec-quality": ("codec_quality", "codecs side by side without loss: quality over rate"),
    "translation-quality": ("translation_quality", "quality of translation over SNR (LSSC-ST Fig 4)"),
    "translation-latency": ("translation_latency", "average latency and a listener's lag (LSSC-ST Table II)"),
    "segment-length": ("segment_length", "quality over the length of segments (LSSC-ST's published curves)"),
}


def register(subparsers: Any) -> None:
    """Adds the command; each experiment's own options appear once its name is given."""
    listing = "\n".join(f"  {name:22}{text}" for name, (_, text) in EXPERIMENTS.items())
    parser = subparsers.add_parser(
        "experiment",
        help="redo a figure or table of the papers",
        description=f"Experiments:\n{listing}\n\n`semaphone experiment NAME --help` shows the options of one.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=EXPERIMENTS, metavar="NAME")
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="...", help="options of the experiment")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Parses the experiment's own options and runs it."""
    module_name, text = EXPERIMENTS[args.name]
    module = importlib.import_module(f"semaphone.experiments.{module_name}")
    parser = argparse.ArgumentParser(prog=f"semaphone experiment {args.name}", description=text)
    parser.add_argument("--out", type=Path, default=Path(args.name), help="folder of results and figures")
    accept_negative_ranges(parser)
    module.add_arguments(parser)
    return int(module.run(parser.parse_args(args.rest)))
