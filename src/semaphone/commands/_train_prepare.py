"""`semaphone train prepare` and `train ranges`: what comes before a training on another machine, and after it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from semaphone.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from semaphone.training.data import Corpus


def register(parts: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add both parts."""
    prepare = parts.add_parser(
        "prepare",
        help="pack recordings for a training on another machine",
        description="Pack a folder of recordings: compressed audio, pitch and texts in a few files, with digests. "
        "Every trainer takes the folder as --data; it then needs torch, numpy and soundfile alone.",
    )
    prepare.add_argument("--data", required=True, metavar="DIR", help="recordings; subfolders are groups")
    prepare.add_argument("--out", required=True, metavar="DIR", help="the packed corpus")
    prepare.add_argument("--cache", metavar="DIR", help="where prepared speech is kept (default: OUT/cache)")
    prepare.add_argument("--megabytes", type=int, default=48, help="of each file of recordings, about (default: 48)")
    prepare.set_defaults(run=run_prepare)
    ranges = parts.add_parser(
        "ranges",
        help="measure what 8-bit products of a codec need",
        description="Measure the ranges that the layers of a codec meet in speech, and write its weights with them, "
        "so that it computes in 8 bits. A training on this machine does so itself.",
    )
    ranges.add_argument("--data", required=True, metavar="DIR", help="recordings, or a packed corpus")
    ranges.add_argument("--weights", required=True, metavar="FILE", help="weights of a nano codec")
    ranges.add_argument("--out", required=True, metavar="FILE", help="the same weights with ranges (.safetensors)")
    ranges.add_argument("--cache", metavar="DIR", help="where prepared speech is kept (default: DATA-cache beside OUT)")
    ranges.set_defaults(run=run_ranges)


def run_prepare(args: argparse.Namespace) -> int:
    """Prepare recordings and pack them."""
    from pathlib import Path

    from semaphone.commands._progress import preparing, progress
    from semaphone.training.data import prepare_corpus
    from semaphone.training.packed import pack_corpus

    if not 1 <= args.megabytes <= 100_000:
        raise InputError(f"A file of recordings has 1 to 100000 megabytes, not {args.megabytes}.")
    root, out = Path(args.data), Path(args.out)
    cache = Path(args.cache) if args.cache else out / "cache"
    with progress() as bar:
        corpus = prepare_corpus(root, cache, None, preparing(bar))
        digest = pack_corpus(corpus, root, out, preparing(bar), shard_bytes=args.megabytes << 20)
    hours = len(corpus.audio) / 16_000 / 3600
    print(f"{len(corpus.recordings)} recordings, {hours:.2f} h, in {out}; digest {digest[:16]}")
    return 0


def run_ranges(args: argparse.Namespace) -> int:
    """Measure ranges and write the weights with them."""
    from pathlib import Path

    from semaphone.codec.nano_weights import read_nano, save_nano
    from semaphone.codec.ranges import met_ranges
    from semaphone.commands._progress import preparing, progress
    from semaphone.training.data import prepare_corpus

    if Path(args.out).suffix != ".safetensors":
        raise InputError(f"{args.out} should end in .safetensors, the format of weights.")
    model, _ = read_nano(Path(args.weights))
    cache = Path(args.cache) if args.cache else Path(args.out).parent / "cache"
    with progress() as bar:
        corpus = prepare_corpus(Path(args.data), cache, None, preparing(bar))
    met = met_ranges(model.eval(), looks(corpus))
    save_nano(model, Path(args.out), {}, met)
    print(f"ranges of {len(met)} layers in {args.out}")
    return 0


def looks(corpus: Corpus) -> Iterator[Tensor]:
    """A few batches of a corpus, always the same."""
    import numpy as np
    import torch

    from semaphone.training.batches import Store, draw
    from semaphone.training.codec import CodecTraining
    from semaphone.training.data import group_weights

    c = CodecTraining()
    store, weights, rng = Store(corpus, torch.device("cpu")), group_weights(corpus), np.random.default_rng([c.seed, 2])
    for _ in range(c.range_batches):
        yield draw(store, c, weights, rng).speech
