"""Options that the commands of the link share, and what they stand for."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semaphone.commands import _history
from semaphone.errors import InputError
from semaphone.packet.format import USUAL

if TYPE_CHECKING:
    from semaphone.codec.base import Codec, CodecInfo
    from semaphone.controller.base import Controller
    from semaphone.controller.registry import ControllerSpec
    from semaphone.files import Holds
    from semaphone.packet.format import PacketFormat
    from semaphone.recovery.base import Recovery


def add_device(parser: argparse.ArgumentParser) -> None:
    """Adds --device and --precision of a training."""
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto (default), cpu, cuda or cuda:N")
    parser.add_argument("--precision", choices=["float32", "bf16"], help="of matrix products (default: bf16)")


def whole(text: str) -> int:
    """A whole number, 0 or more, of an option."""
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 on")
    return int(text)


def share(text: str) -> float:
    """A number from 0 to 1 of an option."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no share from 0 to 1")
    return value


def add_input_options(parser: argparse.ArgumentParser) -> None:
    """How the recording is read."""
    parser.add_argument(
        "--mix",
        type=mix,
        default="mean",
        metavar="N",
        help="which of several channels: mean of all (default), left, right, or its number from 1 on",
    )

    parser.add_argument("--stdin-rate", type=whole, metavar="HZ", help="sample rate of raw PCM on standard input")


def mix(text: str) -> str | int:
    """A channel of an option."""
    named: dict[str, str | int] = {"mean": "mean", "left": 1, "right": 2}
    if text in named:
        return named[text]
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:4]) <= 999 and len(text) < 4):
        raise argparse.ArgumentTypeError(f"{text!r} is not mean, left, right or the number of a channel from 1 on")
    return int(text)


def reading(args: argparse.Namespace, *inputs: str, stdin_rate: int = 16000) -> dict[str, Any]:
    """What the options of `add_input_options` mean to `read_blocks` and `read_audio`.

    Raises InputError if a rate is given where nothing has to be told.
    """
    if args.stdin_rate is not None and "-" not in inputs:
        raise InputError("--stdin-rate goes with - as input: a file says itself what its rate is.")
    rate = stdin_rate if args.stdin_rate is None else args.stdin_rate
    return {"stdin_rate": rate, "channel": None if args.mix == "mean" else args.mix}


def live_input(*inputs: str) -> None:
    """Where input is standard input without an end of its own, a signal ends it from now on, and not the command."""
    import sys

    from semaphone.streams import standard_input

    if "-" in inputs and sys.stdin is not None:
        standard_input()


def add_sender_options(parser: argparse.ArgumentParser) -> None:
    """Codec, controller and packets."""
    parser.add_argument("--codec", default="nano", help="nano, mimi, mimi:FOLDER or a file of nano weights")
    parser.add_argument(
        "--controller",
        metavar="NAME",
        help="what decides how much is sent: adaptive (default, if there are weights for the codec), budget, fixed, or "
        "a file of weights",
    )
    parser.add_argument(
        "--bitrate",
        type=whole,
        metavar="BPS",
        help="payload of a talk: on average with adaptive, at the most with budget (default 1500)",
    )
    parser.add_argument("--level", type=_level, metavar="L", help="adaptive: L of eq 5 itself, in place of --bitrate")
    parser.add_argument("--codebooks", type=whole, metavar="S", help="fixed: tokens sent of each chunk (default 8)")
    parser.add_argument("--copies", type=whole, metavar="C", help="fixed: of them so many go twice (default 2)")
    parser.add_argument(
        "--constant-rate",
        action="store_true",
        help="packets of one size, and no pauses: a rate that follows the words leaks them (RFC 6562)",
    )
    parser.add_argument(
        "--dtx",
        action=argparse.BooleanOptionalAction,
        help="do not send pauses (default with an adaptive controller)",
    )
    parser.add_argument(
        "--schedule",
        default=USUAL,
        help="sliding (a packet a chunk, with half of it and half of the one before, the default), split (two "
        "interleaved packets for two chunks at a time), block, bundle:80ms, bundle:160ms, bundle:320ms, history (a "
        "packet a chunk, with the beginnings of those before)",
    )
    parser.add_argument(
        "--spacing",
        default="0ms",
        metavar="TIME",
        help="split: the second packet of a block leaves so much later, and a burst seldom takes both (default 0ms)",
    )


