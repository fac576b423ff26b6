"""`semaphone demo`: hear the link in three weathers, beside Opus and a text link."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from semaphone.commands import _link
from semaphone.errors import InputError

if TYPE_CHECKING:
    from semaphone.experiments.demo import Row

LONGEST = 60  # seconds of a recording that the demonstration sends


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = subparsers.add_parser(
        "demo",
        help="hear the link in three weathers, beside Opus and a text link",
        description="Send a paragraph (or your own recording) at 0, 10 and 30 % packet loss, beside Opus at 6 kbit/s "
        f"and a text link, and score what arrives. Of a long recording the first {LONGEST} s are sent.",
    )
    parser.add_argument("--input", metavar="WAV", help="a recording of your own")
    parser.add_argument("--out", default="demo", metavar="DIR", help="folder of recordings, report and picture")
    parser.add_argument("--codec", default="nano", help="nano, mimi, mimi:FOLDER or a file of nano weights")
    parser.add_argument(
        "--controller",
        metavar="NAME",
        help="fixed (8 codebooks, 2 copies; the default, so that all weathers have one rate), adaptive, budget or a "
        "file of weights",
    )
    parser.add_argument("--bitrate", type=_link.whole, metavar="BPS", help="payload of adaptive and budget")
    parser.add_argument("--seed", type=_link.whole, default=7, help="the same seed loses the same packets")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Speak or read, send, score, show."""
    from rich.console import Console

    from semaphone.audio import read_audio
    from semaphone.controller.registry import ControllerSpec
    from semaphone.experiments.demo import RATE, TEXT, Demo, run_demo, spoken

    if args.input is not None:
        _check_input(Path(args.input), Path(args.out))
    _link.one_thread()
    console = Console(stderr=True)
    with console.status("speaking") as status:
        own = args.input is not None
        speech = read_audio(args.input, RATE)[: LONGEST * RATE] if own else spoken()
        spec = ControllerSpec(args.controller or ("fixed" if args.bitrate is None else None), bitrate=args.bitrate)
        text = None if own else TEXT
        demo = Demo(Path(args.out), speech, text, codec=args.codec, controller=spec, seed=args.seed)

        def say(text: str) -> None:
            status.update(text)
            if not console.is_terminal:
                console.print(text)

        rows = run_demo(demo, say)
    _print(rows)
    print(f"Listen: {Path(args.out) / 'index.html'} or the .wav files beside it; the picture is link.png")
    return 0


def _check_input(source: Path, out: Path) -> None:
    """Raises InputError if the recording is one that a demonstration writes into this folder."""
    from semaphone.experiments.demo import WRITTEN

    named = any(source.match(pattern) for pattern in WRITTEN)
    if named and os.path.realpath(source.parent) == os.path.realpath(out):
        raise InputError(f"{source} would be written anew; name another folder with --out.")


def _print(rows: list[Row]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from semaphone.experiments.listen import shown

    table = Table(box=box.SIMPLE)
    for name in ("loss", "system"):
        table.add_column(name)
    for name in ("token\nbit/s", "payload\nbit/s", "gross\nbit/s", "packets\nlost", "ViSQOL", "PLCMOS", "WER", "delay"):
        table.add_column(name, justify="right")
    loss = None
    for row in rows:
        if row.loss != loss and loss is not None:
            table.add_section()
        loss = row.loss
        table.add_row(
            f"{row.loss:.0%}",
            row.system,
            f"{row.token_bps:.0f}",
            f"{row.payload_bps:.0f}",
            f"{row.gross_bps:.0f}",
            f"{row.packets_lost}/{row.packets_sent}",
            shown(row.visqol, 2),
            shown(row.plcmos, 2),
            shown(row.wer, 2),
            f"{row.delay_ms:.0f} ms",
        )
    console = Console()
    Console(width=max(console.width, 100)).print(table)
