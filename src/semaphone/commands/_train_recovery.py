"""`semaphone train recovery`: the language model that fills what was lost."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from semaphone.commands import _link
from semaphone.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rich.progress import Progress
    from torch import Tensor

    from semaphone.codec.base import Codec
    from semaphone.training.data import Corpus
    from semaphone.training.tokens import TokenSet

    Report = Callable[[int, dict[str, Any]], None]

WORKERS = 4  # processes that draw batches for a GPU


def register(parts: Any) -> None:
    """Add the part to `semaphone train`."""
    parser = parts.add_parser(
        "recovery",
        help="the language model that fills what was lost",
        description="Train recovery on the tokens of a codec: `nano` from scratch, or adapters (LoRA) for Moshi. "
        "Tokens are made once and kept, by the codec's fingerprint.",
    )
    parser.add_argument("--data", required=True, metavar="DIR", help="recordings; its subfolders are groups")
    parser.add_argument("--out", required=True, metavar="DIR", help="checkpoints, log and weights")
    parser.add_argument("--cache", metavar="DIR", help="where prepared speech and tokens are kept (default: OUT/cache)")
    parser.add_argument("--codec", help="the codec whose tokens it learns (default: nano; mimi for Moshi)")
    parser.add_argument("--model", choices=["nano", "moshi"], default="nano")
    parser.add_argument("--moshi", metavar="FOLDER-OR-ID", help="Moshi's weights in transformers' format")
    parser.add_argument(
        "--precision",
        choices=["bf16", "float32", "bfloat16", "int8"],
        help="of nano's products, bf16 (default) or float32; of Moshi's weights, bfloat16 (default) or int8",
    )
    parser.add_argument("--device", default="auto", help="auto (a GPU if there is one), cpu, cuda or cuda:N (nano)")
    parser.add_argument("--lora-rank", type=_link.whole, default=8, metavar="R", help="rank of Moshi's adapters")
    parser.add_argument(
        "--versions",
        type=_link.whole,
        default=2,
        metavar="N",
        help="hear all speech N more times, at other speeds, levels and chunk borders (nano; default: 2)",
    )
    parser.add_argument(
        "--align", action="store_true", help="find the times of words with Whisper, for the text stream (nano)"
    )
    parser.add_argument("--start", metavar="FILE", help="weights to begin with instead of from scratch (nano)")
    parser.add_argument("--steps", type=_link.whole, help="train up to this step (default: that of the settings)")
    parser.add_argument(
        "--minutes", type=float, metavar="M", help="train for M minutes, however many steps that are (nano)"
    )
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="any setting of the run")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Make the tokens, then train."""
    from pathlib import Path

    from semaphone.codec.registry import load_codec
    from semaphone.commands._progress import progress

    if args.model == "moshi":
        _check_moshi(args)
    elif args.steps is not None and args.minutes is not None:
        raise InputError("Give --steps or --minutes, not both.")
    elif args.precision in ("bfloat16", "int8"):
        raise InputError("The precision of nano's training is bf16 or float32; bfloat16 and int8 are Moshi's.")
    out = Path(args.out)
    codec = load_codec(args.codec or ("nano" if args.model == "nano" else "mimi"))
    with progress() as bar:
        if args.model == "nano":
            result = _train_nano(args, codec, out, bar)
        else:
            result = _train_moshi(args, codec, out, bar)
    print(f"results in {result}")
    return 0


def corpus_of(data: str, cache: Path, bar: Progress) -> Corpus:
    """The prepared speech of a folder of recordings, made if it is not there."""
    from pathlib import Path

    from semaphone.commands._progress import preparing
    from semaphone.training.data import prepare_corpus

    return prepare_corpus(Path(data), cache, None, preparing(bar), want_f0=False)


def _tokens(args: argparse.Namespace, out: Path, codec: Codec, bar: Progress, versions: int = 0) -> list[TokenSet]:
    """The tokens of all recordings, and of other versions of them."""
    from pathlib import Path

    from semaphone.commands._progress import preparing
    from semaphone.training.tokens import corpus_tokens
    from semaphone.training.words import word_times

    cache = Path(args.cache) if args.cache else out / "cache"
    corpus = corpus_of(args.data, cache, bar)
    words = word_times(corpus, cache, preparing(bar)) if args.align else None
    task = bar.add_task("making tokens", total=1 + versions)
    sets = []
    for version in range(1 + versions):
        sets.append(corpus_tokens(codec, corpus, cache / "tokens", version, words))
        bar.update(task, advance=1)
    return sets


