"""`semaphone train fdplc`: the concealment of the SoundStream baseline."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from semaphone.commands import _link


def register(parts: Any) -> None:
    """Add the part to `semaphone train`."""
    parser = parts.add_parser(
        "fdplc",
        help="packet loss concealment of the SoundStream baseline",
        description="Train FD-PLC, which predicts the lost features of SoundStream (Lyra v2's models).",
        epilog="The folder of results holds checkpoint.pt, log.jsonl and lyra-fdplc.safetensors.",
    )
    parser.add_argument("--data", required=True, type=Path, metavar="DIR", help="recordings; its subfolders are groups")
    parser.add_argument("--lyra", required=True, type=Path, metavar="DIR", help="folder of Lyra v2's models")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="cache, checkpoint, log and weights")
    parser.add_argument("--steps", type=_link.whole, help="train up to this step (default: that of the settings)")
    parser.add_argument("--threads", type=_link.whole, default=1, help="processor cores to use (default 1)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="any setting of the run")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Encode the recordings once, then train."""
    from dataclasses import fields

    import torch

    from semaphone.baselines.soundstream import SoundStream
    from semaphone.commands._progress import progress
    from semaphone.commands.train import settings
    from semaphone.training.fdplc import FdPlcTrainer, FdPlcTraining, encode_corpus, train_fdplc

    SoundStream(args.lyra)  # are its models there?
    torch.set_num_threads(max(args.threads, 1))
    defaults = FdPlcTraining()
    known = {f.name: getattr(defaults, f.name) for f in fields(FdPlcTraining) if f.name != "model"}
    c = settings(FdPlcTraining, known, args.set)
    until = c.steps if args.steps is None else args.steps
    with progress() as bar:
        encoding = bar.add_task("encoding", total=None)

        def say(what: str, done: int, total: int) -> None:
            bar.update(encoding, description=what, completed=done, total=total)

        frames = encode_corpus(args.data, args.lyra, args.out / "cache" / "frames.npz", c, say)
        trainer = FdPlcTrainer(c, frames, args.out)
        task = bar.add_task("training", total=until, completed=trainer.step)

        def report(step: int, row: dict[str, Any]) -> None:
            text = (
                f"step {step}: error {row['loss']:.3f}, held out {row['dev']:.3f} (repeating {row['dev_repeat']:.3f})"
            )
            bar.update(task, completed=step, description=text)
            if not bar.console.is_terminal:
                print(text, flush=True)

        weights = train_fdplc(trainer, until, report)
    print(f"weights in {weights}")
    return 0
