"""`semaphone evaluate`: score a degraded recording against its original."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from semaphone.commands import _link

if TYPE_CHECKING:
    from semaphone.metrics.scores import Scores


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = subparsers.add_parser(
        "evaluate",
        help="score a degraded recording against its original",
        description="Score a degraded recording against its original: quality, words, phones, melody, voice. "
        "Sample rates and lengths may differ; a constant delay of up to half a second is taken out.",
    )
    parser.add_argument("reference", metavar="REF", help="the original recording")
    parser.add_argument("degraded", metavar="DEGRADED", help="what arrived of it")
    parser.add_argument("--json", action="store_true", help="print JSON, with scorer versions")
    parser.add_argument("--text", help="what is said in the original (default: what Whisper hears there)")
    parser.add_argument("--language", metavar="CODE", help="language of the speech, as en or fr (default: find it)")
    parser.add_argument("--metrics", metavar="LIST", help="comma-separated names, such as visqol,plcmos,wer")
    _link.add_input_options(parser)
    parser.add_argument(
        "--no-align", action="store_true", help="compare sample by sample, without taking out a delay first"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Read, score, print."""
    import json

    from semaphone.audio import read_audio
    from semaphone.errors import InputError
    from semaphone.metrics.pair import SCORING_RATE
    from semaphone.metrics.scores import evaluate, metric_names

    names = None if args.metrics is None else [name.strip() for name in args.metrics.split(",") if name.strip()]
    metric_names(names)  # a wrong name is said before anything is read
    if args.reference == args.degraded == "-":
        raise InputError("Standard input can be one of the two recordings, not both.")
    options = _link.reading(args, args.reference, args.degraded)
    scores = evaluate(
        read_audio(args.reference, SCORING_RATE, **options),
        read_audio(args.degraded, SCORING_RATE, **options),
        SCORING_RATE,
        text=args.text,
        metrics=names,
        language=args.language,
        max_delay_s=0.0 if args.no_align else 0.5,
    )
    _check_scored(scores, metric_names(names))
    if args.json:
        print(json.dumps({"reference": args.reference, "degraded": args.degraded, **scores.to_json()}, indent=2))
    else:
        _print_table(scores, metric_names(names))
    return 0


def _check_scored(scores: Scores, names: tuple[str, ...]) -> None:
    """Raises MissingExtraError if there is no score because no scorer is installed."""
    from semaphone.errors import COMPILED, MissingExtraError
    from semaphone.metrics.scores import installed

    if not any(getattr(scores, name) is not None or installed(name) for name in names):
        raise MissingExtraError("Scoring", "metrics", f"no scorer is installed; {COMPILED}")


def _print_table(scores: Scores, names: tuple[str, ...]) -> None:
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from semaphone.metrics.scores import METRICS

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("metric")
    table.add_column("value", justify="right")
    table.add_column("")
    for name in names:
        metric = METRICS[name]
        value = getattr(scores, name)
        better = "higher is better" if metric.higher_is_better else "lower is better"
        table.add_row(
            metric.title,
            "–" if value is None else f"{value:.{metric.digits}f}",
            escape(scores.notes.get(name, better)),
        )
    console = Console()
    console.print(table)
    delay_ms = round(1000 * scores.delay_s)
    console.print(f"original {scores.seconds:.2f} s, delay taken out {delay_ms} ms", highlight=False)
    if scores.reference_text is not None:
        console.print(f"original: {scores.reference_text}", markup=False, highlight=False)
        console.print(f"arrived:  {scores.degraded_text}", markup=False, highlight=False)
