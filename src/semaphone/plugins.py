"""Parts of somebody else's: codecs, recoveries, controllers and channels by name.

A program registers a factory; a package declares an entry point of the group `semaphone.codecs`,
`semaphone.recoveries`, `semaphone.controllers` or `semaphone.channels`. Entry points are found in every process, so
experiments with several workers see them, too.

    register("codec", "mine", MyCodec)          # load_codec("mine"), and --codec mine in this process
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from semaphone.errors import InputError

GROUPS = {
    "codec": "semaphone.codecs",
    "recovery": "semaphone.recoveries",
    "controller": "semaphone.controllers",
    "channel": "semaphone.channels",
}
OWN = frozenset({"nano", "mimi", "lm", "hold", "none", "fixed", "budget", "adaptive", "uniform", "gilbert-elliott"})

_registered: dict[tuple[str, str], Callable[..., Any]] = {}


def register(kind: str, name: str, factory: Callable[..., Any]) -> None:
    """Make a part known by a name, in this process.

    Args:
        kind: codec, recovery, controller or channel.
        name: letters, digits, `-` and `_`; none of our own parts' names.
        factory: makes the part. A codec takes nothing; a recovery takes the `CodecInfo`; a controller the `CodecInfo`
            and the `PacketFormat`; a channel the text after `NAME:`.

    Raises:
        InputError: an unknown kind, or a name that cannot be taken.
    """
    if kind not in GROUPS:
        raise InputError(f"There are parts of the kinds {', '.join(GROUPS)}, not {kind!r}.")
    if not name or not name.replace("-", "").replace("_", "").isalnum() or not name.isascii():
        raise InputError(f"A part's name has letters, digits, - and _, not {name!r}.")
    if name in OWN:
        raise InputError(f"{name} is a part of Semaphone's own; take another name.")
    if not callable(factory):
        raise InputError(f"What makes the {kind} {name!r} must be callable.")
    _registered[kind, name] = factory


def find(kind: str, name: str) -> Callable[..., Any] | None:
    """The factory of a part that was registered or that an installed package declares; None if there is none."""
    if (kind, name) in _registered:
        return _registered[kind, name]
    from importlib.metadata import entry_points

    for entry in entry_points(group=GROUPS[kind], name=name):
        try:
            loaded: Callable[..., Any] = entry.load()
        except Exception as error:  # of somebody else's package
            raise InputError(f"The {kind} {name} of the package {entry.value} cannot be loaded: {error}.") from error
        return loaded
    return None


def names(kind: str) -> list[str]:
    """The names of all such parts, in their order."""
    from importlib.metadata import entry_points

    return sorted({n for k, n in _registered if k == kind} | {entry.name for entry in entry_points(group=GROUPS[kind])})
