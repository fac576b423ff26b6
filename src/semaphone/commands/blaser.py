"""`semaphone blaser`: BLASER 2.0 of a translated recording, in an environment of its own."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def register(subparsers: Any) -> None:
    """Adds the command."""
    parser = subparsers.add_parser("blaser", help="score translated speech with BLASER 2.0 (needs --setup once)")
    parser.add_argument("source", nargs="?", type=Path, help="what was spoken")
    parser.add_argument("translation", nargs="?", type=Path, help="what came out")
    parser.add_argument("--from", dest="spoken", default="fra", metavar="LANG", help="ISO 639-3")
    parser.add_argument("--to", dest="wanted", default="eng", metavar="LANG", help="ISO 639-3")
    parser.add_argument("--setup", action="store_true", help="make its environment first (several GB)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Sets up, scores, or both."""
    from semaphone.errors import InputError
    from semaphone.metrics.translation import blaser2, setup_blaser

    if args.setup:
        print(f"BLASER 2.0 is set up: {setup_blaser()}")
    if args.source is None or args.translation is None:
        if args.setup:
            return 0
        raise InputError("BLASER 2.0 compares two recordings: name what was spoken and what came out.")
    for file in (args.source, args.translation):
        if not file.is_file():
            raise InputError(f"{file} is missing.")
    (score,) = blaser2([(args.source, args.translation)], args.spoken, args.wanted)
    print(f"{score:.2f}")
    return 0
