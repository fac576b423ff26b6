"""Lossy channels: which packets never arrive.

    channel = parse_channel("gilbert-elliott:loss=0.2,burst=240ms")
    sampler = channel.sampler(np.random.default_rng(7))
    arrived = [packet for packet in packets if not sampler.lost(packet.send_time)]

| specification | what is lost |
|---|---|
| `none` | nothing |
| `uniform:0.1` | every packet with probability 0.1, independently |
| `gilbert-elliott:loss=0.2,burst=240ms` | everything sent in bursts of 240 ms on average, a fifth of the time |
| `trace:PATH,loop` | what a real network lost: one character (0, 1) for each 5 ms; the seed says where it starts |
| `schedule:0-4s=0,4-8s=0.05` | uniformly, with a loss rate that changes over time; `burst=` makes it come in bursts |

Losses live on the time axis, sampled when a packet is sent, so one seed is the same weather for systems with
different packet rates (see weather.py). Two axes stand beside it: with `per=packet` the n-th packet meets
position n, whenever it is sent, and bursts count packets (`burst=3`); with `per=token` every token has a
position of its own, as in the training of the paper.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from semaphone.channel.models import (
    Axis,
    ErasureChannel,
    ErasureSampler,
    GilbertElliott,
    LossStatistics,
    Phase,
    Schedule,
    Trace,
    Uniform,
    check_axis,
    conditional_loss,
    measure,
    read_trace,
)
from semaphone.errors import InputError
from semaphone.plugins import find

__all__ = [
    "Axis",
    "ErasureChannel",
    "ErasureSampler",
    "GilbertElliott",
    "LossStatistics",
    "Phase",
    "Schedule",
    "Trace",
    "Uniform",
    "conditional_loss",
    "measure",
    "parse_channel",
    "read_trace",
]


def parse_channel(text: str) -> ErasureChannel:
    """A channel from its specification (see the top of this file). Raises InputError saying what is wrong with it."""
    name, _, body = text.strip().partition(":")
    if name not in _PARSERS and (factory := find("channel", name)) is not None:
        made: ErasureChannel = factory(body)
        return made
    if name not in _PARSERS:
        raise InputError(f"The channel {name!r} is not known; there are {', '.join(_PARSERS)}.")
    return _PARSERS[name](body)


def _none(body: str) -> ErasureChannel:
    if body:
        raise InputError(f"The channel none takes no options, but got {body!r}.")
    return Uniform(0.0)


def _uniform(body: str) -> ErasureChannel:
    options = _options("uniform", body if "=" in body.split(",")[0] else f"loss={body}", ("loss", "per"), ("loss",))
    return Uniform(_number("loss", options["loss"]), _axis(options))


def _gilbert_elliott(body: str) -> ErasureChannel:
    known = ("loss", "burst", "bad", "good", "per")
    options = _options("gilbert-elliott", body, known, ("loss", "burst"))
    per = _axis(options)
    burst = _seconds("burst", options["burst"]) if per == "time" else _number("burst", options["burst"])
    states = {name: _number(name, options[name]) for name in ("bad", "good") if name in options}
    return GilbertElliott(_number("loss", options["loss"]), burst, **states, per=per)


def _trace(body: str) -> ErasureChannel:
    # A path may hold commas: options are taken off its end.
    found = re.fullmatch(r"(?P<path>.+?)(?P<rest>(,loop|,offset=\d{1,9}|,per=\w+)*)", body, re.DOTALL)
    if found is None:
        raise InputError("The channel trace needs a file, such as trace:losses.txt.")
    parts = [part for part in found["rest"].split(",") if part]
    options = dict(part.split("=", 1) for part in parts if "=" in part)
    offset = int(options["offset"]) if "offset" in options else None
    return read_trace(found["path"], loop="loop" in parts, offset=offset, per=_axis(options))


def _schedule(body: str) -> ErasureChannel:
    phases: list[Phase] = []
    burst = None
    for part in body.split(","):
        left, _, right = part.partition("=")
        if left == "burst":
            burst = _seconds("burst", right)
            continue
        found = re.fullmatch(r"([0-9.e+-]+?)s?-([0-9.e+-]+)s", left)
        if found is None:
            raise InputError(f"A phase of a schedule is written like 0-4s=0.1, not {part!r}.")
        start, end = (_number("time", time) for time in found.groups())
        expected = phases[-1].end if phases else 0.0
        if start != expected:
            raise InputError(f"The next phase of the schedule should begin at {expected:g} s, not at {start:g} s.")
        phases.append(Phase(end, _number("loss", right)))
    return Schedule(tuple(phases), burst)


_PARSERS: Mapping[str, Callable[[str], ErasureChannel]] = {
    "none": _none,
    "uniform": _uniform,
    "gilbert-elliott": _gilbert_elliott,
    "trace": _trace,
    "schedule": _schedule,
}


def _options(channel: str, body: str, known: Sequence[str], needed: Sequence[str]) -> dict[str, str]:
    options: dict[str, str] = {}
    for part in body.split(",") if body else ():
        name, equals, value = part.partition("=")
        if name not in known or not equals:
            raise InputError(f"The channel {channel} has no option {part!r}; it takes {', '.join(known)}.")
        if name in options:
            raise InputError(f"The channel {channel} got {name} twice.")
        options[name] = value
    for name in needed:
        if name not in options:
            raise InputError(f"The channel {channel} needs {name}=.")
    return options


def _number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise InputError(f"{name} must be a number, not {text!r}.") from None
    if not math.isfinite(value):
        raise InputError(f"{name} must be a finite number, not {text!r}.")
    return value


def _seconds(name: str, text: str) -> float:
    for suffix, unit in (("ms", 1000.0), ("s", 1.0)):
        if text.endswith(suffix):
            return _number(name, text.removesuffix(suffix)) / unit
    raise InputError(f"{name} needs a unit, such as 240ms or 0.24s, not {text!r}.")


def _axis(options: Mapping[str, str]) -> Axis:
    value: Any = options.get("per", "time")
    check_axis(value)
    axis: Axis = value
    return axis
