"""`semaphone translate`: speech in one language → speech in another, across a noisy radio channel (LSSC-ST)."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from semaphone.commands import _link
from semaphone.errors import InputError
from semaphone.files import write_whole

if TYPE_CHECKING:
    from semaphone.channel.fading import FadingChannel
    from semaphone.translation.chain import Chain, Talk
    from semaphone.translation.models.base import TranslationModel
    from semaphone.translation.segmenter import SegmenterConfig


# Mean confidence of a talk below which its translation is probably invented (docs/translation.md).
INVENTED = 0.2
# Options with what they are when they are left out: of the embedded model's decoder, and of a radio with errors.
_DECODER: dict[str, Any] = {"doubt": -1.7, "beam": 5}
_RADIO: dict[str, Any] = {
    "fading": "awgn", "coherence": 1, "pilots": 0, "k_factor": 4.0, "code": "trained", "times": 1, "code_weights": "",
}  # fmt: skip


def add_talk_options(parser: argparse.ArgumentParser) -> None:
    """Options of a talk: languages, model, segments."""
    parser.add_argument("--from", dest="source", default="fra", metavar="LANG", help="language spoken, ISO 639-3 (fra)")
    parser.add_argument("--to", dest="target", default="eng", metavar="LANG", help="language wanted, ISO 639-3 (eng)")
    parser.add_argument("--model", default="whisper", choices=["whisper", "seamless"], help="whisper is embedded")
    parser.add_argument("--weights", default="", metavar="PATH", help="other weights of the model: a folder or hub id")
    parser.add_argument("--segments", default="dynamic", metavar="KIND", help="dynamic (eq 8), fixed, or fixed:SECONDS")
    parser.add_argument("--rule", default="printed", choices=["printed", "text"], help="sign of the slope in eq 8")
    parser.add_argument("--context", choices=["none", "left", "resend"], help="what Whisper's encoder sees (left)")
    parser.add_argument("--compressor", metavar="NAME", help="of Whisper's input: cnn, none, or a file (none)")
    parser.add_argument("--threads", type=int, default=1, help="threads of the model")


def settle_talk_options(args: argparse.Namespace) -> None:
    """Fills in what was left out of the options of a talk; InputError for those that the model would ignore."""
    if args.model == "whisper":
        args.context, args.compressor = args.context or "left", args.compressor or "none"
        return
    given = [f"--{name}" for name in ("context", "compressor") if getattr(args, name) is not None]
    given += [f"--{name}" for name, left_out in _DECODER.items() if getattr(args, name, left_out) != left_out]
    if given:
        raise InputError(
            f"Only Whisper has {' and '.join(given)}: Seamless translates each segment alone, from features of its own."
        )


def add_decoder_options(parser: argparse.ArgumentParser) -> None:
    """Options of who writes the translation."""
    parser.add_argument("--beam", type=int, metavar="N", help="hypotheses that Whisper follows at once (5; 1: greedy)")
    parser.add_argument(
        "--doubt",
        type=float,
        metavar="X",
        help="mean log probability below which Whisper says nothing instead of guessing (-1.7; -100: always says it)",
    )
    parser.set_defaults(**_DECODER)


def add_radio_options(parser: argparse.ArgumentParser) -> None:
    """Options of the radio between the edges."""
    parser.add_argument("--fading", choices=["awgn", "rayleigh", "rician"])
    parser.add_argument("--snr", metavar="DB", help="mean Es/N0 in dB; inf, or none given: a radio without errors")
    parser.add_argument("--coherence", type=int, metavar="N", help="symbols that share one fading gain")
    parser.add_argument("--pilots", type=int, metavar="N", help="pilots a block; 0: the receiver knows h")
    parser.add_argument("--k-factor", type=float, help="of Rician fading")
    parser.add_argument("--code", choices=["trained", "analogue", "digital", "none"])
    parser.add_argument("--times", type=int, metavar="N", help="send every symbol N times (trained, analogue)")
    parser.add_argument("--code-weights", metavar="FILE", help="another trained channel code")
    parser.add_argument("--seed", type=int, default=0, help="of the channel")
    parser.set_defaults(**_RADIO)


def register(subparsers: Any) -> None:
    """Adds the command."""
    parser = subparsers.add_parser("translate", help="translate speech across a noisy radio channel")
    parser.add_argument("input", help="speech, any audio file")
    parser.add_argument("output", help="translated speech, .wav or .flac")
    _link.add_input_options(parser)
    add_talk_options(parser)
    add_decoder_options(parser)
    add_radio_options(parser)
    parser.add_argument("--report", type=Path, metavar="FILE", help="write all figures as JSON")
    parser.add_argument("--log", type=Path, metavar="FILE", help="write a log that simulstream's scorers read")
    parser.set_defaults(run=run)


def segmenter_config(text: str, rule: str) -> SegmenterConfig:
    """Settings of `--segments` and `--rule`."""
    from semaphone.translation.segmenter import SegmenterConfig

    mode, colon, seconds = text.partition(":")
    if mode == "fixed" and rule != "printed":
        raise InputError("The rule belongs to eq 8, which dynamic segments follow; fixed ones have none.")
    if not colon:
        return SegmenterConfig(mode=mode, rule=rule)
    if mode == "dynamic":
        raise InputError(f"Dynamic segments take their lengths from eq 8; fixed:{seconds} sets a length.")
    try:
        return SegmenterConfig(mode=mode, rule=rule, first=float(seconds))
    except ValueError:
        raise InputError(f"The length of a segment must be a number of seconds, not {seconds!r}.") from None


def build_model(args: argparse.Namespace) -> TranslationModel:
    """The model that the options name."""
    settle_talk_options(args)
    if args.model == "seamless":
        from semaphone.translation.models.seamless import SeamlessConfig, SeamlessTranslator

        return SeamlessTranslator(SeamlessConfig(args.source, args.target, args.weights, args.threads))
    from semaphone.translation.models.whisper import WhisperConfig, WhisperTranslator

    return WhisperTranslator(
        WhisperConfig(
            args.source,
            args.target,
            args.context,
            args.compressor,
            doubt=args.doubt,
            beam=args.beam,
            threads=args.threads,
            weights=args.weights,
        )
    )


def build_channel(args: argparse.Namespace) -> FadingChannel | None:
    """The channel that the options name; None for a radio without errors. Options must not be without effect."""
    from semaphone.channel.fading import FadingChannel
    from semaphone.translation.radio import parse_snr

    snr = parse_snr(args.snr or "inf")
    changed = [name for name, plain in _RADIO.items() if getattr(args, name) != plain]
    given = " and ".join(f"--{name.replace('_', '-')}" for name in changed)
    if snr == math.inf:
        if given and args.snr is None:
            raise InputError(f"Without --snr the radio has no errors, and {given} would do nothing: give --snr, too.")
        if given:
            warn(f"with --snr inf the radio has no errors, and {given} does nothing")
        return None
    if args.code == "none":
        raise InputError("--code none is a wire without errors, on which --snr would do nothing.")
    if args.k_factor != _RADIO["k_factor"] and args.fading != "rician":
        raise InputError(f"--k-factor is of Rician fading, and would do nothing with --fading {args.fading}.")
    return FadingChannel(args.fading, snr, args.coherence, args.k_factor, args.pilots)


def warn(sentence: str) -> None:
    """Says something on standard error that does not end the command."""
    print(f"semaphone: {sentence}", file=sys.stderr)


def build_chain(args: argparse.Namespace) -> Chain:
    """Everything between the two files."""
    from semaphone.translation.chain import Chain
    from semaphone.translation.radio import check_widths, make_radio

    segments = segmenter_config(args.segments, args.rule)
    radio = make_radio(args.code, build_channel(args), args.code_weights, args.times)
    model = build_model(args)
    check_widths(model.info, radio)
    return Chain(model, radio, segments)


def run(args: argparse.Namespace) -> int:
    """Translates one file."""
    from semaphone.audio import AudioWriter, read_blocks

    _link.live_input(args.input)
    _link.check_outputs(args.input, speech=args.output, report=args.report, log=args.log)
    reading = _link.reading(args, args.input)
    chain = build_chain(args)
    args.snr = args.snr or "inf"  # for the report
    blocks: Iterator[Any] = read_blocks(args.input, 16_000, **reading)
    with AudioWriter(args.output, chain.model.info.sample_rate) as writer:
        talk = chain.run(blocks, args.seed)
        writer.write(talk.speech)
    figures = summary(talk)
    if args.report:
        write_whole(
            args.report, json.dumps({"settings": _settings(args), **figures}, indent=1, ensure_ascii=False) + "\n"
        )
    if args.log:
        from semaphone.metrics.translation import simulstream_log

        steps = [{"audio": s.end, "seconds": sum(s.seconds.values()), "text": s.text} for s in talk.steps]
        write_whole(args.log, "\n".join(simulstream_log([(args.input, steps)])) + "\n")
    # The speech goes to standard output, if anywhere there: what is said of it must not get in between.
    _print(figures, sys.stderr if args.output == "-" else sys.stdout)
    if figures["probably_invented"]:
        advice = "; a higher --snr or more --times would bring more of the speech" if figures["symbols"] else ""
        warn(f"the translation is probably invented: its confidence is only {figures['confidence']:.2f}{advice}")
    return 0


def summary(talk: Talk) -> dict[str, Any]:
    """All figures of a talk, ready for JSON."""
    from semaphone.metrics.latency import report
    from semaphone.translation.chain import STAGES, timed

    steps = talk.steps
    seconds = talk.seconds or math.nan
    spoken = [s for s in steps if not s.silent]
    return {
        "text": talk.text,
        "confidence": talk.confidence,
        "probably_invented": probably_invented(talk),
        "phrases": [
            {"start": s.start, "end": s.end, "text": phrase.text.strip(), "confidence": phrase.confidence}
            for s in steps
            for phrase in s.phrases
        ],
        "seconds": talk.seconds,
        "segments": len(steps),
        "silent_segments": len(steps) - len(spoken),
        "mean_segment_s": sum(s.end - s.start for s in spoken) / len(spoken) if spoken else None,
        "upload_bits_per_s": sum(s.bits for s in steps) / seconds,
        "rows": sum(s.rows for s in steps),
        "symbols": sum(s.symbols for s in steps),
        "symbols_per_s": sum(s.symbols for s in steps) / seconds,
        "latency": _finite(report([timed(talk)]).as_dict()),
        "compute_s": {stage: sum(s.seconds[stage] for s in steps) for stage in STAGES},
        "steps": [
            {
                "start": s.start,
                "end": s.end,
                "silent": s.silent,
                "bits": s.bits,
                "rows": s.rows,
                "symbols": s.symbols,
                "text": s.text,
                "speech_s": s.speech,
                "compute_s": s.seconds,
            }
            for s in steps
        ],
    }


def probably_invented(talk: Talk) -> bool:
    """Was most of a talk's translation written without hearing what was said, as far as its confidence tells?"""
    return talk.confidence is not None and talk.confidence < INVENTED


