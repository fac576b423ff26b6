"""`semaphone train`: make weights of one's own; every run resumes where it was stopped."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, TypeVar

from semaphone.commands import (
    _link,
    _train_controller,
    _train_fdplc,
    _train_prepare,
    _train_recovery,
    _train_translation,
)
from semaphone.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import torch
    from rich.progress import Progress

    from semaphone.codec.nano import NanoConfig
    from semaphone.training.codec import CodecTrainer, CodecTraining
    from semaphone.training.data import Corpus
    from semaphone.training.hearing import HeardLoss

C = TypeVar("C")


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and what can be trained."""
    parser = subparsers.add_parser(
        "train", help="train weights of your own", description="Train weights of your own; a stopped run goes on."
    )
    parts = parser.add_subparsers(dest="part", metavar="PART", required=True)
    codec = parts.add_parser(
        "codec",
        help="the nano codec",
        description="Train the nano codec on a folder of recordings, or on what `train prepare` made of one. Stage 1 "
        "trains everything. Stage 2 trains the decoder against discriminators; with --set move=true the tokens, too.",
        epilog="The folder of results holds checkpoint.pt, log.jsonl and nano-codec.safetensors for --codec.",
    )
    codec.add_argument(
        "--data",
        required=True,
        metavar="DIR",
        help="recordings, its subfolders are balanced groups; or a packed corpus",
    )
    codec.add_argument("--out", required=True, metavar="DIR", help="checkpoints, log and weights")
    codec.add_argument("--cache", metavar="DIR", help="where prepared speech is kept (default: OUT/cache)")
    codec.add_argument("--stage", type=int, choices=[1, 2], default=1)
    codec.add_argument(
        "--start", metavar="FILE", help="stage 2: the checkpoint.pt of a stage 1 or 2, or weights of a codec"
    )
    codec.add_argument("--decoder-blocks", metavar="A,B,C,D", help="ConvNeXt blocks of the decoder (default: 3,2,2,5)")
    codec.add_argument("--steps", type=_link.whole, help="train up to this step (default: that of the settings)")
    codec.add_argument("--no-teacher", action="store_true", help="do without Whisper's features for codebook 1")
    codec.add_argument("--shares", metavar="A=1,B=2", help="how much each group weighs in a batch")
    _link.add_device(codec)
    codec.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="any setting of the run")
    codec.set_defaults(run=run)
    _train_prepare.register(parts)
    _train_recovery.register(parts)
    _train_controller.register(parts)
    _train_fdplc.register(parts)
    _train_translation.register(parts)


def run(args: argparse.Namespace) -> int:
    """Prepare the speech, then train until the last step."""
    from pathlib import Path

    from semaphone.commands._progress import progress

    if args.stage == 2 and args.start is None:
        raise InputError("Stage 2 needs --start, the checkpoint.pt of a stage 1.")
    from semaphone.training.device import find_device

    device = find_device(args.device)
    out, c = Path(args.out), _settings(args)
    with progress() as bar:
        corpus = _corpus(args, out, bar)
        trainer = _trainer(c, corpus, out, args.start, device)
        until = trainer.c.steps if args.steps is None else args.steps
        _train(trainer, until, bar)
    print(f"{until} steps; weights in {out}")
    return 0


def settings(kind: Callable[..., C], known: dict[str, Any], assignments: list[str]) -> C:
    """A configuration from `NAME=VALUE` texts, values as in JSON. Raises InputError for what does not fit."""
    import json

    values: dict[str, Any] = {}
    for text in assignments:
        name, _, value = text.partition("=")
        if name not in known or name in ("model", "shares"):
            raise InputError(f"There is no setting {name!r}; there are {', '.join(sorted(known))}.")
        try:
            values[name] = json.loads(value)
        except ValueError:
            raise InputError(f"{text!r} should be NAME=VALUE with a number, true or false.") from None
        if isinstance(values[name], list):
            values[name] = tuple(values[name])
        expected = known[name]
        if isinstance(values[name], bool) != isinstance(expected, bool) or not isinstance(
            values[name], (int, float, tuple) if isinstance(expected, float) else type(expected)
        ):
            raise InputError(f"The setting {name} is of the kind {expected!r}, not {values[name]!r}.")
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise InputError(f"These settings do not fit: {error}.") from None


