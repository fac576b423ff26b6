"""Quality of translation over the SNR of the radio (LSSC-ST Fig 4), for the trained code and its rivals.

    semaphone experiment translation-quality --data recordings.csv --from fra --out results/

Two parts. Without noise: offline Whisper beside the three contexts of the streamed chain, words committed as they
become certain. With noise: rows of context `left` cross each channel and are translated when their utterance ends, so
that the curves show the channel code and not the policy of committing early. `--doubt -100` counts what the model
writes when it doubts to hear anything, too. Every system meets the same fading and noise, by seed.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from semaphone.commands.translate import add_decoder_options
from semaphone.errors import InputError
from semaphone.lines import Measured

if TYPE_CHECKING:
    from semaphone.metrics.bootstrap import Interval
    from semaphone.translation.corpora import Pair
    from semaphone.translation.models.base import Burst
    from semaphone.translation.models.whisper import WhisperConfig, WhisperTranslator

KEY = ("part", "system", "fading", "snr", "file")
SETTINGS = ("source", "compressor", "doubt", "beam", "times", "seed")  # options that decide a result, as does the code
TITLES = {"awgn": "AWGN", "rayleigh": "Rayleigh fading", "rician": "Rician fading"}
# SNR at which the paper's own BLASER 2.0 curve for fra-eng reaches 95 % of its ceiling, by linear interpolation of
# the authors' published points.
PAPER_SNR_95 = {"awgn": -5.53, "rayleigh": 0.98}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the experiment."""
    parser.add_argument("--data", type=Path, required=True, metavar="PATH", help="CSV of recordings or FLEURS folder")
    parser.add_argument("--from", dest="source", default="fra", metavar="LANG")
    parser.add_argument("--limit", type=int, metavar="N", help="use only the first N recordings")
    parser.add_argument("--snr", default="-11:3:19", metavar="LOW:STEP:HIGH", help="dB")
    parser.add_argument("--fading", default="awgn,rayleigh", help="kinds, with commas")
    parser.add_argument("--codes", default="trained,analogue,digital", help="channel codes, with commas")
    parser.add_argument("--code-weights", default="", metavar="FILE", help="another trained channel code")
    parser.add_argument("--times", type=int, default=1, metavar="N", help="send every symbol N times")
    parser.add_argument("--compressor", default="none", metavar="NAME", help="cnn, none, or a file of weights")
    parser.add_argument("--contexts", default="none,left,resend", help="contexts of the part without noise")
    add_decoder_options(parser)
    parser.add_argument("--seed", type=int, default=0)


def snr_range(text: str) -> list[float]:
    """`LOW:STEP:HIGH` → the values, both ends included."""
    try:
        low, step, high = (float(part) for part in text.split(":"))
    except ValueError:
        raise InputError(f"The SNR range is LOW:STEP:HIGH in dB, not {text!r}.") from None
    if not (step > 0 and -40 <= low <= high <= 80):
        raise InputError(f"The SNR range {text!r} should rise, in steps above 0, within -40 and 80 dB.")
    return [low + i * step for i in range(int((high - low) / step + 1e-9) + 1)]


def snr_at_share(snr: list[float], score: list[float], share: float = 0.95) -> float | None:
    """The SNR at which a rising curve reaches a share of its highest value, by linear interpolation."""
    goal = share * max(score)
    for i, value in enumerate(score):
        if value >= goal:
            if i == 0:
                return snr[0]
            return snr[i - 1] + (goal - score[i - 1]) / (value - score[i - 1]) * (snr[i] - snr[i - 1])
    return None


def run(args: argparse.Namespace) -> int:
    """Measures what is not measured yet, then draws."""
    from semaphone.translation.corpora import load_pairs
    from semaphone.translation.models.whisper import WhisperConfig

    pairs = load_pairs(args.data, args.source, "eng", limit=args.limit)
    lines = Measured(args.out / "results.jsonl", KEY, _settings(args))
    config = WhisperConfig(source=args.source, compressor=args.compressor, doubt=args.doubt, beam=args.beam)
    _without_noise(pairs, lines, config, [c for c in args.contexts.split(",") if c])
    _over_snr(pairs, lines, config, args)
    draw_results(lines, args.out)
    print(f"{len(list(lines))} results in {lines.path}, figures and page in {args.out}")
    return 0


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    from semaphone.experiments.digests import digest_of
    from semaphone.translation.channel_code import load_code

    settings = {name: getattr(args, name) for name in SETTINGS}
    return {**settings, "code": digest_of(load_code(args.code_weights))}


