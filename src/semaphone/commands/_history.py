"""Options of the schedule `history`, and how long a receiver waits."""

from __future__ import annotations

import argparse
import itertools
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from semaphone.errors import InputError
from semaphone.packet.format import FARTHEST, HORIZON

if TYPE_CHECKING:
    from semaphone.codec.base import CodecInfo
    from semaphone.controller.registry import ControllerSpec

EXAMPLE = "8,8,4,4 or 8x2,4x2"


def add_options(parser: argparse.ArgumentParser) -> None:
    """What rides along in later packets."""
    parser.add_argument(
        "--horizon",
        metavar="N",
        help="history: so many later packets, or packets within that time, carry the first --copies tokens of a chunk "
        f"again, or all of --codebooks (default {HORIZON})",
    )
    parser.add_argument(
        "--history",
        metavar="S0,S1,...",
        help="history: the first S0 tokens of a chunk ride in its own packet, the first S1 in the next one, and so on, "
        f"such as {EXAMPLE} (in place of --codebooks, --copies and --horizon)",
    )


def add_wait_option(parser: argparse.ArgumentParser) -> None:
    """Adds --wait."""
    parser.add_argument(
        "--wait",
        metavar="TIME",
        help="a chunk is played so long after its own packet could have come, with what is there by then (default: "
        "when the last packet that carries some of it could have come; 0ms: at once)",
    )


def wait_of(args: argparse.Namespace) -> float | None:
    """--wait in s; None: as long as the packets need."""
    from semaphone.call.address import parse_duration

    return None if args.wait is None else parse_duration(args.wait)


def parse_lengths(text: str) -> tuple[int, ...]:
    """`8,8,4,4` or `8x2,4x2` → (8, 8, 4, 4). Raises InputError."""
    lengths: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"([0-9]{1,2})(?:x([0-9]{1,2}))?", part)
        if found is None:
            raise InputError(f"A history is written like {EXAMPLE}, not {text!r}.")
        lengths += [int(found[1])] * int(found[2] or 1)
    if not 1 <= len(lengths) <= FARTHEST + 1:
        raise InputError(f"A history has 1 to {FARTHEST + 1} lengths, not {len(lengths)}.")
    return tuple(lengths)


def written(lengths: Sequence[int]) -> str:
    """The shortest way to write them: (8, 8, 4, 4) → `8x2,4x2`."""
    runs = ((length, len(list(run))) for length, run in itertools.groupby(lengths))
    return ",".join(f"{length}x{count}" if count > 1 else str(length) for length, count in runs)


def parse_horizon(text: str, frame_rate: float) -> int:
    """Packets, or a duration, → packets that leave within it. Raises InputError."""
    from semaphone.call.address import parse_duration

    plain = text.isascii() and text.isdigit()
    packets = int(text[:9]) if plain else int(parse_duration(text) * frame_rate + 1e-6)
    if not 0 <= packets <= FARTHEST:
        raise InputError(f"The horizon of a history is 0 to {FARTHEST} packets, not {packets}.")
    return packets


def check_schedule(args: argparse.Namespace) -> None:
    """Raises InputError if there are options of a history without one."""
    for name in ("history", "horizon"):
        if args.schedule != "history" and getattr(args, name, None) is not None:
            raise InputError(f"--{name} goes with --schedule history.")


def with_lengths(spec: ControllerSpec, args: argparse.Namespace, info: CodecInfo) -> ControllerSpec:
    """The spec with the lengths of a history, if the fixed controller is to make one. Raises InputError.

    Without a controller or a rate by name, that is who makes it.
    """
    check_schedule(args)
    if args.schedule != "history":
        return spec
    named, reach = getattr(args, "history", None), getattr(args, "horizon", None)
    if named is not None:
        if any(other is not None for other in (spec.codebooks, spec.copies, reach)):
            raise InputError("--history says it all: --codebooks, --copies and --horizon do not go with it.")
        return replace(spec, history=parse_lengths(named))
    if spec.kind not in (None, "fixed") or spec.bitrate is not None or spec.rate is not None:
        if reach is not None:
            raise InputError("Only the fixed controller has a horizon; others make copies for the next packet.")
        return spec
    horizon = HORIZON if reach is None else parse_horizon(reach, info.frame_rate)
    return replace(spec, codebooks=None, copies=None, history=_repeated(spec, info, horizon))


def _repeated(spec: ControllerSpec, info: CodecInfo, horizon: int) -> tuple[int, ...]:
    """All codebooks in a chunk's own packet, and the copies, or all again, in each one within the horizon."""
    from semaphone.controller.registry import CODEBOOKS

    codebooks = min(CODEBOOKS, info.num_codebooks) if spec.codebooks is None else spec.codebooks
    return codebooks, *(codebooks if spec.copies is None else spec.copies,) * horizon


def horizon(args: argparse.Namespace, spec: ControllerSpec) -> dict[str, Any]:
    """The horizon as an option of `PacketFormat.named`: as far as the spec's lengths reach, or to the next packet."""
    if args.schedule != "history":
        return {}
    return {"copy_distance": 1 if spec.history is None else len(spec.history) - 1}
