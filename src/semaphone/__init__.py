"""Semaphone: speech over links that are too thin and too lossy for ordinary codecs.

    import semaphone

    codec = semaphone.load_codec("nano")
    tokens = codec.encode(speech)                    # [16, T]
    link = semaphone.Link(codec, channel="uniform:0.3", schedule="history", codebooks=8)
    heard = link.transmit(speech, seed=7)            # .speech, .report, .plot("link.png")
    scores = semaphone.evaluate(speech, heard.speech)

Nothing heavy is imported before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from semaphone.errors import InputError, MissingExtraError, SemaphoneError

if TYPE_CHECKING:
    from collections.abc import Callable

    from semaphone.front import Codec, CodecStream, Link, Transmission, evaluate, load_codec

__version__ = "0.1.0"
__all__ = [
    "Codec",
    "CodecStream",
    "InputError",
    "Link",
    "MissingExtraError",
    "SemaphoneError",
    "Transmission",
    "evaluate",
    "load_codec",
    "register_channel",
    "register_codec",
    "register_controller",
    "register_recovery",
]
_LATER = frozenset({"Codec", "CodecStream", "Link", "Transmission", "evaluate", "load_codec"})


def __getattr__(name: str) -> Any:
    if name in _LATER:
        from semaphone import front

        return getattr(front, name)
    raise AttributeError(f"module 'semaphone' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


def register_codec(name: str, factory: Callable[[], Any]) -> None:
    """Make a codec known by a name: `factory()` gives a `semaphone.codec.base.Codec`.

    Raises:
        InputError: a name that cannot be taken.

    Example:
        >>> import semaphone
        >>> from semaphone.codec.registry import load_codec
        >>> semaphone.register_codec("twin", lambda: load_codec("nano"))
        >>> semaphone.load_codec("twin").info.name
        'nano'
    """
    _register("codec", name, factory)


def register_recovery(name: str, factory: Callable[[Any], Any]) -> None:
    """Make a recovery known by a name: `factory(codec_info)` gives a `semaphone.recovery.base.Recovery`.

    Raises:
        InputError: a name that cannot be taken.
    """
    _register("recovery", name, factory)


def register_controller(name: str, factory: Callable[[Any, Any], Any]) -> None:
    """Make a controller known: `factory(codec_info, packet_format)` gives a `semaphone.controller.base.Controller`.

    Raises:
        InputError: a name that cannot be taken.
    """
    _register("controller", name, factory)


def register_channel(name: str, factory: Callable[[str], Any]) -> None:
    """Make a channel known: for `NAME:TEXT`, `factory(TEXT)` gives a `semaphone.channel.models.ErasureChannel`.

    Raises:
        InputError: a name that cannot be taken.

    Example:
        >>> import semaphone
        >>> from semaphone.channel.models import Uniform
        >>> semaphone.register_channel("coin", lambda text: Uniform(0.5))
        >>> semaphone.Link("nano", channel="coin:").codec.info.name
        'nano'
    """
    _register("channel", name, factory)


def _register(kind: str, name: str, factory: Callable[..., Any]) -> None:
    from semaphone.plugins import register

    register(kind, name, factory)
