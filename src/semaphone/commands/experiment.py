"""`semaphone experiment NAME`: redoes a figure or table of the papers.

Each experiment is a module of `semaphone.experiments` with `add_arguments(parser)` and `run(args) -> int`. It writes
its measurements as JSON lines while it goes, goes on from them when it was interrupted, and then draws its figures.
"""

from __future__ import annotations

import argparse
import importlib
import os
from pathlib import Path
from typing import Any

from semaphone.commands._train_translation import accept_negative_ranges

# Name on the command line → (module, what it shows). Modules are imported only when they are run.
EXPERIMENTS: dict[str, tuple[str, str]] = {
    "rate-distortion": ("rate_distortion", "quality over rate without loss (LargeSC Fig 4)"),
    "packet-loss": ("packet_loss", "quality over independent losses (LargeSC Figs 5 a-b and 6)"),
    "burst-loss": ("burst_loss", "quality over losses in bursts (LargeSC Fig 5 c-d)"),
    "redundancy": ("redundancy", "tokens sent again: quality over payload, gross rate and delay"),
    "ablation": ("ablation", "what each part is worth (LargeSC Fig 7)"),
    "generalisation": ("generalisation", "speech from elsewhere (LargeSC Fig 8)"),
    "recovery": ("recovery", "the language model against holding and leaving out (LargeSC §II-C)"),
    "adaptive": ("adaptive", "the adaptive controller against fixed masks of the same payload (LargeSC §III-B)"),
    "codec-quality": ("codec_quality", "codecs side by side without loss: quality over rate"),
    "timeline": ("timeline", "one talk through changing losses (LargeSC Fig 9)"),
    "complexity": ("complexity", "multiply-adds and parameters of each module (LargeSC Table I)"),
    "latency": ("latency", "the parts of the delay (LargeSC Table II, eqs 21-23)"),
    "overhead": ("overhead", "from tokens to bits on the wire (LargeSC eq 24)"),
    "all": ("everything", "every experiment of the LargeSC paper; with --quick a first look at each"),
    "translation-quality": ("translation_quality", "quality of translation over SNR (LSSC-ST Fig 4)"),
    "translation-latency": ("translation_latency", "average latency and a listener's lag (LSSC-ST Table II)"),
    "translation-search": ("translation_search", "greedy search against beam search, streamed: chrF and lag"),
    "channel-code": ("channel_code", "what the channel code leaves of rows over SNR (LSSC-ST eq 6)"),
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
    module_name, _ = EXPERIMENTS[args.name]
    if not args.name.startswith(("translation", "segment")):
        # Before numpy or torch come: threads would change the last digits, and workers have a core each.
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ.setdefault(name, "1")
    module = importlib.import_module(f"semaphone.experiments.{module_name}")
    return int(module.run(parser_of(args.name, module).parse_args(args.rest)))


def parser_of(name: str, module: Any) -> argparse.ArgumentParser:
    """The parser of an experiment's own options."""
    parser = argparse.ArgumentParser(prog=f"semaphone experiment {name}", description=EXPERIMENTS[name][1])
    parser.add_argument("--out", type=Path, default=Path(name), help="folder of results and figures")
    accept_negative_ranges(parser)
    module.add_arguments(parser)
    return parser
