"""Codecs side by side without loss: quality over rate.

    semaphone experiment codec-quality --data recordings/ --out results/ [--lyra FOLDER] [--limit 20]

nano at 4, 8, 12 and 16 codebooks beside Opus, Codec 2, Lyra v2 (where its models are) and Mimi (where
its weights are), over the same recordings. Words are judged against what Whisper hears in the
original. Means come with bootstrap intervals over utterances; error rates are pooled.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from semaphone.errors import InputError, SemaphoneError
from semaphone.experiments.corpus import Utterance, load_corpus
from semaphone.experiments.lines import Lines

if TYPE_CHECKING:
    from semaphone.audio import Samples
    from semaphone.baselines.base import Baseline
    from semaphone.codec.base import Codec
    from semaphone.metrics.bootstrap import Interval

KEY = ("system", "file")
METRICS = ("visqol", "pesq", "plcmos", "wer", "phone_error_rate", "log_f0_rmse", "speaker_similarity")
POOLED = {"wer": ("word_errors", "words"), "phone_error_rate": ("phone_errors", "phones")}
TITLES = {
    "visqol": "ViSQOL",
    "pesq": "PESQ",
    "plcmos": "PLCMOS",
    "wer": "WER",
    "phone_error_rate": "phone error rate",
    "log_f0_rmse": "log F0 RMSE",
    "speaker_similarity": "speaker similarity",
}


@dataclass(frozen=True)
class System:
    """Something that speech goes through."""

    name: str  # "nano 8"
    family: str  # "nano": points of a family are joined in the picture
    through: Callable[[Samples], tuple[Samples, float]]  # 16 kHz → 16 kHz as long, bit/s


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the experiment."""
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="recordings")
    parser.add_argument("--limit", type=int, metavar="N", help="use only N recordings, evenly spaced")
    parser.add_argument("--codec", default="nano", help="nano or a file of nano weights")
    parser.add_argument("--lyra", type=Path, metavar="DIR", help="folder of Lyra v2's models")
    parser.add_argument("--mimi", metavar="FOLDER-OR-ID", help="weights of Mimi")
    parser.add_argument("--systems", help="only these families, with commas: nano,opus,codec2,lyra,mimi")
    parser.add_argument("--metrics", default=",".join(METRICS), help="only these, with commas")


