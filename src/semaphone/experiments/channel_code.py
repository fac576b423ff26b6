"""What the channel code leaves of rows over the SNR (LSSC-ST eq 6), beside its linear part and its rivals.

    semaphone experiment channel-code --data recordings/ --out results/

Rows of Whisper's encoder over the recordings cross fast fading, h known. The error is that of eq 6, as Whisper's
decoder sees a row: 1 is the error of sending nothing. Every system meets the same rows.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from semaphone.experiments import options
from semaphone.experiments.translation_quality import TITLES, snr_range

if TYPE_CHECKING:
    from semaphone.training.channel_code import RowCache
    from semaphone.translation.channel_code import ChannelCode

SYSTEMS = ("trained", "its linear part", "analogue", "digital")
LENGTH = 40  # rows of a sequence


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the experiment."""
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="recordings that nothing was trained on"
    )
    parser.add_argument("--snr", default="-11:6:19", metavar="LOW:STEP:HIGH", help="dB")
    parser.add_argument("--fading", default="awgn,rayleigh", help="kinds, with commas")
    parser.add_argument("--code-weights", default="", metavar="FILE", help="another trained channel code")
    parser.add_argument("--sequences", type=options.count, default=64, metavar="N", help=f"of {LENGTH} rows each")
    parser.add_argument("--seed", type=int, default=1)


def run(args: argparse.Namespace) -> int:
    """Measures, prints, draws."""
    from semaphone.channel.fading import FadingChannel
    from semaphone.experiments.page import Curve, draw, paragraph, save, table, write_page
    from semaphone.training.channel_code import cache_rows
    from semaphone.translation.channel_code import load_code

    code, snrs, kinds = load_code(args.code_weights), snr_range(args.snr), args.fading.split(",")
    for kind in kinds:
        FadingChannel(kind)  # a wrong name is told at once
    with tempfile.TemporaryDirectory() as folder:
        cache = cache_rows(args.data, Path(folder) / "rows.npz", lambda text: print(text, flush=True))
    parts = [paragraph("Error of rows (eq 6), as Whisper's decoder sees them; 1 is the error of sending nothing.")]
    for fading in kinds:
        found = []
        for snr in snrs:
            found.append([row_error(code, cache, name, fading, snr, args.sequences, args.seed) for name in SYSTEMS])
            shown = ", ".join(f"{name} {error:.4f}" for name, error in zip(SYSTEMS, found[-1], strict=True))
            print(f"{fading} {snr:g} dB: {shown}", flush=True)
        curves = [Curve(name, snrs, [errors[k] for errors in found]) for k, name in enumerate(SYSTEMS)]
        figure = draw(curves, f"Rows over {TITLES.get(fading, fading)}", "SNR (dB)", "error (eq 6)")
        figure.axes[0].set_yscale("log")
        parts.append(save(figure, args.out, f"channel-code-{fading}"))
        rows = [[f"{snr:g}", *(f"{e:.4f}" for e in errors)] for snr, errors in zip(snrs, found, strict=True)]
        parts.append(table(["SNR (dB)", *SYSTEMS], rows))
    write_page(args.out / "index.html", "The channel code", parts)
    print(f"figures and page in {args.out}")
    return 0


def row_error(
    code: ChannelCode, cache: RowCache, system: str, fading: str, snr_db: float, count: int, seed: int
) -> float:
    """Eq 6 of one system, mean over `count` sequences."""
    import torch

    from semaphone.baselines.symbols import AnalogueCode, DigitalCode
    from semaphone.channel.fading import FadingChannel
    from semaphone.training.channel_code import errors
    from semaphone.translation.radio import Radio

    if system in SYSTEMS[:2]:
        return errors(code, cache, fading, snr_db, count, LENGTH, seed, dense=system == "trained")
    rival = AnalogueCode(code=code) if system == "analogue" else DigitalCode(code=code)
    radio = Radio(rival, FadingChannel(fading, snr_db))
    sequences = cache.draw(count, LENGTH, np.random.default_rng(seed))
    arrived = [radio.carry(rows.numpy(), radio.start(n))[0] for n, rows in enumerate(sequences)]
    guess = code.components(torch.from_numpy(np.stack(arrived)))
    return float(code.error(guess, code.components(sequences)).mean())
