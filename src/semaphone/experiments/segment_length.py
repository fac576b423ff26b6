"""Quality and latency over the length of fixed segments (the paper's published curves for 0.25 to 1 s).

    semaphone experiment segment-length --data recordings.csv --from fra --out results/

Each segment is translated alone, as in the paper (context `none`), and with the window of context `left`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from semaphone.commands.translate import add_decoder_options
from semaphone.errors import InputError
from semaphone.lines import Measured

KEY = ("context", "length", "file")
# BLASER 2.0, eng-cmn, AWGN at 19 dB. The published Rayleigh curves of 0.5 and 1 s end in digits that look typed.
PAPER = {0.25: 2.73, 0.5: 3.24, 0.75: 3.61, 1.0: 3.89}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the experiment."""
    parser.add_argument("--data", type=Path, required=True, metavar="PATH", help="CSV of recordings or FLEURS folder")
    parser.add_argument("--from", dest="source", default="fra", metavar="LANG")
    parser.add_argument("--limit", type=int, metavar="N", help="use only the first N recordings")
    parser.add_argument("--lengths", default="0.25,0.5,0.75,1.0,1.5,2.0", metavar="S,S", help="seconds")
    parser.add_argument("--contexts", default="none,left", help="with commas")
    parser.add_argument("--compressor", default="cnn", metavar="NAME")
    add_decoder_options(parser)


def run(args: argparse.Namespace) -> int:
    """Measures what is not measured yet, then draws."""
    from semaphone.audio import read_audio
    from semaphone.metrics.translation import chrf
    from semaphone.translation.chain import Chain
    from semaphone.translation.corpora import load_pairs
    from semaphone.translation.models.whisper import WhisperConfig, WhisperTranslator
    from semaphone.translation.segmenter import SegmenterConfig

    try:
        lengths = [float(text) for text in args.lengths.split(",")]
    except ValueError:
        raise InputError(f"Lengths are seconds with commas between them, not {args.lengths!r}.") from None
    pairs = load_pairs(args.data, args.source, "eng", limit=args.limit)
    settings = {name: getattr(args, name) for name in ("source", "compressor", "doubt", "beam")}
    lines = Measured(args.out / "results.jsonl", KEY, settings)
    for context in args.contexts.split(","):
        model = WhisperTranslator(WhisperConfig(context=context, **settings))
        for length in lengths:
            chain = Chain(model, segments=SegmenterConfig(mode="fixed", first=length), speak=False)
            for pair in pairs:
                place: dict[str, Any] = {"context": context, "length": length, "file": pair.file.name}
                if not lines.get(**place):
                    talk = chain.run([read_audio(pair.file, 16_000)])
                    lines.add({**place, "text": talk.text, "reference": pair.reference})
            found = [x for x in lines if (x["context"], x["length"]) == (context, length)]
            score = chrf([x["text"] for x in found], [x["reference"] for x in found])
            print(f"{context} {length} s: chrF {score:.1f}", flush=True)
    draw_results(lines, args.out)
    return 0


def draw_results(lines: Measured, out: Path) -> None:
    """Figure and page from result lines."""
    from semaphone.experiments.page import Curve, draw, paragraph, save, table, write_page
    from semaphone.metrics.translation import chrf

    found = list(lines)
    curves, rows = [], []
    for context in sorted({x["context"] for x in found}):
        lengths = sorted({x["length"] for x in found if x["context"] == context})
        y = []
        for length in lengths:
            chosen = [x for x in found if (x["context"], x["length"]) == (context, length)]
            y.append(chrf([x["text"] for x in chosen], [x["reference"] for x in chosen]))
            rows.append([context, length, y[-1], PAPER.get(length, "")])
        curves.append(Curve(context, lengths, y))
    figure = draw(curves, "Quality over the length of segments, no noise", "segment (s)", "chrF")
    parts = [save(figure, out, "segment-length"), table(["context", "s", "chrF", "the paper's BLASER 2.0"], rows)]
    parts.append(paragraph("The paper's figures are for eng-cmn, AWGN at 19 dB."))
    write_page(out / "index.html", "Quality over the length of segments", parts)
