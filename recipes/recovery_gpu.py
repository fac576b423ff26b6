"""Trains nano's recovery model from a corpus cache in a given time on one GPU, from speech to weights.

All recordings are tokenised as they are and in other versions (training/versions.py), 3 % of them are kept for the
dev set, the model learns as long as there is time, and what it guesses on the dev set is measured at the end. The
time is that of the whole script.

    python recipes/recovery_gpu.py --codec nano-codec.safetensors --corpus cache --out run --minutes 4 --batch 128

OUT gets recovery.safetensors (written every minute, too), log.jsonl, and dev.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from semaphone.codec.nano import NanoModel
    from semaphone.codec.products import Range
    from semaphone.training.recovery import RecoveryTrainer
    from semaphone.training.tokens import TokenSet

END = 10.0  # s that are kept for the last weights and the dev set
WRITE = 60.0  # s between two writes of the weights
DEV = 0.03  # share of the recordings in the dev set


def options() -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codec", type=Path, required=True, metavar="FILE", help="weights of a nano codec")
    parser.add_argument("--corpus", type=Path, required=True, metavar="DIR", help="a corpus cache (training/data.py)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="weights and log")
    parser.add_argument("--minutes", type=float, required=True, metavar="M", help="for all of it, reading included")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--precision", choices=["bf16", "float32"], default="bf16", help="of products in training")
    parser.add_argument("--versions", type=int, default=3, metavar="N", help="as it is, and N - 1 others (default: 3)")
    parser.add_argument("--start", type=Path, metavar="FILE", help="recovery weights of the same codec to begin with")
    parser.add_argument("--workers", type=int, default=12, metavar="N", help="processes that make versions, batches")
    parser.add_argument("--batch", type=int, default=128, metavar="N", help="utterances a step")
    parser.add_argument("--crop", type=int, default=125, metavar="N", help="chunks of an utterance")
    parser.add_argument("--rows", type=int, default=4096, metavar="N", help="chunks a step with gradients in depth")
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate")
    parser.add_argument("--final-rate", type=float, default=2e-5, help="learning rate at the end")
    parser.add_argument("--warmup", type=int, default=100, metavar="N", help="steps until the learning rate is reached")
    parser.add_argument("--average", type=float, default=0.998, help="decay of the moving average of weights")
    parser.add_argument("--tokens", type=Path, metavar="DIR", help="where token caches are written, too")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def say(text: str) -> None:
    """A line at once, with the time since the beginning."""
    print(f"[{time.monotonic() - BEGAN:6.1f} s] {text}", flush=True)


def tokens_of(
    args: argparse.Namespace, model: NanoModel, met: dict[str, Range], device: torch.device
) -> tuple[TokenSet, TokenSet]:
    """Training and dev set: the dev set's recordings are left out of every version, and looked at as they are."""
    from semaphone.training.token_batches import batched_tokens
    from semaphone.training.tokens import joined, write_tokens

    sets = batched_tokens(model, args.corpus, args.versions, device, max(1, args.workers), met)
    if args.tokens is not None:
        for version, found in enumerate(sets):
            folder = args.tokens / f"version-{version}" if version else args.tokens
            write_tokens(folder, found.codec, found.codebook_size, found)
    parts = [found.split(DEV) for found in sets]
    return joined([part[0] for part in parts]), parts[0][1]


def trainer_of(args: argparse.Namespace, model: NanoModel, tokens: TokenSet, device: torch.device) -> RecoveryTrainer:
    """A model that starts from the codec's entries, or from weights."""
    import torch

    from semaphone.recovery.rq_config import RQTransformerConfig
    from semaphone.recovery.rq_weights import load
    from semaphone.training.recovery import RecoveryTrainer, RecoveryTraining

    c = RecoveryTraining(
        seed=args.seed,
        batch=args.batch,
        crop=args.crop,
        rows=args.rows,
        rate=args.rate,
        final_rate=args.final_rate,
        warmup=args.warmup,
        average=args.average,
        bf16=args.precision == "bf16",
        every=10**9,
        model=RQTransformerConfig(
            codec=tokens.codec, num_codebooks=tokens.num_codebooks, codebook_size=tokens.codebook_size
        ),
    )
    entries = torch.stack([model.quantizer.book(k).entries for k in range(tokens.num_codebooks)])
    start = None if args.start is None else load(args.start, tokens.codec)
    trainer = RecoveryTrainer(c, tokens, args.out, entries, start, device, args.workers)
    trainer.resumable = False
    return trainer


