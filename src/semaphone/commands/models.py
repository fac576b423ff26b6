"""`semaphone models`: what can be named on the command line, and whether it is here."""

from __future__ import annotations

import argparse


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = subparsers.add_parser(
        "models", help="list codecs and models and whether they are here", description="List codecs and models."
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """One row a model."""
    import json
    from dataclasses import asdict

    from semaphone.models import catalogue

    rows = [asdict(entry) for entry in catalogue()]
    if args.json:
        print(json.dumps(rows, indent=2))
        return 0
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE)
    for name in ("part", "name", "size", "here", "licence", "what it is"):
        table.add_column(name, overflow="fold")
    for row in rows:
        size = "" if row["megabytes"] is None else f"{row['megabytes']:.0f} MB"
        table.add_row(row["part"], row["name"], size, row["here"], row["licence"], row["about"])
    console = Console()
    Console(width=max(console.width, 110)).print(table)
    return 0
