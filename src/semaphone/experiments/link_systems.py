"""Our link in the settings that experiments compare: rates, controllers, recoveries."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from semaphone.commands import _history
from semaphone.errors import InputError, SemaphoneError
from semaphone.experiments import options
from semaphone.experiments.systems import LinkSystem, codec_named, form_named

if TYPE_CHECKING:
    from semaphone.codec.base import CodecInfo
    from semaphone.controller.base import Mask

CONTROLLERS = ("fixed", "adaptive")


def info_of(args: argparse.Namespace) -> CodecInfo:
    """The facts of the codec that is asked for."""
    return codec_named(args.codec).info


def _packets(args: argparse.Namespace) -> dict[str, Any]:
    """How packets are made, as `LinkSystem` takes it."""
    return {
        "schedule": args.schedule,
        "spacing": options.spacing_of(args),
        "horizon": options.horizon_of(args, info_of(args).frame_rate),
        "wait": _history.wait_of(args),
    }


def token_kbps(info: CodecInfo, transmissions: int) -> float:
    """kbit/s of so many tokens a chunk."""
    return transmissions * info.bits_per_token * info.frame_rate / 1000


def payload_bps(args: argparse.Namespace, mask: Mask) -> float:
    """bit/s of payload of a talk in which every chunk has this mask: tokens, table of contents, whole bytes."""
    form = form_named(args.codec, args.schedule, horizon=options.horizon_of(args, info_of(args).frame_rate))
    block, copied = [mask] * form.chunks_per_block, [mask] * form.riders
    return 8 * sum(form.sizes(block, copied)) / form.block_duration


def controllers_of(args: argparse.Namespace) -> list[str]:
    """The controllers that are asked for, or all that are there (for a quick look the fixed one).

    Raises InputError for one that is not there.
    """
    if args.controllers is None:
        quick = args.quick or args.schedule == "history"  # whose horizon only fixed masks use
        return ["fixed"] + (["adaptive"] if not quick and not why_no_adaptive(args) else [])
    names = [name for name in args.controllers.split(",") if name]
    for name in names:
        if name not in CONTROLLERS:
            raise InputError(f"Controllers are {' and '.join(CONTROLLERS)}, not {name!r}.")
        if name == "adaptive" and (reason := why_no_adaptive(args)):
            raise InputError(reason)
    return names


def why_no_adaptive(args: argparse.Namespace) -> str:
    """What keeps the adaptive controller from being used; "" if nothing does."""
    from semaphone.channel.erasure import parse_channel

    try:
        adaptive(args, "hold", 1500.0).link(parse_channel("none"))
    except SemaphoneError as error:
        return str(error)
    return ""


def adaptive(args: argparse.Namespace, recovery: str, bitrate: float | None, name: str = "") -> LinkSystem:
    """The link with the adaptive controller at an average payload in bit/s; None: `matched` will find its L.

    At a bit rate pauses are not sent unless the options say so.
    """
    from semaphone.controller.registry import ControllerSpec
    from semaphone.link.feedback import Feedback

    codec = info_of(args).name
    name = name or f"{codec} adaptive {(bitrate or 0) / 1000:.2f} kbit/s"
    spec = ControllerSpec(args.adaptive, bitrate=bitrate)
    told = Feedback(args.feedback)
    dtx = bitrate is not None if args.dtx is None else args.dtx
    family = f"{codec} adaptive"
    return LinkSystem(name, family, args.codec, recovery, spec, feedback=told, dtx=dtx, **_packets(args))


def fixed(args: argparse.Namespace, recovery: str, mask: Mask, name: str, family: str = "") -> LinkSystem:
    """The link with the same mask for every chunk."""
    from semaphone.controller.registry import ControllerSpec

    spec = ControllerSpec("fixed", mask.sent, mask.twice)
    return LinkSystem(name, family or info_of(args).name, args.codec, recovery, spec, **_packets(args))


def history(args: argparse.Namespace, recovery: str, lengths: tuple[int, ...], name: str = "") -> LinkSystem:
    """The link with a history of these lengths, the newest chunk's first."""
    from semaphone.controller.registry import ControllerSpec

    spec = ControllerSpec("fixed", history=lengths)
    codec = info_of(args).name
    name = name or f"{codec} history {_history.written(lengths)}"
    packets = {**_packets(args), "schedule": "history", "horizon": len(lengths) - 1}
    return LinkSystem(name, f"{codec} history", args.codec, recovery, spec, **packets)


def told(args: argparse.Namespace, recovery: str, transmissions: int, name: str) -> LinkSystem:
    """The link with so many transmissions a chunk, as codebooks and copies that suit the channel, told beforehand."""
    from semaphone.controller.registry import ControllerSpec

    spec = ControllerSpec("fixed")
    return LinkSystem(name, info_of(args).name, args.codec, recovery, spec, transmissions, **_packets(args))


def at_rates(args: argparse.Namespace, transmissions: Sequence[int], recovery: str) -> list[LinkSystem]:
    """The link with so many transmissions a chunk, or the same payload, with each controller that is asked for.

    A history by its lengths takes the place of the rates.
    """
    from semaphone.controller.base import Mask

    if args.history is not None:
        _history.check_schedule(args)
        return [history(args, recovery, _history.parse_lengths(text)) for text in args.history.split("/")]
    info = info_of(args)
    found: list[LinkSystem] = []
    for kind in controllers_of(args):
        for number in transmissions:
            if number > 2 * info.num_codebooks:
                continue
            name = f"{info.name} {token_kbps(info, number):.2f} kbit/s"
            if kind == "fixed":
                found.append(told(args, recovery, number, name))
            else:
                mask = Mask(min(number, info.num_codebooks), max(0, number - info.num_codebooks))
                name = f"{info.name} adaptive {token_kbps(info, number):.2f} kbit/s"
                found.append(adaptive(args, recovery, payload_bps(args, mask), name))
    return found
