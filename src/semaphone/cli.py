"""The command `semaphone`: collects `commands/*.py` and turns errors into one sentence and an exit code.

Each module of `semaphone.commands` has `register(subparsers)`, which adds its parser and sets `run` as a
default: `run(args) -> int`. Exit codes: 0 done, 2 something the user can mend, 130 stopped with Ctrl-C.
"""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import sys
from collections.abc import Sequence

from semaphone import __version__, commands
from semaphone.errors import SemaphoneError

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
    print(f"semaphone: {sentence}", file=sys.stderr)
    return 2


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code (argparse itself exits with 2 on a wrong option)."""
    args = build_parser().parse_args(argv)
    try:
        code = int(args.run(args))
        sys.stdout.flush()
    except SemaphoneError as error:
        return fail(str(error))
    except KeyboardInterrupt:
        print("semaphone: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read our output has enough (`semaphone ... | head`): end as other tools do, without a word.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except OSError as error:
        return fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    return code