def _finite(figures: dict[str, float]) -> dict[str, float | None]:
    """JSON has no NaN."""
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    return {name: value for name, value in vars(args).items() if isinstance(value, str | int | float)}


def _print(figures: dict[str, Any], file: TextIO) -> None:
    latency = figures["latency"]
    spoken = figures["segments"] > figures["silent_segments"]
    nothing = "(nothing that could be understood arrived)" if spoken else "(no speech found)"
    lines = [figures["text"] or nothing]
    lines += [_phrase_line(phrase) for phrase in figures["phrases"] if phrase["confidence"] is not None]
    lines.append(
        f"{figures['seconds']:.2f} s of speech in {figures['segments']} segments, {figures['silent_segments']} silent; "
        f"uploaded {figures['upload_bits_per_s'] / 1000:.1f} kbit/s; "
        f"{figures['symbols_per_s']:.0f} symbols/s on the air"
    )
    if latency["average_latency_s"] is not None:
        lines.append(f"average latency (eq 7, input not paced): {latency['average_latency_s']:.2f} s a segment")
    if latency["listener_lag_p50_s"] is not None:
        lines.append(
            f"a listener of the live talk waits {latency['listener_lag_p50_s']:.2f} s (median), "
            f"{latency['listener_lag_p99_s']:.2f} s (p99)"
        )
    print("\n".join(lines), file=file)


def _phrase_line(phrase: dict[str, Any]) -> str:
    """When a phrase was certain, how sure the model is of it, and its text."""
    return f"{phrase['end']:8.2f} s  confidence {phrase['confidence']:.2f}  {phrase['text']}"
