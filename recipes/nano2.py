"""nano 2 in ten minutes of one data-centre GPU: tokens that keep words, then a decoder that bridges losses.

    semaphone train prepare --data recordings/ --out corpus/          # once, on a machine with our extras
    python recipes/teacher.py whisper-encoder.safetensors             # the same
    python recipes/nano2.py --packed corpus/ --teacher whisper-encoder.safetensors \
        --start src/semaphone/weights/nano-codec.safetensors --out run/ --minutes 5,2

The first stage moves encoder, codebooks and decoder together: mel spectra, pitch, discriminators and what Whisper's
encoder hears in the decoded speech. The second keeps the tokens and trains the decoder with chunks lost on the way.
Each stage measures its speed and sets its number of steps from its minutes. The averaged weights are written every
two minutes, at the end with the ranges that 8-bit products need.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from teacher import load_teacher

from semaphone.training.adversarial import AdversarialTrainer, AdversarialTraining
from semaphone.training.codec import STATE, WEIGHTS
from semaphone.training.data import Corpus, open_corpus
from semaphone.training.device import find_device
from semaphone.training.hearing import HeardLoss
from semaphone.training.runs import Pace, run_steps

SHARES = {
    "speechocean762": 0.28,
    "librispeech-train-clean-100": 0.20,
    "librispeech-dev-clean-mp3": 0.10,
    "ms-snsd-clean": 0.18,
    "asterisk": 0.07,
    "picovoice-sti": 0.04,
    "kathleen": 0.03,
    "an4": 0.03,
    "kerstin": 0.02,
    "nathalie": 0.015,
    "audio-cmn": 0.015,
    "emodb": 0.01,
    "picovoice-wakewords": 0.005,
    "librispeech-voicefilter": 0.005,
}
COMMON: dict[str, Any] = {
    "crop": 20, "gain_db": (-18.0, 6.0), "telephone": 0.12, "heard": 10.0, "shares": SHARES, "range_batches": 0,
    "full_depth": 0.3, "half_depth": 0.3, "judged_chunks": 10, "judge_rate": 4e-4, "every": 10**9, "steps": 100_000,
}  # fmt: skip
STAGES: dict[str, dict[str, Any]] = {
    "tokens": {"move": True, "endless": 0.1, "rate": 5e-4, "final_rate": 3e-5, "warmup": 200, "alone": 60},
    "voice": {"lost": 0.4, "rate": 3e-4, "final_rate": 2e-5, "warmup": 30, "alone": 0},
}
SAVING = 4.0  # s of a stage that are kept for its last checkpoint


def main() -> None:
    args = _arguments()
    device = find_device(args.device)
    torch.backends.cudnn.benchmark = True  # all batches have one shape
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    corpus = _corpus(args)
    heard = load_teacher(Path(args.teacher))
    start = Path(args.start)
    for number, (name, minutes) in enumerate(zip(STAGES, args.minutes.split(","), strict=True)):
        settings = {
            **COMMON,
            **STAGES[name],
            "batch": args.batch,
            "judged_crops": args.judged,
            "channels": args.channels,
        }
        if name == "tokens":
            settings["rate"] = args.rate
        c = AdversarialTraining(seed=args.seed + number, bf16=args.precision == "bf16", **settings)
        share = Path(args.share) if args.share else None
        start = run_stage(name, c, corpus, out, start, heard, device, 60 * float(minutes), share)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packed", help="a packed corpus; files of it may be missing")
    parser.add_argument("--cache", help="a corpus cache; made of the packed corpus if that is given")
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--start", required=True, help="weights of a nano codec, or a checkpoint")
    parser.add_argument("--out", required=True)
    parser.add_argument("--minutes", default="5,2", help="of the two stages; 0 leaves one out")
    parser.add_argument("--batch", type=int, default=320)
    parser.add_argument("--judged", type=int, default=96, help="crops that the discriminators see")
    parser.add_argument("--channels", type=int, default=16, help="of the discriminators")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", choices=["bf16", "float32"], default="bf16")
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--rate", type=float, default=5e-4, help="highest learning rate of the first stage")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--share", help="folder that gets copies of what is worth keeping, as it comes")
    return parser.parse_args()


def _corpus(args: argparse.Namespace) -> Corpus:
    cache = Path(args.cache or Path(args.out) / "cache")
    if args.packed and not (cache / "index.json").exists():
        from semaphone.training.packed import unpack_corpus

        began = time.monotonic()
        corpus = unpack_corpus(Path(args.packed), cache, workers=args.workers, partial=True)
        print(f"unpacked {len(corpus.audio) / 57.6e6:.2f} h in {time.monotonic() - began:.1f} s", flush=True)
    corpus = open_corpus(cache)
    print(f"{len(corpus.recordings)} recordings, {len(corpus.audio) / 57.6e6:.2f} h", flush=True)
    return corpus


def run_stage(
    name: str,
    c: AdversarialTraining,
    corpus: Corpus,
    out: Path,
    start: Path,
    heard: HeardLoss,
    device: torch.device,
    seconds: float,
    share: Path | None,
) -> Path:
    """One stage of `seconds`; its checkpoint, or `start` if it has no time."""
    if seconds <= 0:
        return start
    began = shared = time.monotonic()
    trainer = AdversarialTrainer(c, corpus, out / name, start, heard, device)

    def settle(steps: int) -> None:
        trainer.c = replace(trainer.c, steps=steps)

    def report(step: int, row: dict[str, Any]) -> None:
        print(f"{name} {step} {json.dumps(row)}", flush=True)

    def look(step: int) -> None:
        nonlocal shared
        if time.monotonic() - shared > 120:
            shared = time.monotonic()
            trainer.export()
            _share(out / name / WEIGHTS, share)

    pace = Pace(seconds - (time.monotonic() - began) - SAVING, settle, lambda: _wait(device))
    run_steps(trainer, sys.maxsize, 10**9, report, look, began + seconds - SAVING, pace)
    if name == "voice":  # the last stage: what 8-bit products need is measured once
        trainer.c = replace(trainer.c, range_batches=8)
        trainer.export()
    _share(out / name / WEIGHTS, share)
    judges = out / name / "judges.pt"
    torch.save({key: value.cpu() for key, value in trainer.judges.state_dict().items()}, judges)
    _share(judges, share)
    memory = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else 0.0
    print(f"{name}: {trainer.step} steps in {time.monotonic() - began:.0f} s, {memory:.1f} GiB", flush=True)
    return out / name / STATE


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _share(path: Path, folder: Path | None) -> None:
    """Copy a file to the folder of `--share`, in parts of 16 million bytes."""
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    data = path.read_bytes()
    for i, at in enumerate(range(0, len(data), 16_000_000)):
        part = folder / f"{path.stem}.part{i}"
        part.with_suffix(".new").write_bytes(data[at : at + 16_000_000])
        shutil.move(part.with_suffix(".new"), part)


if __name__ == "__main__":
    main()
