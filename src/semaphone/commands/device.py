"""`semaphone device`: the speaking or the listening device of a translated talk between edges."""

from __future__ import annotations

import argparse
import time
from typing import Any

from semaphone.commands.edge import add_client_security, client_security, model_of
from semaphone.commands.translate import add_talk_options, segmenter_config, settle_talk_options


def register(subparsers: Any) -> None:
    """Adds the command."""
    parser = subparsers.add_parser("device", help="speak into a translated talk, or listen to one")
    parser.add_argument("--edge", default="127.0.0.1:7000", metavar="HOST:PORT", help="the edge of this device")
    parser.add_argument("--talk", default="talk", metavar="NAME", help="name of the talk, the same for both devices")
    side = parser.add_mutually_exclusive_group(required=True)
    side.add_argument("--speak", metavar="FILE", help="speech to send, any audio file")
    side.add_argument("--listen", metavar="FILE", help="where to write the translated speech, .wav or .flac")
    parser.add_argument("--live", action="store_true", help="send speech at the speed it was spoken")
    parser.add_argument("--seed", type=int, default=0, help="of the simulated radio")
    add_talk_options(parser)
    add_client_security(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Speaks or listens."""
    settle_talk_options(args)
    return _speak(args) if args.speak else _listen(args)


def _opening(args: argparse.Namespace) -> Any:
    from semaphone.translation.wire.client import opening

    context, compressor = args.context or "left", args.compressor or "none"
    return opening(args.talk, args.source, args.target, args.model, args.seed, context, compressor)


def _speak(args: argparse.Namespace) -> int:
    from semaphone.audio import read_blocks
    from semaphone.translation.device import SpeakingDevice
    from semaphone.translation.segmenter import Segmenter
    from semaphone.translation.wire.client import speak

    first = _opening(args)
    model = model_of(args.weights, args.threads)(first)
    device = SpeakingDevice(model, Segmenter(segmenter_config(args.segments, args.rule)))
    blocks = read_blocks(args.speak, 16_000)
    receipt = speak(args.edge, client_security(args), first, device, _paced(blocks) if args.live else blocks)
    print(f"{receipt.segments} segments sent; {receipt.symbols} symbols crossed the radio")
    return 0


def _paced(blocks: Any) -> Any:
    """Blocks no sooner than they would have been spoken."""
    begin, sent = time.monotonic(), 0
    for block in blocks:
        for first in range(0, len(block), 1600):
            piece = block[first : first + 1600]
            sent += len(piece)
            time.sleep(max(0.0, begin + sent / 16_000 - time.monotonic()))
            yield piece


def _listen(args: argparse.Namespace) -> int:
    from semaphone.audio import AudioWriter
    from semaphone.translation.wire.client import listen

    model = model_of(args.weights, args.threads)(_opening(args))
    with AudioWriter(args.listen, model.info.sample_rate) as writer:
        for phrase in listen(args.edge, client_security(args), args.talk):
            print(phrase.text.strip(), flush=True)
            writer.write(model.speak(phrase))
    return 0
