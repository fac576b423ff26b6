"""Options that the commands of the link share, and what they stand for."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from semaphone.errors import InputError

if TYPE_CHECKING:
    from semaphone.codec.base import Codec, CodecInfo
    from semaphone.controller.base import Controller
    from semaphone.packet.format import PacketFormat
    from semaphone.recovery.base import Recovery

CODEBOOKS, COPIES = 8, 2  # of the fixed controller, where the user names none


def whole(text: str) -> int:
    """A whole number, 0 or more, of an option."""
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 on")
    return int(text)


def add_sender_options(parser: argparse.ArgumentParser) -> None:
    """Codec, controller and packets."""
    parser.add_argument("--codec", default="nano", help="nano, mimi, mimi:FOLDER or a file of nano weights")
    parser.add_argument("--controller", choices=["fixed"], default="fixed", help="what decides how much is sent")
    parser.add_argument("--codebooks", type=whole, metavar="S", help=f"tokens sent of each chunk (default {CODEBOOKS})")
    parser.add_argument("--copies", type=whole, metavar="C", help="how many of them, from the first, are sent twice")
    parser.add_argument(
        "--schedule",
        default="split",
        help="split (two interleaved packets a block, the default), block, bundle:80ms, bundle:160ms, bundle:320ms",
    )


def add_recovery_option(parser: argparse.ArgumentParser) -> None:
    """What fills the gaps."""
    parser.add_argument(
        "--recovery", default="hold", help="what stands in for lost tokens: hold (default), none, or a file of weights"
    )


def fixed_controller(args: argparse.Namespace, info: CodecInfo) -> Controller:
    """The controller that the options ask for. Raises InputError if they do not fit the codec."""
    from semaphone.controller.base import FixedController

    codebooks = min(CODEBOOKS, info.num_codebooks) if args.codebooks is None else args.codebooks
    copies = min(COPIES, codebooks) if args.copies is None else args.copies
    if not 1 <= codebooks <= info.num_codebooks:
        raise InputError(f"The codec {info.name} has 1 to {info.num_codebooks} codebooks, not {codebooks}.")
    if copies > codebooks:
        raise InputError(f"Only tokens that are sent can be copied: {copies} copies do not go with {codebooks} tokens.")
    return FixedController(codebooks, copies)


def packet_format(args: argparse.Namespace, info: CodecInfo) -> PacketFormat:
    """The packets that the options ask for."""
    from semaphone.packet.format import PacketFormat

    return PacketFormat.named(args.schedule, info.num_codebooks, info.codebook_size, frame_rate=info.frame_rate)


def one_thread() -> None:
    """Models as small as ours run faster on one core than on two that wait for each other at every layer.

    And silence makes denormal numbers, which make a core several times slower: they become zeros. Both hold for the
    whole process, which is why a command asks for them and not the codec.
    """
    import torch

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


def codec_of(args: argparse.Namespace) -> Codec:
    """The codec that the options ask for."""
    from semaphone.codec.registry import load_codec

    if args.codec == "nano" or args.codec.endswith(".safetensors"):
        one_thread()
    return load_codec(args.codec)


def recovery_of(args: argparse.Namespace, info: CodecInfo) -> Recovery:
    """The recovery that the options ask for."""
    from semaphone.recovery.registry import load_recovery

    return load_recovery(args.recovery, info)


def describe_controller(controller: Controller) -> str:
    """As it stands in reports."""
    from semaphone.controller.base import FixedController

    if isinstance(controller, FixedController):
        return f"fixed, {controller.codebooks} codebooks, {controller.copies} copies"
    return type(controller).__name__


def suffix(path: str) -> str:
    """The ending of a file name, in small letters and without its dot."""
    from pathlib import Path

    return Path(path).suffix[1:].lower()


def check_targets(source: str, *targets: str | None) -> None:
    """Raises InputError if two targets, or a target and the source, are the same file."""
    from pathlib import Path

    seen = {Path(source).resolve()} if source != "-" else set()
    for target in targets:
        if target is None or target == "-" or (Path(target).exists() and not Path(target).is_file()):
            continue
        if Path(target).resolve() in seen:
            raise InputError(f"{target} is named twice; input and outputs must be different files.")
        seen.add(Path(target).resolve())


def check_picture(path: str | None) -> None:
    """Raises InputError if a picture's suffix is of no known format."""
    from semaphone.link.plot import KINDS

    if path is not None and suffix(path) not in KINDS:
        raise InputError(f"{path} should end in {', '.join('.' + kind for kind in KINDS)}, the formats of a picture.")