def codec_system(codec: Codec, codebooks: int) -> System:
    """A codec at a number of codebooks; its rate is that of the tokens."""
    import torch

    from semaphone.audio import Resampler

    info = codec.info

    def through(speech: Samples) -> tuple[Samples, float]:
        x = speech if info.sample_rate == 16_000 else Resampler(16_000, info.sample_rate).push(speech, last=True)
        chunks = -(-(len(x) + info.delay) // info.chunk_samples)
        padded = np.pad(x, (0, chunks * info.chunk_samples - len(x)))
        tokens = codec.encode(torch.from_numpy(padded)[None], None, codebooks).tokens
        y = codec.decode(tokens).speech[0].numpy()[info.delay : info.delay + len(x)]
        if info.sample_rate != 16_000:
            y = Resampler(info.sample_rate, 16_000).push(y, last=True)
        y = np.pad(y, (0, max(0, len(speech) - len(y))))[: len(speech)]
        return y.clip(-1, 1), codebooks * info.bits_per_token * info.frame_rate

    return System(f"{info.name} {codebooks}", info.name, through)


def baseline_system(baseline: Baseline) -> System:
    """A baseline without loss; its rate is that of its payload."""
    from semaphone.baselines.base import transfer

    def through(speech: Samples) -> tuple[Samples, float]:
        arrived = transfer(baseline, speech)
        return arrived.speech, arrived.payload_bps

    return System(baseline.info.title, baseline.info.name, through)


def systems(args: argparse.Namespace) -> Iterator[System]:
    """All systems that can be had here."""
    from semaphone.baselines.codec2 import Codec2
    from semaphone.baselines.opus import Opus
    from semaphone.codec.registry import load_codec

    wanted = None if args.systems is None else set(args.systems.split(","))
    if wanted and not wanted <= {"nano", "opus", "codec2", "lyra", "mimi"}:
        raise InputError(f"Families are nano, opus, codec2, lyra and mimi, not {args.systems}.")

    def chosen(family: str) -> bool:
        return wanted is None or family in wanted

    if chosen("nano"):
        codec = load_codec(args.codec)
        for codebooks in (4, 8, 12, 16):
            yield codec_system(codec, codebooks)
    if chosen("opus"):
        for rate in (6000, 8000, 12000):
            yield baseline_system(Opus(rate))
    if chosen("codec2"):
        for rate in (700, 1200, 2400, 3200):
            yield baseline_system(Codec2(rate))
    if chosen("lyra") and args.lyra is not None:
        from semaphone.baselines.soundstream import SoundStream

        for rate in (1600, 3200, 6000):
            yield baseline_system(SoundStream(args.lyra, rate))
    if chosen("mimi") and args.mimi is not None:
        mimi = load_codec(f"mimi:{args.mimi}")
        for codebooks in (4, 8):
            yield codec_system(mimi, codebooks)


def run(args: argparse.Namespace) -> int:
    """Measure what is not measured yet, print the table, draw."""
    from semaphone.metrics.scores import metric_names

    metrics = metric_names([name for name in args.metrics.split(",") if name])
    corpus = load_corpus(args.data, args.limit)
    found = list(systems(args))
    lines = Lines(args.out / "results.jsonl", KEY)
    measure(corpus, found, lines, metrics)
    rows = [summary(system, corpus, lines, metrics) for system in found]
    _print(rows, metrics)
    _draw(rows, metrics, args.out, len(corpus))
    print(f"results in {lines.path}, figures and page in {args.out}")
    return 0


def measure(corpus: list[Utterance], found: list[System], lines: Lines, metrics: tuple[str, ...]) -> None:
    """One line for each system and recording."""
    from semaphone.audio import read_audio
    from semaphone.commands._progress import progress
    from semaphone.metrics.scores import evaluate

    with progress() as bar:
        task = bar.add_task("measuring", total=len(corpus) * len(found))
        for utterance in corpus:
            speech: Samples | None = None
            for system in found:
                bar.advance(task)
                place = {"system": system.name, "file": utterance.name}
                if lines.get(**place) is not None:
                    continue
                try:
                    speech = read_audio(utterance.file, 16_000) if speech is None else speech
                    heard, rate = system.through(speech)
                    language = None if utterance.language is None else utterance.language[:2]
                    scores = evaluate(speech, heard, 16_000, metrics=metrics, language=language).to_json()
                except SemaphoneError as error:
                    bar.console.print(f"{utterance.name}, {system.name}: {error}")
                    continue
                about = {"family": system.family, "set": utterance.set, "speaker": utterance.speaker}
                lines.add({**place, **about, "bps": rate, **scores})


@dataclass(frozen=True)
class Row:
    """A system's figures over the corpus."""

    name: str
    family: str
    bps: float
    scores: dict[str, Interval | None]


def summary(system: System, corpus: list[Utterance], lines: Lines, metrics: tuple[str, ...]) -> Row:
    """Means, and pooled error rates, with intervals; a seed of its own for every system and metric."""
    from semaphone.metrics.bootstrap import bootstrap_mean, bootstrap_ratio

    found = [line for u in corpus if (line := lines.get(system=system.name, file=u.name)) is not None]
    if not found:
        raise InputError(f"{system.name} could not be measured on any recording.")
    scores: dict[str, Interval | None] = {}
    for name in metrics:
        rng = np.random.default_rng(1)
        try:
            if name in POOLED:
                above, below = POOLED[name]
                scores[name] = bootstrap_ratio([r[above] for r in found], [r[below] for r in found], rng)
            else:
                scores[name] = bootstrap_mean([r[name] for r in found], rng)
        except InputError:
            scores[name] = None
    return Row(system.name, system.family, float(np.mean([r["bps"] for r in found])), scores)


def _shown(interval: Interval | None) -> str:
    return "–" if interval is None else f"{interval.mean:.2f} ±{(interval.high - interval.low) / 2:.2f}"


def _print(rows: list[Row], metrics: tuple[str, ...]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE)
    table.add_column("system")
    for name in ("bit/s", *(TITLES.get(m, m) for m in metrics)):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(row.name, f"{row.bps:.0f}", *[_shown(row.scores[m]) for m in metrics])
    console = Console()
    Console(width=max(console.width, 150)).print(table)


def _draw(rows: list[Row], metrics: tuple[str, ...], out: Path, recordings: int) -> None:
    from semaphone.experiments.page import Curve, draw, paragraph, save, table, write_page

    parts = [
        paragraph(f"{recordings} recordings, no loss. Means (error rates pooled) ± half of a 95 % bootstrap interval.")
    ]
    head = ["system", "bit/s", *(TITLES.get(m, m) for m in metrics)]
    parts.append(table(head, [[r.name, f"{r.bps:.0f}", *[_shown(r.scores[m]) for m in metrics]] for r in rows]))
    for metric in metrics:
        curves = []
        for family in dict.fromkeys(row.family for row in rows):
            points = [(r.bps / 1000, r.scores[metric]) for r in rows if r.family == family]
            shown = [(x, interval.mean) for x, interval in points if interval is not None]
            curves.append(Curve(family, [x for x, _ in shown], [y for _, y in shown]))
        title = TITLES.get(metric, metric)
        parts.append(save(draw(curves, f"{title} over rate", "kbit/s", title), out, f"codec-quality-{metric}"))
    write_page(out / "index.html", "Codec quality", parts)
