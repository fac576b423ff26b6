"""Codecs side by side without loss: quality over rate.

    semaphone experiment codec-quality --data recordings/ --out results/ [--lyra FOLDER] [--limit 20]

nano at 4, 8, 12 and 16 codebooks beside Opus, Codec 2, Lyra v2 (where its models are) and Mimi (where its weights
are), over the same recordings, all together and by group. The rate of nano and Mimi is that of their tokens alone;
`rate-distortion` sends packets. Words are judged against what Whisper hears in the original.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from semaphone.errors import InputError
from semaphone.experiments import options
from semaphone.experiments.groups import by_group
from semaphone.experiments.points import said, title_of
from semaphone.experiments.study import Corpus, Measured, PanelPlan, Picture, Study, run_study

if TYPE_CHECKING:
    from collections.abc import Iterator

    from semaphone.experiments.systems import System

METRICS = ("visqol", "pesq", "plcmos", "wer", "phone_error_rate", "log_f0_rmse", "speaker_similarity")
PAIRS = (  # what is compared, and the beginning of the name of what with
    ("nano 8", "Opus 6 kbit/s"),
    ("nano 8", "SoundStream (Lyra v2) 3.2 kbit/s"),
    ("nano 16", "Opus 8 kbit/s"),
    ("nano 16", "Opus 12 kbit/s"),
)
FAMILIES = ("nano", "opus", "codec2", "lyra", "mimi")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the experiment."""
    options.add_corpus_options(parser)
    parser.add_argument("--codec", default="nano", help="nano or a file of nano weights")
    parser.add_argument(
        "--codebooks", default="4,8,12,16", metavar="N,…", help="nano with so many (default: %(default)s)"
    )
    parser.add_argument("--lyra", type=Path, metavar="DIR", help="folder of Lyra v2's models")
    parser.add_argument("--mimi", metavar="FOLDER-OR-ID", help="weights of Mimi")
    parser.add_argument("--systems", help=f"only these families, with commas: {','.join(FAMILIES)}")
    parser.set_defaults(words="heard")


def systems(args: argparse.Namespace) -> Iterator[System]:
    """All systems that can be had here."""
    from semaphone.experiments.rivals import rival
    from semaphone.experiments.systems import CodecSystem, codec_named

    wanted = set(FAMILIES if args.systems is None else args.systems.split(","))
    if not wanted <= set(FAMILIES):
        raise InputError(f"Families are nano, opus, codec2, lyra and mimi, not {args.systems}.")
    if "nano" in wanted:
        for codebooks in _codebooks(args.codebooks, codec_named(args.codec).info.num_codebooks):
            yield CodecSystem(f"nano {codebooks}", "nano", args.codec, codebooks)
    baselines = [f"opus:{rate}" for rate in (6000, 8000, 12000) if "opus" in wanted]
    baselines += [f"codec2:{rate}" for rate in (700, 1200, 2400, 3200) if "codec2" in wanted]
    baselines += [f"soundstream:{rate}" for rate in (1600, 3200, 6000) if "lyra" in wanted and args.lyra is not None]
    for specification in baselines:
        yield rival(specification, args.lyra)
    if "mimi" in wanted and args.mimi is not None:
        for codebooks in (4, 8):
            yield CodecSystem(f"mimi {codebooks}", "mimi", f"mimi:{args.mimi}", codebooks)


def _codebooks(text: str, most: int) -> list[int]:
    counts = text.split(",")
    if not all(count.isascii() and count.isdigit() and 1 <= int(count) <= most for count in counts):
        raise InputError(f"Codebooks are numbers from 1 to {most} with commas between them, not {text!r}.")
    return [int(count) for count in counts]


def run(args: argparse.Namespace) -> int:
    """Measure what is not measured yet, print the table, draw."""
    found = list(systems(args))  # first: wrong settings are told before a folder is read
    corpus = Corpus(args.data.resolve().name, options.recordings_of(args))
    metrics = options.metrics_of(args, METRICS)
    pictures = [
        Picture(f"codec-quality-{metric}", f"{title_of(metric)} over rate.", (PanelPlan(metric, "rate"),))
        for metric in metrics
    ]
    weathers = [options.Weather("uniform", 0.0)]
    about = ["Codecs alone, without packets or losses."]
    study = Study(
        "codec-quality",
        "Codec quality",
        about,
        found,
        weathers,
        [corpus],
        metrics,
        pictures,
        verdicts,
        lambda measured: [by_group(measured)],
    )
    return run_study(study, args)


def verdicts(measured: Measured) -> list[str]:
    """nano less its rivals at several times its rate, paired."""
    study = measured.study
    sentences = []
    for name, rival_name in PAIRS:
        ours = next((system for system in study.systems if system.name == name), None)
        theirs = next((s for s in study.systems if s.name.startswith(rival_name)), None)
        if ours is not None and theirs is not None:
            differences = [(m, measured.difference(ours, theirs, study.weathers[0], m)) for m in study.metrics]
            shown = ", ".join(f"{title_of(metric)} {said(interval, metric)}" for metric, interval in differences)
            sentences.append(f"{ours.name} − {theirs.name}: {shown}.")
    return sentences
