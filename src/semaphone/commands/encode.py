"""`semaphone encode`: a recording becomes an .sph file of packets."""

from __future__ import annotations

import argparse

from semaphone.commands import _history, _link


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = subparsers.add_parser(
        "encode", help="compress a recording into an .sph file", description="Compress a recording into an .sph file."
    )
    parser.add_argument("input", metavar="IN", help="the recording (- is raw 16-bit PCM at the codec's rate)")
    parser.add_argument("output", metavar="OUT", help="the .sph file (- is standard output)")
    _link.add_input_options(parser)
    _link.add_sender_options(parser)
    _history.add_options(parser)
    parser.add_argument(
        "--expect-loss", type=_link.share, default=0.0, metavar="P", help="loss rate that the packets will meet"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Encode and say how small it became."""
    _link.live_input(args.input)  # before anything heavy is imported
    from semaphone.audio import probe, read_blocks
    from semaphone.commands._progress import counted, progress
    from semaphone.link.stored import encode
    from semaphone.link.talk import Length
    from semaphone.packet.sph import SphHeader, SphWriter

    _link.check_outputs(args.input, stream=args.output)
    options = _link.reading(args, args.input)
    codec = _link.codec_of(args)
    info = codec.info
    controller, form, dtx = _link.sender(args, info)
    if args.stdin_rate is None:
        options["stdin_rate"] = info.sample_rate
    blocks = read_blocks(args.input, info.sample_rate, **options)
    seconds = None if args.input == "-" else probe(args.input).seconds
    length, size = Length(), 0
    header = SphHeader(info.name, info.fingerprint, info.sample_rate, form)
    with progress() as bar, SphWriter(args.output, header) as out:
        task = bar.add_task("encoding", total=None if seconds is None else seconds * info.sample_rate)
        for packet in encode(counted(blocks, bar, task), codec, controller, form, length, args.expect_loss, dtx):
            out.write(packet.sequence, packet.payload)
            size += len(packet.payload)
        out.finish(length.samples)
    if args.output != "-":
        spoken = length.samples / info.sample_rate
        print(f"{spoken:.1f} s of speech in {size} bytes of payload, {8 * size / max(spoken, 1e-9):.0f} bit/s")
    return 0