def _shares(text: str | None) -> dict[str, float] | None:
    if text is None:
        return None
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        try:
            shares[name] = float(value)
        except ValueError:
            raise InputError(f"{part!r} should be GROUP=SHARE with a number.") from None
        if not 0 <= shares[name] < 1e9:
            raise InputError(f"A share is a number from 0 on, not {value}.")
    return shares


def _shape(model: NanoConfig, blocks: str | None) -> NanoConfig:
    from dataclasses import replace

    if blocks is None:
        return model
    counts = blocks.split(",")
    if len(counts) != 4 or not all(n.isascii() and n.isdigit() and 1 <= int(n) <= 99 for n in counts):
        raise InputError(f"A decoder has four numbers of blocks, 1 to 99 each, not {blocks!r}.")
    first, second, third, last = (int(n) for n in counts)
    return replace(model, decoder_blocks=(first, second, third, last))


def _corpus(args: argparse.Namespace, out: Path, bar: Progress) -> Corpus:
    from pathlib import Path

    from semaphone.commands._progress import preparing
    from semaphone.metrics.whisper import weights_folder
    from semaphone.training.data import prepare_corpus

    whisper = None if args.no_teacher else weights_folder("train")
    cache = Path(args.cache) if args.cache else out / "cache"
    return prepare_corpus(Path(args.data), cache, whisper, preparing(bar))


def _settings(args: argparse.Namespace) -> CodecTraining:
    from dataclasses import fields, replace
    from pathlib import Path

    from semaphone.training.adversarial import AdversarialTraining
    from semaphone.training.codec import CodecTraining

    if args.stage == 2 and not Path(args.start).is_file():
        raise InputError(f"{args.start} is not a checkpoint.")
    kind = AdversarialTraining if args.stage == 2 else CodecTraining
    defaults = kind()
    c = settings(kind, {f.name: getattr(defaults, f.name) for f in fields(kind)}, args.set)
    c = replace(c, shares=_shares(args.shares), model=_shape(c.model, args.decoder_blocks))
    return c if args.precision is None else replace(c, bf16=args.precision == "bf16")


def _trainer(c: CodecTraining, corpus: Corpus, out: Path, start: str | None, device: torch.device) -> CodecTrainer:
    from pathlib import Path

    from semaphone.training.adversarial import AdversarialTrainer, AdversarialTraining
    from semaphone.training.codec import CodecTrainer

    if isinstance(c, AdversarialTraining):
        assert start is not None
        return AdversarialTrainer(c, corpus, out, Path(start), _heard() if c.heard else None, device)
    return CodecTrainer(c, corpus, out, device)


def _heard() -> HeardLoss:
    from semaphone.metrics.whisper import weights_folder
    from semaphone.training.hearing import HeardLoss
    from semaphone.training.whisper_weights import read_variables

    return HeardLoss(read_variables((weights_folder("train") / "model.bin").read_bytes()))


def _train(trainer: CodecTrainer, until: int, bar: Progress) -> None:
    from semaphone.training.codec import train_codec

    task = bar.add_task("training", total=until, completed=trainer.step)

    def report(step: int, row: dict[str, float]) -> None:
        text = ", ".join(f"{name} {value:.3f}" for name, value in row.items() if name not in ("norm", "seconds"))
        bar.update(task, completed=step, description=f"step {step}: {text}")
        if not bar.console.is_terminal:
            print(f"step {step}: {text}", flush=True)

    train_codec(trainer, until, report)