def reporter(bar: Progress, total: int | None) -> Report:
    """Shows how training goes on; without a total until one is reported (`steps`)."""
    task = bar.add_task("training", total=total)

    def report(step: int, row: dict[str, Any]) -> None:
        if "steps" in row:
            bar.update(task, total=row["steps"])
        numbers = {name: value for name, value in row.items() if isinstance(value, float)}
        text = ", ".join(f"{name} {value:.3f}" for name, value in list(numbers.items())[:5])
        if not text:  # a look at the dev set: the log has it
            return
        bar.update(task, completed=step, description=f"step {step}: {text}")
        if not bar.console.is_terminal:
            print(f"step {step}: {text}", flush=True)

    return report


def _train_nano(args: argparse.Namespace, codec: Codec, out: Path, bar: Progress) -> Path:
    from dataclasses import fields, replace

    from semaphone.commands.train import settings
    from semaphone.recovery.rq_config import RQTransformerConfig
    from semaphone.recovery.rq_weights import load
    from semaphone.training.device import find_device
    from semaphone.training.recovery import RecoveryTraining, TimeLeft, train_recovery
    from semaphone.training.tokens import joined

    device, time_left = find_device(args.device), TimeLeft(args.minutes)
    defaults = RecoveryTraining()
    known = {f.name: getattr(defaults, f.name) for f in fields(RecoveryTraining) if f.name not in ("model", "survival")}
    info = codec.info
    model = RQTransformerConfig(
        codec=info.fingerprint, num_codebooks=info.num_codebooks, codebook_size=info.codebook_size
    )
    c = replace(settings(RecoveryTraining, known, args.set), model=model)
    if args.precision is not None:
        c = replace(c, bf16=args.precision == "bf16")
    start = None if args.start is None else load(args.start, info.fingerprint)
    # The dev set's utterances are left out of every version; what is looked at is the original.
    parts = [tokens.split(0.03) for tokens in _tokens(args, out, codec, bar, args.versions)]
    train, dev = joined([part[0] for part in parts]), parts[0][1]
    total = None if args.minutes is not None else c.steps if args.steps is None else args.steps
    workers, report = 0 if device.type == "cpu" else WORKERS, reporter(bar, total)
    return train_recovery(c, train, out, dev, args.steps, report, _entries(codec), start, device, workers, time_left)


def _entries(codec: Codec) -> Tensor | None:
    """Where tokens lie [N_Q, K, C], if the codec is one of nano's kind."""
    import torch

    from semaphone.codec.nano import NanoCodec

    if not isinstance(codec, NanoCodec):
        return None
    quantizer = codec.model.quantizer
    return torch.stack([quantizer.book(k).entries for k in range(quantizer.num_codebooks)])


def _check_moshi(args: argparse.Namespace) -> None:
    """Raises InputError for options that do not go with Moshi, before anything is loaded."""
    if args.start is not None:
        raise InputError("Moshi begins with its own weights (--moshi): --start is for nano.")
    if args.align:
        raise InputError("Moshi's text stream has tokens of its own vocabulary: --align is for nano.")
    if args.moshi is None:
        raise InputError("Name Moshi's weights with --moshi, a folder or hub id in transformers' format.")
    if args.device != "auto" or args.minutes is not None:
        raise InputError(
            "Moshi's devices are found by accelerate, its steps are counted: --device, --minutes are for nano."
        )
    if args.precision in ("bf16", "float32"):
        raise InputError("The precision of Moshi's weights is bfloat16 or int8.")
    if args.lora_rank < 1:
        raise InputError(f"A rank is at least 1, not {args.lora_rank}.")


def _train_moshi(args: argparse.Namespace, codec: Codec, out: Path, bar: Progress) -> Path:
    from dataclasses import fields, replace

    from semaphone.commands.train import settings
    from semaphone.recovery.lora import add_lora, load_moshi
    from semaphone.training.lora import LoraTraining, train_lora

    defaults = LoraTraining()
    known = {f.name: getattr(defaults, f.name) for f in fields(LoraTraining) if f.name not in ("rank", "survival")}
    c = replace(settings(LoraTraining, known, args.set), rank=args.lora_rank)
    tokens = _tokens(args, out, codec, bar)[0]  # before the large model: wrong data are told at once
    precision = args.precision or "bfloat16"
    model = load_moshi(args.moshi, codec, precision, report=bar.console.print, training=(c.rank, c.rows))
    add_lora(model, rank=c.rank, alpha=c.alpha, depth=c.depth)
    until = c.steps if args.steps is None else args.steps
    return train_lora(c, model, tokens, out, until, reporter(bar, until))
