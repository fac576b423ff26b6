"""The ways of recovery by name."""

from __future__ import annotations

from pathlib import Path

from semaphone.codec.base import CodecInfo
from semaphone.errors import InputError
from semaphone.plugins import find
from semaphone.recovery.base import Recovery

NAMES = ("lm", "hold", "none")
WEIGHTS = Path(__file__).resolve().parent.parent / "weights" / "nano-recovery.safetensors"


def default_recovery(info: CodecInfo) -> str:
    """What a receiver uses when nobody says: `lm` if the package has weights for the codec's tokens, else `hold`."""
    if not WEIGHTS.is_file():
        return "hold"
    from semaphone.recovery.rq_weights import fits

    return "lm" if fits(WEIGHTS, info.fingerprint) else "hold"


def load_recovery(name: str, info: CodecInfo) -> Recovery:
    """`hold`, `none`, `lm` or a file of weights (.safetensors) → recovery for tokens of the codec `info`.

    Raises InputError for an unknown name, missing weights, and weights of another codec.
    """
    from semaphone.recovery.hold import HoldRecovery, NoRecovery

    if name == "hold":
        return HoldRecovery()
    if name == "none":
        return NoRecovery()
    path = WEIGHTS if name == "lm" else Path(name)
    if name == "lm" or path.suffix == ".safetensors":
        return _language_model(path, info)
    if (factory := find("recovery", name)) is not None:
        made: Recovery = factory(info)
        return made
    raise InputError(f"Unknown recovery {name!r}; there are {', '.join(NAMES)}, and files of weights (.safetensors).")


def _language_model(path: Path, info: CodecInfo) -> Recovery:
    from semaphone.recovery.lm import LmRecovery
    from semaphone.recovery.rq_weights import load

    if not path.is_file():
        raise InputError(f"There are no weights for recovery by a language model at {path}.")
    return LmRecovery(load(path, info.fingerprint))