def add_recovery_option(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """What fills the gaps; without a default, the language model where there are weights for the codec."""
    usual = "lm where there are weights for the codec" if default is None else default
    parser.add_argument(
        "--recovery",
        default=default,
        help="what stands in for lost tokens: lm (a language model), hold, none, or a file of weights "
        f"(default: {usual})",
    )


def _level(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is no rate above 0")
    return value


def controller_spec(args: argparse.Namespace, info: CodecInfo) -> ControllerSpec:
    """The controller that the options ask for, with nothing left open. Raises InputError if they contradict."""
    from semaphone.controller.registry import ControllerSpec, decided

    if args.constant_rate and args.dtx:
        raise InputError("A constant rate goes on in pauses: --constant-rate and --dtx do not go together.")
    spec = ControllerSpec(args.controller, args.codebooks, args.copies, args.bitrate, args.level, args.constant_rate)
    return decided(_history.with_lengths(spec, args, info), info)


def sender(
    args: argparse.Namespace, info: CodecInfo, loss_report: bool = False
) -> tuple[Controller, PacketFormat, bool]:
    """Controller and packets that the options ask for, and whether pauses are left out.

    Raises InputError if the options do not fit the codec or each other.
    """
    from semaphone.call.address import parse_duration
    from semaphone.controller.registry import load_controller, padded
    from semaphone.packet.format import PacketFormat

    spec = controller_spec(args, info)
    form = PacketFormat.named(
        args.schedule,
        info.num_codebooks,
        info.codebook_size,
        frame_rate=info.frame_rate,
        spacing=parse_duration(args.spacing),
        loss_report=loss_report,
        **_history.horizon(args, spec),
    )
    form = padded(spec, info, form)
    dtx = spec.pauses if args.dtx is None else args.dtx
    return load_controller(spec, info, form), form, dtx


def one_thread() -> None:
    """Models as small as ours run faster on one core than on two that wait for each other at every layer.

    And silence makes denormal numbers, which make a core several times slower: they become zeros. A model sees to both
    while it computes (computing.py); here they hold for the whole process, so that nothing has to be set back.
    """
    import torch

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


def settle() -> None:
    """Everything is loaded and stays: the garbage collector need not look at it again.

    It would do so every few seconds, and half a million objects of the libraries take it a fifth of a second, in which
    nobody hears anything.
    """
    import gc

    gc.collect()
    gc.freeze()


def codec_of(args: argparse.Namespace) -> Codec:
    """The codec that the options ask for."""
    from semaphone.codec.registry import load_codec

    if args.codec == "nano" or args.codec.endswith(".safetensors"):
        one_thread()
    return load_codec(args.codec)


def recovery_name(args: argparse.Namespace, info: CodecInfo) -> str:
    """The recovery that the options ask for, by name."""
    from semaphone.recovery.registry import default_recovery

    return str(args.recovery or default_recovery(info))


def recovery_of(args: argparse.Namespace, info: CodecInfo) -> Recovery:
    """The recovery that the options ask for."""
    from semaphone.recovery.registry import load_recovery

    return load_recovery(recovery_name(args, info), info)


def suffix(path: str) -> str:
    """The ending of a file name, in small letters and without its dot."""
    return Path(path).suffix[1:].lower()


# What a command writes: the suffixes that it may have, and what `replacing` is to spare.
_OUTPUTS: dict[str, tuple[tuple[str, ...], Holds]] = {
    "speech": ((".wav", ".flac"), "audio"),
    "stream": ((".sph", ""), "stream"),
    "report": ((".json", ""), "other"),
    "log": ((".jsonl", ".json", ".log", ".txt", ""), "other"),
    "picture": ((".png", ".svg", ".pdf"), "other"),
}


def check_outputs(source: str | None, **outputs: str | Path | None) -> None:
    """Raises InputError for outputs that will not be written as asked: before anything else is done.

    They are named by what they are: `speech`, `stream`, `report`, `log`, `picture`. Each must have a suffix of its
    kind and be writable, must not be a recording that something else would replace, and no file may be named twice.
    """
    from semaphone.files import check_target

    check_targets(source, *outputs.values())
    for kind, path in outputs.items():
        if path is None or str(path) == "-" or _is_device(path):
            continue
        suffixes, holds = _OUTPUTS[kind]
        if Path(path).suffix.lower() not in suffixes:
            named = [suffix for suffix in suffixes if suffix]
            raise InputError(f"{path} should end in {' or '.join(named)}, as a {kind} does.")
        check_target(path, holds)


def check_targets(source: str | Path | None, *targets: str | Path | None) -> None:
    """Raises InputError if two targets, or a target and the source, are the same file, however they are written."""
    seen = set() if source is None or str(source) == "-" else _identities(source)
    for target in targets:
        if target is None or str(target) == "-" or _is_device(target):
            continue
        if seen & _identities(target):
            raise InputError(f"{target} is named twice; input and outputs must be different files.")
        seen |= _identities(target)


def _is_device(path: str | Path) -> bool:
    """A device or pipe takes what it is given, several times, too."""
    import stat

    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _identities(path: str | Path) -> set[object]:
    """What tells a file from others: where it is, and, if it exists, its number on its disk."""
    found: set[object] = {os.path.realpath(path)}
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return found
    return found | {(status.st_dev, status.st_ino)}


def check_picture(path: str | None) -> None:
    """Raises InputError if a picture's suffix is of no known format."""
    from semaphone.link.plot import KINDS

    if path is not None and suffix(path) not in KINDS:
        raise InputError(f"{path} should end in {', '.join('.' + kind for kind in KINDS)}, the formats of a picture.")
