"""The command `semaphone`: collects `commands/*.py` and turns errors into one sentence and an exit code.

Each module of `semaphone.commands` has `register(subparsers)`, which adds its parser and sets `run` as a
default: `run(args) -> int`. Exit codes: 0 done, 2 something the user can mend, 128 + n stopped by signal n (130:
Ctrl-C).
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import os
import pkgutil
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from semaphone import __version__, commands, stopping
from semaphone.errors import InputError, InputWarning, SemaphoneError
from semaphone.streams import Discarded, fill_closed_descriptors

# The order of `semaphone --help`; commands that are not named here follow by name.
ORDER = (
    "demo",
    "transmit",
    "encode",
    "decode",
    "call",
    "relay",
    "translate",
    "evaluate",
    "models",
    "experiment",
    "train",
)


def command_names() -> list[str]:
    """The modules of `semaphone.commands`, in the order of the help."""
    names = [module.name for module in pkgutil.iter_modules(commands.__path__) if not module.name.startswith("_")]
    return sorted(names, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))


def build_parser() -> argparse.ArgumentParser:
    """The parser with every command registered."""
    parser = argparse.ArgumentParser(prog="semaphone", description="Speech over thin, lossy links.")
    parser.add_argument("--version", action="version", version=f"semaphone {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in command_names():
        module = importlib.import_module(f"semaphone.commands.{name}")
        if hasattr(module, "register"):
            module.register(subparsers)
    return parser


def fail(sentence: str) -> int:
    """Prints what is wrong and returns the exit code for it."""
    _say(sentence)
    return 2


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code (argparse itself exits with 2 on a wrong option)."""
    with _streams(), _warnings_shown(), stopping.handled():
        try:
            args = build_parser().parse_args(argv)
            code = int(args.run(args))
            _finish_output()
        except KeyboardInterrupt as error:
            return _stopped(error.number if isinstance(error, stopping.Stopped) else int(signal.SIGINT))
        except SemaphoneError as error:
            number = stopping.wanted()  # workers that were stopped, too, can be missed first
            return fail(str(error)) if number is None else _stopped(number)
        except BrokenPipeError:
            # Whoever read our output has enough (`semaphone ... | head`): end as other tools do, without a word.
            _drop_output()
            return 141
        except Exception as error:
            if (number := stopping.wanted()) is not None:
                return _stopped(number)
            if not isinstance(error, OSError):
                raise
            _drop_output()  # it may be what cannot be written
            return fail(f"{error.filename}: {error.strerror}" if error.filename else f"{error.strerror or error}.")
        return code


def _stopped(number: int) -> int:
    _say("stopped")
    return 128 + number


def _say(text: str) -> None:
    """A line on standard error, if anybody can be told there."""
    with contextlib.suppress(OSError, ValueError):
        print(f"semaphone: {text}", file=sys.stderr, flush=True)


def _finish_output() -> None:
    """Writes what standard output still holds. Raises InputError if it cannot be written."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _drop_output()
        raise InputError(f"Standard output cannot be written: {error.strerror or error}.") from error


def _drop_output() -> None:
    """What standard output still holds would be tried again, in vain, when the interpreter ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


@contextlib.contextmanager
def _streams() -> Iterator[None]:
    """Standard streams that can be printed to: what is closed takes text and drops it, and no name of a file is
    beyond them. Streams of an embedding program (a notebook) are left as they are.
    """
    fill_closed_descriptors()
    before = sys.stdout, sys.stderr
    errors = getattr(sys.stdout, "errors", None)
    sys.stdout, sys.stderr = (Discarded() if stream is None else stream for stream in before)
    _reconfigure(sys.stdout, "backslashreplace")  # as standard error does
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        _reconfigure(sys.stdout, errors)


def _reconfigure(stream: object, errors: str | None) -> None:
    if isinstance(stream, io.TextIOWrapper):
        with contextlib.suppress(OSError, ValueError):  # it cannot be flushed, or was closed
            stream.reconfigure(errors=errors)


@contextlib.contextmanager
def _warnings_shown() -> Iterator[None]:
    """Our own warnings become a line each; others are shown as usual."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", InputWarning)
        usual = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if issubclass(category, InputWarning):
                _say(f"warning: {message}")
            else:
                usual(message, category, *place, **more)

        warnings.showwarning = show
        yield
