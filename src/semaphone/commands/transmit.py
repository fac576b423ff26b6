"""`semaphone transmit`: send a recording over a simulated lossy link and write what arrives."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from semaphone.commands import _history, _link

if TYPE_CHECKING:
    from semaphone.link.feedback import Feedback
    from semaphone.link.report import LinkReport
    from semaphone.link.simulate import Record
    from semaphone.link.talk import Beginning


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = subparsers.add_parser(
        "transmit",
        help="send a recording over a lossy link and hear what arrives",
        description="Send a recording over a simulated lossy link: speech, tokens, packets, loss, recovery, speech.",
        epilog="channels: none, uniform:0.1, gilbert-elliott:loss=0.2,burst=240ms, trace:FILE,loop, "
        "schedule:0-4s=0,4-8s=0.2",
    )
    parser.add_argument("input", metavar="IN", help="the recording (WAV, FLAC, Ogg, MP3 ...; - is raw 16 kHz PCM)")
    parser.add_argument("output", metavar="OUT", help="what arrives (.wav or .flac; - is raw PCM)")
    parser.add_argument("--channel", default="none", help="what is lost (default none); see below")
    _link.add_input_options(parser)
    _link.add_sender_options(parser)
    _history.add_options(parser)
    _link.add_recovery_option(parser)
    _history.add_wait_option(parser)
    parser.add_argument(
        "--feedback",
        choices=["receiver", "oracle", "none"],
        default="receiver",
        help="where the sender has the loss rate from: the receiver's smoothed reports (default), the channel, nowhere",
    )
    parser.add_argument("--feedback-delay", default="200ms", metavar="TIME", help="that reports take (default 200ms)")
    parser.add_argument("--seed", type=_link.whole, default=0, help="the same seed loses the same packets")
    parser.add_argument("--report", metavar="FILE", help="write rates, losses and delays as JSON")
    parser.add_argument("--plot", metavar="FILE", help="draw the talk (.png, .svg or .pdf)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Send, write, report."""
    _link.live_input(args.input)  # before anything heavy is imported
    from semaphone.audio import AudioWriter, probe, read_blocks
    from semaphone.channel.erasure import parse_channel
    from semaphone.commands._progress import counted, progress
    from semaphone.controller.base import FixedController
    from semaphone.link.plot import SHOWN
    from semaphone.link.simulate import Link, Record, simulate
    from semaphone.link.talk import Beginning

    _link.check_outputs(args.input, speech=args.output, report=args.report, picture=args.plot)
    options = _link.reading(args, args.input)
    channel = parse_channel(args.channel)
    told, wait = _feedback(args), _history.wait_of(args)
    codec = _link.codec_of(args)
    info = codec.info
    controller, form, dtx = _link.sender(args, info)
    # A fixed controller does not listen: nobody would send it reports.
    feedback = None if isinstance(controller, FixedController) else told
    link = Link(codec, controller, form, _link.recovery_of(args, info), channel, feedback, dtx, wait)
    _link.settle()
    blocks = read_blocks(args.input, info.sample_rate, **options)
    seconds = None if args.input == "-" else probe(args.input).seconds
    keep = int(SHOWN * info.sample_rate) if args.plot else 0
    record, said, heard = Record(), Beginning(keep), Beginning(keep)
    with progress() as bar, AudioWriter(args.output, info.sample_rate) as out:
        task = bar.add_task("sending", total=None if seconds is None else seconds * info.sample_rate)
        for block in simulate(said.listen(counted(blocks, bar, task)), link, args.seed, record):
            heard.add(block)
            out.write(block)
    report = record.report(link, args.seed, _link.recovery_name(args, info))
    _write_report(args.report, report)
    _write_plot(args.plot, report, record, said, heard, info.sample_rate, info.chunk_samples)
    if args.output != "-":
        print(summary(report))
    return 0


def _feedback(args: argparse.Namespace) -> Feedback | None:
    from semaphone.call.address import parse_duration
    from semaphone.link.feedback import Feedback

    delay = parse_duration(args.feedback_delay)
    return None if args.feedback == "none" else Feedback(args.feedback, delay)


def summary(report: LinkReport) -> str:
    """The figures of a talk in three lines."""
    delay = report.latency_ms["total"]
    return (
        f"{report.seconds:.1f} s of speech: {report.token_bps:.0f} bit/s of tokens, {report.payload_bps:.0f} of "
        f"payload, {report.gross_bps:.0f} with IPv4, UDP and RTP headers\n"
        f"{report.packets_lost} of {report.packets_sent} packets lost ({report.packet_loss_rate:.1%}), and with them "
        f"{report.token_loss_rate:.1%} of the tokens; of {report.chunk_loss_rate:.1%} of the chunks nothing came\n"
        f"delay of a block {delay.p50:.0f} ms (p99 {delay.p99:.0f} ms), computed in {report.real_time_factor:.3f} of "
        "real time"
    )


def _write_report(path: str | None, report: LinkReport) -> None:
    if path is None:
        return
    import json

    from semaphone.files import write_whole

    write_whole(path, json.dumps(report.to_json(), indent=2) + "\n")


def _write_plot(
    path: str | None,
    report: LinkReport,
    record: Record,
    said: Beginning,
    heard: Beginning,
    sample_rate: int,
    chunk_samples: int,
) -> None:
    if path is None:
        return
    from semaphone.files import replacing
    from semaphone.link.plot import plot_link

    title = (
        f"{report.codec}, {report.controller}, {report.channel}, recovery {report.recovery}: "
        f"{report.payload_bps:.0f} bit/s, {report.packet_loss_rate:.0%} of packets lost"
    )
    with replacing(path) as part:
        chunk = chunk_samples / sample_rate
        plot_link(part, _link.suffix(path), said.samples(), heard.samples(), record, sample_rate, chunk, title)
