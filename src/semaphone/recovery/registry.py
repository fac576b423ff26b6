"""The ways of recovery by name."""

from __future__ import annotations

from semaphone.codec.base import CodecInfo
from semaphone.errors import InputError
from semaphone.recovery.base import Recovery

NAMES = ("hold", "none")


def load_recovery(name: str, info: CodecInfo) -> Recovery:
    """The recovery called `name` for tokens of the codec `info`. Raises InputError for an unknown name."""
    from semaphone.recovery.hold import HoldRecovery, NoRecovery

    if name == "hold":
        return HoldRecovery()
    if name == "none":
        return NoRecovery()
    raise InputError(f"Unknown recovery {name!r}; there are {', '.join(NAMES)}.")