def _without_noise(pairs: list[Pair], lines: Measured, config: WhisperConfig, contexts: list[str]) -> None:
    from semaphone.audio import read_audio
    from semaphone.translation.chain import Chain
    from semaphone.translation.models.whisper import WhisperTranslator

    for context in ["offline", *contexts]:
        model = WhisperTranslator(replace(config, context="left" if context == "offline" else context))
        chain = Chain(model, speak=False)
        for pair in pairs:
            place = {"part": "no noise", "system": context, "fading": "", "snr": None, "file": pair.file.name}
            if lines.get(**place):
                continue
            speech = read_audio(pair.file, 16_000)
            if context == "offline":
                text = model.translate_whole(speech)
            else:
                text = chain.run([speech]).text
            lines.add({**place, "text": text, "reference": pair.reference})
        print(f"no noise, {context}: chrF {_score(lines, 'no noise', context, '', None):.1f}", flush=True)


def _bursts(model: WhisperTranslator, pair: Pair) -> list[Burst]:
    """What the near edge sends for a recording."""
    from semaphone.audio import read_audio
    from semaphone.translation.device import SpeakingDevice

    device = SpeakingDevice(model)
    uploads, state = device.step(read_audio(pair.file, 16_000), device.start())
    last, _ = device.finish(state)
    bursts: list[Burst] = []
    carried = None
    for upload in uploads + last:
        more, carried = model.extract(upload, carried)
        bursts += more
    return bursts


def _over_snr(pairs: list[Pair], lines: Measured, config: WhisperConfig, args: argparse.Namespace) -> None:
    from semaphone.channel.fading import FadingChannel
    from semaphone.translation.models.whisper import WhisperTranslator
    from semaphone.translation.radio import Radio, make_radio

    model = WhisperTranslator(replace(config, context="left", commit="end"))
    sent: dict[str, list[Burst]] = {}
    points: list[tuple[str, str, float | None]] = [("ceiling", "", None)]
    # The middle of the curves first: an interrupted run already shows their shape.
    middle_out = sorted(snr_range(args.snr), key=lambda snr: abs(snr - 1.0))
    points += [(c, f, snr) for snr in middle_out for f in args.fading.split(",") for c in args.codes.split(",") if c]
    for code, fading, snr in points:
        radio = Radio() if snr is None else make_radio(code, FadingChannel(fading, snr), args.code_weights, args.times)
        for pair in pairs:
            place = {"part": "noise", "system": code, "fading": fading, "snr": snr, "file": pair.file.name}
            if lines.get(**place):
                continue
            if pair.file.name not in sent:
                sent[pair.file.name] = _bursts(model, pair)
            text, error, symbols = _carry(model, radio, sent[pair.file.name], args.seed)
            figures = {"text": text, "reference": pair.reference, "row_error": error, "symbols": symbols}
            lines.add({**place, **figures})
        print(f"{code} {fading} {snr}: chrF {_score(lines, 'noise', code, fading, snr):.1f}", flush=True)


def _carry(model: WhisperTranslator, radio: Any, bursts: Iterable[Burst], seed: int) -> tuple[str, float, int]:
    """Text of bursts that crossed the radio, mean squared error of their rows (eq 6), symbols used."""
    radio_state, carried, texts = radio.start(seed), None, []
    squares = count = 0.0
    for burst in bursts:
        rows, radio_state = radio.carry(burst.rows, radio_state)
        squares += float(((rows - burst.rows) ** 2).sum())
        count += rows.size
        phrases, carried = model.generate(replace(burst, rows=rows), carried)
        texts += [phrase.text.strip() for phrase in phrases]
    return " ".join(texts), squares / max(1.0, count), radio_state.symbols


def _score(lines: Iterable[dict[str, Any]], part: str, system: str, fading: str, snr: float | None) -> float:
    from semaphone.metrics.translation import chrf

    wanted = {"part": part, "system": system, "fading": fading, "snr": snr}
    found = [line for line in lines if all(line[k] == v for k, v in wanted.items())]
    if not found:
        return float("nan")
    return chrf([line["text"] for line in found], [line["reference"] for line in found])


