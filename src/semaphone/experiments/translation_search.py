"""Greedy search against beam search in the decoder of the embedded model, streamed: chrF and a listener's lag.

    semaphone experiment translation-search --data recordings.csv --from fra --out results/

Every recording goes through the whole chain, words committed as they become certain, once with each beam. Beams take
turns recording by recording, so that a busy machine is equally busy for all; lag is also given in processor time, which
is what an idle core would take. Differences are paired, sentence by sentence.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from semaphone.errors import InputError
from semaphone.lines import Measured

if TYPE_CHECKING:
    from semaphone.translation.chain import Chain
    from semaphone.translation.corpora import Pair

KEY = ("context", "snr", "beam", "file")
SETTINGS = ("source", "threads", "seed")  # options that decide a result
_COLUMNS = ("listener_lag_p50_s", "listener_lag_p99_s", "listener_lag_p50_s_cpu", "listener_lag_p99_s_cpu")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the experiment."""
    parser.add_argument("--data", type=Path, required=True, metavar="PATH", help="CSV of recordings or FLEURS folder")
    parser.add_argument("--from", dest="source", default="fra", metavar="LANG")
    parser.add_argument("--limit", type=int, metavar="N", help="use only the first N recordings")
    parser.add_argument("--beams", default="1,5", metavar="N,N", help="1 is greedy search; others are compared with it")
    parser.add_argument("--contexts", default="left", help="none, left, resend, with commas")
    parser.add_argument("--snr", default="inf", metavar="DB,DB", help="SNRs of the Rayleigh channel, or inf")
    parser.add_argument("--threads", type=int, default=1, help="threads of the model")
    parser.add_argument("--seed", type=int, default=0)


def parse_beams(text: str) -> list[int]:
    """Beams with commas, 1 among them."""
    try:
        beams = sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise InputError(f"Beams are whole numbers with commas, not {text!r}.") from None
    if beams[0] != 1 or len(beams) < 2:
        raise InputError("Name greedy search (1) and at least one larger beam.")
    return beams


def run(args: argparse.Namespace) -> int:
    """Measures what is not measured yet, then draws."""
    from semaphone.experiments.digests import digest_of
    from semaphone.translation.channel_code import load_code
    from semaphone.translation.corpora import load_pairs

    beams = parse_beams(args.beams)
    pairs = load_pairs(args.data, args.source, "eng", limit=args.limit)
    settings = {**{name: getattr(args, name) for name in SETTINGS}, "code": digest_of(load_code(""))}
    lines = Measured(args.out / "results.jsonl", KEY, settings)
    for context in args.contexts.split(","):
        for snr in args.snr.split(","):
            chains = {beam: _chain(context, snr, beam, args) for beam in beams}
            for pair in pairs:
                for beam, chain in chains.items():
                    place = {"context": context, "snr": snr, "beam": beam, "file": pair.file.name}
                    if not lines.get(**place):
                        lines.add({**place, **_measure(chain, pair, args.seed)})
            print(f"{context}, {snr} dB: {len(lines)} results", flush=True)
    draw_results(list(lines), args.out)
    return 0


def _chain(context: str, snr: str, beam: int, args: argparse.Namespace) -> Chain:
    from semaphone.channel.fading import FadingChannel
    from semaphone.translation.chain import Chain
    from semaphone.translation.models.whisper import WhisperConfig, WhisperTranslator
    from semaphone.translation.radio import make_radio, parse_snr

    value = parse_snr(snr)
    radio = make_radio("trained", None if value == float("inf") else FadingChannel("rayleigh", value))
    return Chain(WhisperTranslator(WhisperConfig(args.source, context=context, beam=beam, threads=args.threads)), radio)


def _measure(chain: Chain, pair: Pair, seed: int) -> dict[str, Any]:
    from semaphone.audio import read_audio
    from semaphone.translation.chain import timed

    talk = chain.run([read_audio(pair.file, 16_000)], seed)
    return {
        "text": talk.text,
        "reference": pair.reference,
        "segments": [asdict(segment) for segment in timed(talk)],
        "cpu_segments": [asdict(segment) for segment in timed(talk, cpu=True)],
    }


def figures(lines: list[dict[str, Any]]) -> dict[str, float]:
    """chrF and lag of the lines of one beam in one place."""
    from semaphone.metrics.latency import TimedSegment, report
    from semaphone.metrics.translation import chrf

    out = {"chrF": chrf([line["text"] for line in lines], [line["reference"] for line in lines])}
    for field, ending in (("segments", ""), ("cpu_segments", "_cpu")):
        talks = [[TimedSegment(**segment) for segment in line[field]] for line in lines]
        out.update({f"{name}{ending}": value for name, value in report(talks).as_dict().items()})
    return out


def difference(lines: list[dict[str, Any]], greedy: list[dict[str, Any]]) -> str:
    """chrF of sentences less that of greedy search, mean and 95 % interval, over the recordings that both have."""
    from semaphone.metrics.bootstrap import paired_difference
    from semaphone.metrics.translation import sentence_chrf

    scores = [{x["file"]: sentence_chrf(x["text"], x["reference"]) for x in found} for found in (lines, greedy)]
    files = sorted(set(scores[0]) & set(scores[1]))
    ours, theirs = ([score[file] for file in files] for score in scores)
    found = paired_difference(ours, theirs, np.random.default_rng(0))
    return f"{found.mean:+.2f} ({found.low:+.2f} to {found.high:+.2f})"


def draw_results(lines: list[dict[str, Any]], out: Path) -> None:
    """A table from result lines, printed and as a page."""
    from semaphone.experiments.page import paragraph, table, write_page

    rows: list[list[object]] = []
    for context, snr, beam in sorted({(x["context"], x["snr"], x["beam"]) for x in lines}):
        place = [x for x in lines if (x["context"], x["snr"]) == (context, snr)]
        mine, greedy = ([x for x in place if x["beam"] == number] for number in (beam, 1))
        shown = figures(mine)
        apart = difference(mine, greedy) if beam != 1 else ""
        rows.append([context, snr, beam, len(mine), shown["chrF"], apart, *(shown[name] for name in _COLUMNS)])
        print(*(f"{x:.2f}" if isinstance(x, float) else x for x in rows[-1]), flush=True)
    head = ["context", "SNR (dB)", "beam", "recordings", "chrF", "less greedy, paired"]
    parts = [paragraph("chrF of all recordings together; differences of sentences, mean and 95 % interval.")]
    parts.append(table([*head, *(name.replace("_", " ") for name in _COLUMNS)], rows))
    write_page(out / "index.html", "Greedy search and beam search", parts)
