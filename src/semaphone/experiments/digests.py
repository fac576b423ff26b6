"""What decides a result, in a few characters: digests of weights and settings, versions of packages."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

_DIGESTS: dict[int, tuple[object, str]] = {}  # by identity of what was hashed, which is kept so that ids stay unique


def digest_of(thing: object) -> str:
    """A digest of the weights and settings of whatever holds a model; "" of what has no weights."""
    if id(thing) in _DIGESTS:
        return _DIGESTS[id(thing)][1]
    digest, found = hashlib.sha256(), False
    for name, model in sorted(_models(thing, "", 3).items()):
        _add_weights(digest, name, model)
        found = True
    digest.update(repr(getattr(thing, "settings", "")).encode())
    _DIGESTS[id(thing)] = (thing, digest.hexdigest()[:16] if found else "")
    return _DIGESTS[id(thing)][1]


def _models(thing: object, name: str, depth: int) -> dict[str, nn.Module]:
    """The models that an object holds, or that what it holds holds, by the way there."""
    from torch import nn

    if isinstance(thing, nn.Module):
        return {name: thing}
    found: dict[str, nn.Module] = {}
    for part, value in getattr(thing, "__dict__", {}).items() if depth else ():
        found |= _models(value, f"{name}.{part}", depth - 1)
    return found


def _add_weights(digest: Any, name: str, model: nn.Module) -> None:
    import torch

    from semaphone.codec.nano import TRAINING_ONLY

    for key, value in sorted(model.state_dict().items()):
        if key.endswith(TRAINING_ONLY):
            continue
        digest.update(f"{name}.{key} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())


@lru_cache(maxsize=4)
def digest_of_folder(folder: Path, pattern: str) -> str:
    """A digest of the files of a folder."""
    digest = hashlib.sha256()
    for file in sorted(folder.glob(pattern)):
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def package_version(package: str) -> str:
    """The version of an installed package, or ""."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
