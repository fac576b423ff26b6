"""`semaphone train channel-code` and `semaphone train compressor`: the learned parts of the translation chain."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any


def register(parts: Any) -> None:
    """Adds both to `semaphone train`."""
    code = parts.add_parser("channel-code", help="the code that carries features across a fading channel (eq 6)")
    accept_negative_ranges(code)
    _common(code, steps=2500)
    code.add_argument("--model", default="whisper", choices=["whisper"], help="whose rows it carries")
    code.add_argument("--fading", default="awgn,rayleigh,rician", help="kinds of channel, with commas")
    code.add_argument("--snr", default="-11:19", metavar="LOW:HIGH", help="dB")
    code.add_argument("--symbols", type=int, default=256, help="complex symbols a row")
    code.add_argument("--hidden", type=int, default=1024, help="width of the dense layers")
    code.add_argument("--rows-around", type=int, default=2, help="rows before and after that the decoder sees")
    code.add_argument("--block", type=int, default=48, help="rows that its linear part takes together, at most")
    code.add_argument("--printed", action="store_true", help="Table I as printed: no activation, no linear part")
    code.set_defaults(run=run_code)
    compressor = parts.add_parser("compressor", help="the speech compressor of a translating device (eq 1)")
    _common(compressor, steps=600)
    compressor.set_defaults(run=run_compressor)


def accept_negative_ranges(parser: argparse.ArgumentParser) -> None:
    """Lets `--snr -11:19` be a value: argparse takes what starts with a minus for an option unless it is a number."""
    parser._negative_number_matcher = re.compile(r"^-\d[-\d.:,]*$")


def _common(parser: argparse.ArgumentParser, steps: int) -> None:
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="recordings; subfolders are groups")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="caches and checkpoints")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="weights to write, .safetensors")
    parser.add_argument("--weights", default="", metavar="DIR", help="another CTranslate2 Whisper of base size")
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--seed", type=int, default=0)


def _say(text: str) -> None:
    print(text, flush=True)


def run_code(args: argparse.Namespace) -> int:
    """Trains the channel code."""
    from semaphone.errors import InputError
    from semaphone.training.channel_code import CodeTraining, run
    from semaphone.translation.channel_code import ChannelCodeConfig

    try:
        low, high = (float(part) for part in args.snr.split(":"))
    except ValueError:
        raise InputError(f"The SNR range is LOW:HIGH in dB, not {args.snr!r}.") from None
    settings = CodeTraining(
        steps=args.steps, lowest=low, highest=high, fading=tuple(args.fading.split(",")), seed=args.seed
    )
    config = ChannelCodeConfig(
        symbols=args.symbols,
        hidden=args.hidden,
        context=args.rows_around,
        block=args.block,
        activation="none" if args.printed else "relu",
        linear=not args.printed,
    )
    run(args.data, args.work, args.out, config, settings, _say, args.weights)
    return 0


def run_compressor(args: argparse.Namespace) -> int:
    """Trains the compressor."""
    from semaphone.training.compressor import CompressorTraining, run

    settings = CompressorTraining(steps=args.steps, seed=args.seed, warm_steps=args.steps // 2)
    run(args.data, args.work, args.out, settings, _say, args.weights)
    return 0
