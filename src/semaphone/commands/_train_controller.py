"""`semaphone train controller`: what decides how many tokens of a chunk go, and which go twice."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from semaphone.commands import _link
from semaphone.commands._train_recovery import corpus_of, reporter
from semaphone.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from rich.progress import Progress

    from semaphone.codec.base import Codec
    from semaphone.recovery.rq_transformer import RQTransformer
    from semaphone.training.controller import ControllerTraining, Parts
    from semaphone.training.latents import Material


def register(parts: Any) -> None:
    """Add the part to `semaphone train`."""
    parser = parts.add_parser(
        "controller",
        help="what decides how many tokens go, and which go twice",
        description="Train the adaptive controller through loss, recovery and codec, which stay as they are. Tokens "
        "and latents are made once and kept, by the codec's fingerprint.",
        epilog="The folder of results holds checkpoint.pt, log.jsonl and nano-controller.safetensors for --controller.",
    )
    parser.add_argument("--data", required=True, metavar="DIR", help="recordings; its subfolders are groups")
    parser.add_argument("--out", required=True, metavar="DIR", help="checkpoints, log and weights")
    parser.add_argument("--cache", metavar="DIR", help="where prepared speech and tokens are kept (default: OUT/cache)")
    parser.add_argument("--codec", default="nano", help="nano, mimi, mimi:FOLDER or a file of nano weights")
    parser.add_argument("--recovery", default="lm", help="lm (the embedded one) or a file of weights")
    parser.add_argument(
        "--gamma",
        type=_price,
        nargs="+",
        metavar="G",
        help="what a transmission costs (γ of eq 20); several are trained one after the other, each in OUT/gamma-G",
    )
    parser.add_argument("--steps", type=_link.whole, help="train up to this step (default: that of the settings)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="any setting of the run")
    parser.set_defaults(run=run)


def _price(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is no price from 0 on")
    return value


def run(args: argparse.Namespace) -> int:
    """Make tokens and latents, then train."""
    from dataclasses import fields, replace
    from pathlib import Path

    from semaphone.codec.registry import load_codec
    from semaphone.commands._progress import progress
    from semaphone.commands.train import settings
    from semaphone.training.controller import ControllerTraining

    defaults = ControllerTraining()
    known = {f.name: getattr(defaults, f.name) for f in fields(ControllerTraining)}
    c = settings(ControllerTraining, known, args.set)
    _link.one_thread()
    out, codec = Path(args.out), load_codec(args.codec)
    runs = {out: c}
    if args.gamma:
        several = len(args.gamma) > 1
        runs = {out / f"gamma-{g:g}" if several else out: replace(c, gamma=g) for g in args.gamma}
    with progress() as bar:
        parts = _parts(args, codec, c)
        material = _material(args, out, codec, bar)
        for folder, one in runs.items():
            print(f"results in {_train(args, one, parts, material, folder, bar)}")
    return 0


def _parts(args: argparse.Namespace, codec: Codec, c: ControllerTraining) -> Parts:
    from semaphone.codec.nano_weights import read_nano
    from semaphone.codec.registry import nano_file
    from semaphone.training.controller import Parts

    # Gradients go through the model itself, not through the rounded numbers of a codec in use.
    file = nano_file(args.codec) if c.reconstruction else None
    model = read_nano(file)[0].eval().requires_grad_(False) if file is not None else None
    return Parts(codec.info, _recovery(args.recovery, codec), model)


def _recovery(name: str, codec: Codec) -> RQTransformer:
    from semaphone.recovery.lm import LmRecovery
    from semaphone.recovery.registry import load_recovery

    recovery = load_recovery(name, codec.info)
    if not isinstance(recovery, LmRecovery):
        raise InputError(f"A controller is trained through a recovery model, not through {name!r}.")
    return recovery.model


def _material(args: argparse.Namespace, out: Path, codec: Codec, bar: Progress) -> Material:
    from pathlib import Path

    from semaphone.training.latents import corpus_latents
    from semaphone.training.tokens import corpus_tokens

    cache = Path(args.cache) if args.cache else out / "cache"
    corpus = corpus_of(args.data, cache, bar)
    bar.add_task("making tokens", total=None)
    tokens = corpus_tokens(codec, corpus, cache / "tokens")
    task = bar.add_task("making latents", total=None)

    def report(done: int, total: int) -> None:
        bar.update(task, completed=done, total=total)

    return corpus_latents(codec, corpus, tokens, cache / "tokens" / codec.info.fingerprint[:16], report)


def _train(
    args: argparse.Namespace, c: ControllerTraining, parts: Parts, material: Material, out: Path, bar: Progress
) -> Path:
    from semaphone.training.controller import train_controller

    train, dev = material.split(0.03)
    until = c.steps if args.steps is None else args.steps
    return train_controller(c, parts, train, out, dev, until, reporter(bar, until))