def train(trainer: RecoveryTrainer, seconds: float) -> None:
    """Learn for so many seconds."""
    from semaphone.training.recovery import wait_for
    from semaphone.training.runs import Pace, run_steps

    began = written = time.monotonic()

    def look(step: int) -> dict[str, Any] | None:
        nonlocal written
        if step == 100:
            say(bound(trainer))
        if time.monotonic() - written < WRITE:
            return None
        trainer.save_weights()
        written = time.monotonic()
        return {"written": step}

    def report(step: int, row: dict[str, Any]) -> None:
        facts = {name: value for name, value in row.items() if name != "seconds"}
        text = ", ".join(f"{name} {value:g}" for name, value in facts.items())
        rate = f", {1 / max(row['seconds'], 1e-3):.1f} steps/s" if "seconds" in row else ""
        say(f"step {step}: {text}{rate}")

    pace = Pace(seconds, trainer.settle, lambda: wait_for(trainer.device))
    try:
        run_steps(trainer, sys.maxsize, 10**9, report, look, began + seconds, pace)
    finally:
        trainer.close()
    took = time.monotonic() - began
    say(f"{trainer.step} steps in {took:.0f} s, {trainer.waited:.1f} s of them waiting for batches")


def bound(trainer: RecoveryTrainer, steps: int = 10) -> str:
    """What limits the training: how long some steps take to be asked for, and how long to be done."""
    from semaphone.training.recovery import wait_for

    wait_for(trainer.device)
    began, waited = time.monotonic(), trainer.waited
    for _ in range(steps):
        trainer.advance()
    asked, waited = time.monotonic() - began, trainer.waited - waited
    wait_for(trainer.device)
    done = time.monotonic() - began
    if waited > 0.2 * done:
        who = "the drawing of batches"
    else:
        who = "Python" if asked > 0.9 * done else "the device"
    parts = [1000 * x / steps for x in (asked, waited, done)]
    return (
        "a step is asked for in {:.1f} ms ({:.1f} ms of it waiting for its batch), done in {:.1f} ms: ".format(*parts)
        + f"limited by {who}"
    )


def main() -> None:
    """Tokenise, train, look at the dev set."""
    from semaphone.codec.nano_weights import read_nano
    from semaphone.errors import SemaphoneError
    from semaphone.recovery.rq_config import RQTransformerConfig
    from semaphone.recovery.rq_parts import fresh_parts
    from semaphone.recovery.rq_weights import load
    from semaphone.training.device import find_device
    from semaphone.training.recovery import WEIGHTS
    from semaphone.training.recovery_dev import evaluate

    args = options()
    try:
        fresh_parts(RQTransformerConfig(layers=1, codebook_size=2))  # what is missing is told before anything is done
        device = find_device(args.device)
        end = BEGAN + 60 * args.minutes
        model, met = read_nano(args.codec)
        model = model.eval().requires_grad_(False)
        say(f"on {device}")
        tokens, dev = tokens_of(args, model, met, device)
        say(f"tokens: {len(tokens)} utterances of {int(tokens.lengths.sum())} chunks, {len(dev)} for the dev set")
        trainer = trainer_of(args, model, tokens, device)
        train(trainer, max(0.0, end - END - time.monotonic()))
        if device.type == "cuda":
            import torch

            say(f"{torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB of the device's memory at most")
        if time.monotonic() > end:
            say("no time is left for the dev set")
            return
        found = evaluate(load(args.out / WEIGHTS).to(device), dev, tokens)
        (args.out / "dev.json").write_text(json.dumps(found, indent=1) + "\n")
        for weather, row in found.items():
            say(f"{weather}: " + ", ".join(f"{name} {row[name]:.3f} nat" for name in row if name.endswith("_mean")))
    except SemaphoneError as error:
        raise SystemExit(f"error: {error}") from None
    say("done")


BEGAN = time.monotonic()

if __name__ == "__main__":
    main()
