"""`semaphone decode`: an .sph file becomes speech."""

from __future__ import annotations

import argparse

from semaphone.commands import _link


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = subparsers.add_parser(
        "decode", help="turn an .sph file into speech", description="Turn an .sph file into speech."
    )
    parser.add_argument("input", metavar="IN", help="the .sph file (- is standard input)")
    parser.add_argument("output", metavar="OUT", help="the speech (.wav or .flac; - is raw 16-bit PCM)")
    parser.add_argument("--codec", default="nano", help="nano, mimi, mimi:FOLDER or a file of nano weights")
    # What `encode` writes has no gaps, and a model that waits for some takes longer than the codec.
    _link.add_recovery_option(parser, "hold")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Decode block by block."""
    _link.live_input(args.input)  # before anything heavy is imported
    from semaphone.audio import AudioWriter
    from semaphone.commands._progress import counted, progress
    from semaphone.link.stored import check_header, check_name, decode
    from semaphone.packet.sph import SphReader

    _link.check_outputs(args.input, speech=args.output)
    with SphReader(args.input, mend=True) as reader:
        check_name(reader.header, args.codec)
        codec = _link.codec_of(args)
        info = codec.info
        check_header(reader.header, info)
        with progress() as bar, AudioWriter(args.output, info.sample_rate) as out:
            task = bar.add_task("decoding", total=reader.header.num_samples)
            for block in counted(decode(reader, codec, _link.recovery_of(args, info)), bar, task):
                out.write(block)
        if args.output != "-":
            print(f"{out.samples_written / info.sample_rate:.1f} s of speech")
    return 0