def common(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines of those recordings that every place has been measured on."""
    found = list(lines)
    files: dict[tuple[Any, ...], set[str]] = {}
    for line in found:
        files.setdefault(tuple(line[name] for name in KEY[:-1]), set()).add(line["file"])
    shared = set.intersection(*files.values()) if files else set()
    return [line for line in found if line["file"] in shared]


def scores(lines: Iterable[dict[str, Any]]) -> dict[tuple[str, str], tuple[list[float], list[float]]]:
    """(code, fading) → SNRs and chrF, from result lines."""
    lines = list(lines)
    curves: dict[tuple[str, str], tuple[list[float], list[float]]] = {}
    places = {(x["system"], x["fading"], x["snr"]) for x in lines if x["part"] == "noise" and x["snr"] is not None}
    for code, fading, snr in sorted(places):
        x, y = curves.setdefault((code, fading), ([], []))
        x.append(snr)
        y.append(_score(lines, "noise", code, fading, snr))
    return curves


def differences(lines: Iterable[dict[str, Any]], ours: str, theirs: str, fading: str) -> list[tuple[float, Interval]]:
    """By SNR, chrF of one code less that of another: mean over recordings, sentence by sentence, 95 % interval."""
    from semaphone.metrics.bootstrap import paired_difference
    from semaphone.metrics.translation import sentence_chrf

    texts: dict[float, dict[str, dict[str, float]]] = {}
    for line in lines:
        if line["part"] == "noise" and line["fading"] == fading and line["system"] in (ours, theirs):
            score = sentence_chrf(line["text"], line["reference"])
            texts.setdefault(line["snr"], {}).setdefault(line["system"], {})[line["file"]] = score
    found = []
    for snr, systems in sorted(texts.items()):
        files = sorted(set(systems.get(ours, {})) & set(systems.get(theirs, {})))
        if files:
            a, b = ([systems[name][file] for file in files] for name in (ours, theirs))
            found.append((snr, paired_difference(a, b, np.random.default_rng(0))))
    return found


def draw_results(lines: Iterable[dict[str, Any]], out: Path) -> None:
    """Figures and page from result lines; only recordings that every system has are compared."""
    from semaphone.experiments.page import Curve, draw, paragraph, save, table, write_page

    lines = common(lines)
    curves = scores(lines)
    contexts = sorted({x["system"] for x in lines if x["part"] == "no noise"})
    head = [(c, _score(lines, "no noise", c, "", None)) for c in contexts]
    parts = [paragraph("chrF without noise, words committed as they become certain:"), table(["context", "chrF"], head)]
    ceiling = _score(lines, "noise", "ceiling", "", None)
    parts.append(paragraph(f"Rows without noise, translated when the utterance ends: chrF {ceiling:.2f}"))
    for fading in sorted({fading for _, fading in curves}):
        chosen = {code: curve for (code, kind), curve in curves.items() if kind == fading}
        snrs = sorted({snr for x, _ in chosen.values() for snr in x})
        drawn = [Curve(c, x, y) for c, (x, y) in chosen.items()]
        if not math.isnan(ceiling):
            drawn.append(Curve("no noise", [snrs[0], snrs[-1]], [ceiling, ceiling], "k--"))
        figure = draw(drawn, f"Translation over {TITLES.get(fading, fading)}", "SNR (dB)", "chrF")
        parts.append(save(figure, out, f"quality-{fading}"))
        rows = [[snr, *(dict(zip(x, y, strict=True)).get(snr, "") for x, y in chosen.values())] for snr in snrs]
        parts.append(table(["SNR (dB)", *chosen], rows))
        for rival in sorted(set(chosen) - {"trained"}) if "trained" in chosen else ():
            apart = [
                [snr, f"{d.mean:+.1f}", f"{d.low:+.1f} to {d.high:+.1f}"]
                for snr, d in differences(lines, "trained", rival, fading)
            ]
            parts.append(paragraph(f"trained less {rival}, chrF of sentences, paired, and 95 % intervals:"))
            parts.append(table(["SNR (dB)", "difference", "95 % interval"], apart))
        marks = [[code, snr_at_share(x, y)] for code, (x, y) in chosen.items()]
        if fading in PAPER_SNR_95:
            marks.append(["the paper's BLASER 2.0, fra-eng", PAPER_SNR_95[fading]])
        parts.append(table(["SNR at 95 % of the ceiling", "dB"], marks))
    write_page(out / "index.html", "Quality of translation over SNR", parts)
