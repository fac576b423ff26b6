"""`semaphone call`: talk with another machine over UDP."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from semaphone.commands import _link
from semaphone.errors import InputError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from rich.table import Table

    from semaphone.call.ending import Ending
    from semaphone.call.ends import Sink, Source
    from semaphone.call.report import CallReport
    from semaphone.call.session import CallOptions, CallSession
    from semaphone.call.speaker import Voice
    from semaphone.codec.base import Codec


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = subparsers.add_parser(
        "call",
        help="talk with another machine over UDP",
        description="Talk over UDP, both ways at once, encrypted. One end listens, the other one connects; both need "
        "the same key file and codec. Ctrl-C hangs up.",
        epilog="example: semaphone call --new-key k;  semaphone call --listen :5004 --key-file k;  "
        "semaphone call --connect host:5004 --key-file k --in a.wav --out b.wav",
    )
    parser.add_argument("--new-key", metavar="FILE", help="make a key file, and do nothing else")
    parser.add_argument("--listen", metavar="[HOST]:PORT", help="wait here to be called")
    parser.add_argument("--connect", metavar="HOST:PORT", help="call whoever listens there")
    parser.add_argument("--key-file", metavar="FILE", help="the key that both ends have")
    parser.add_argument("--plain", action="store_true", help="do without encryption: anyone can listen and interfere")
    parser.add_argument(
        "--in",
        dest="input",
        default="microphone",
        metavar="FILE",
        help="what to say, at the pace of speech: a recording, - (raw 16-bit PCM), none, or microphone (default)",
    )
    parser.add_argument(
        "--out",
        dest="output",
        default="loudspeaker",
        metavar="FILE",
        help="where to hear: a .wav or .flac file, - (raw 16-bit PCM), none, or loudspeaker (default)",
    )
    _link.add_input_options(parser)
    _link.add_sender_options(parser)
    _link.add_recovery_option(parser)
    parser.add_argument(
        "--give-up",
        metavar="TIME",
        help="leave after hearing nothing for so long (default 60s; without it, --listen waits until somebody calls)",
    )
    parser.add_argument("--dashboard", action="store_true", help="show rates, losses and delays while talking")
    parser.add_argument("--report", metavar="FILE", help="write them as JSON at the end")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Make a key, or talk."""
    from semaphone.call.secure import new_key

    if args.new_key is not None:
        new_key(args.new_key)
        print(f"{args.new_key} is the key; bring a copy to the other end by a way that nobody else can read.")
        return 0
    options = _options(args)
    _link.reading(args, args.input)  # a rate goes with a pipe alone
    _link.check_outputs(
        None if args.input in ("none", "microphone", "-") else args.input,
        speech=None if args.output in ("none", "loudspeaker") else args.output,
        report=args.report,
    )
    return _call(args, options)


def _call(args: argparse.Namespace, options: CallOptions) -> int:
    import contextlib
    import json

    from semaphone.call.ending import Ending
    from semaphone.files import replacing

    failures: list[InputError] = []
    with contextlib.ExitStack() as stack:
        voice, options = _prepared(args, options)
        ending = stack.enter_context(Ending())
        part = None
        if args.report is not None:
            part = stack.enter_context(replacing(args.report))  # before the talk: is it possible at all?
        report = _talk(args, voice, options, ending, failures)
        if part is not None:
            part.write_text(json.dumps(report.to_json(), indent=2) + "\n", encoding="utf-8")
    if failures:
        raise failures[0]
    if args.output != "-":
        print(summary(report))
    return 0


def _options(args: argparse.Namespace) -> CallOptions:
    from semaphone.call.address import parse_address, parse_addresses, parse_duration
    from semaphone.call.secure import check_srtp, read_key
    from semaphone.call.session import CallOptions

    if args.listen is None and args.connect is None:
        raise InputError("Say --listen :5004 to be called, or --connect HOST:5004 to call.")
    if args.plain == (args.key_file is not None):
        raise InputError(
            "A call is encrypted with --key-file FILE (semaphone call --new-key FILE makes one), or --plain by name."
        )
    if not args.plain:
        check_srtp()
    called = parse_addresses(args.connect, "127.0.0.1") if args.connect is not None else [None]
    return CallOptions(
        listen=parse_address(args.listen) if args.listen is not None else None,
        connect=called[0],
        also=tuple(address for address in called[1:5] if address is not None),
        key=None if args.plain else read_key(args.key_file),
        give_up=parse_duration(args.give_up) if args.give_up is not None else None,
    )


def _voice(args: argparse.Namespace, codec: Codec) -> tuple[Voice, bool]:
    """What this end speaks, and whether it leaves out pauses."""
    from semaphone.call.speaker import Voice

    if args.schedule == "history":
        raise InputError("A call cannot send a history yet; its schedules are sliding, split, block and the bundles.")
    controller, form, dtx = _link.sender(args, codec.info, loss_report=True)
    return Voice(codec, controller, _link.recovery_of(args, codec.info), form), dtx


def _source(name: str, codec: Codec, channel: int | None = None, stdin_rate: int | None = None) -> Source:
    from semaphone.call.ends import FileSource, Nobody

    if name == "none":
        return Nobody()
    if name == "-":
        from semaphone.call.pipes import PipeSource

        return PipeSource(codec.info.sample_rate, codec.info.delay, pipe_rate=stdin_rate)
    if name == "microphone":
        from semaphone.call.device import Microphone

        return Microphone(codec.info.sample_rate)
    return FileSource(name, codec.info.sample_rate, codec.info.delay, channel)


def _sink(name: str, codec: Codec) -> Sink:
    from semaphone.call.ends import FileSink, Nobody

    if name == "none":
        return Nobody()
    if name == "-":
        from semaphone.call.pipes import PipeSink

        return PipeSink(codec.info.sample_rate)
    if name == "loudspeaker":
        from semaphone.call.device import Loudspeaker

        return Loudspeaker(codec.info.sample_rate)
    return FileSink(name, codec.info.sample_rate)


def _prepared(args: argparse.Namespace, options: CallOptions) -> tuple[Voice, CallOptions]:
    """The models, loaded."""
    from dataclasses import replace

    _link.one_thread()  # encoder and decoder have a thread each; more would only get in their way
    voice, dtx = _voice(args, _link.codec_of(args))
    _link.settle()
    return voice, replace(options, dtx=dtx)


def _talk(
    args: argparse.Namespace, voice: Voice, options: CallOptions, ending: Ending, failures: list[InputError]
) -> CallReport:
    """How the call went; `failures` gets why none came about."""
    import asyncio
    import contextlib
    from collections import deque

    from semaphone.call.address import show
    from semaphone.call.session import CallSession

    channel = None if args.mix == "mean" else args.mix
    source, sink = _source(args.input, voice.codec, channel, args.stdin_rate), _sink(args.output, voice.codec)
    lines: deque[str] = deque(maxlen=1)

    def note(line: str) -> None:
        lines.append(line)
        if not args.dashboard and sys.stderr is not None:
            with contextlib.suppress(OSError):  # a call goes on without someone to read this
                print(line, file=sys.stderr, flush=True)

    async def talking() -> CallReport:
        session = CallSession(voice, source, sink, options, note)
        if options.connect is not None:
            note(f"calling {show(options.connect)}")
        elif options.listen is not None:
            note(f"waiting at {show(options.listen)} to be called")
        task = asyncio.get_running_loop().create_task(session.run())
        # Hanging up is the usual end of a call and no error: the report and the recording are wanted.
        ending.calls(session.hang_up)
        if args.dashboard:
            await _show(session, task, lines)
        try:
            await task
        except InputError as error:
            failures.append(error)
        return session.report()

    return asyncio.run(talking())


async def _show(session: CallSession, task: asyncio.Task[CallReport], lines: Sequence[str]) -> None:
    """A table of the call, drawn anew four times a second until the task is done."""
    import asyncio

    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(stderr=True), auto_refresh=False) as live:
        while not task.done():
            live.update(_table(session, lines), refresh=True)
            await asyncio.wait([task], timeout=0.25)
        live.update(_table(session, lines), refresh=True)


def _table(session: CallSession, lines: Sequence[str]) -> Table:
    from rich.table import Table
    from rich.text import Text

    report, buffer, mask = session.report(), session.listener.buffer, session.speaker.mask
    losses = buffer.losses.report() if buffer is not None else None
    # A line may hold what a stranger has sent: it is text, and no markup.
    table = Table(title=Text(lines[-1] if lines else "waiting for the other end"))
    for column in ("", "sent", "heard"):
        table.add_column(column)

    def percent(value: float | None) -> str:
        return "–" if value is None else f"{value:.1%}"

    table.add_row("payload, bit/s", f"{report.sent_payload_bps:.0f}", f"{report.received_payload_bps:.0f}")
    table.add_row("gross, bit/s", f"{report.sent_gross_bps:.0f}", f"{report.received_gross_bps:.0f}")
    table.add_row("packets", str(report.packets_sent), str(report.packets_received))
    table.add_row(
        "loss, last packets",
        percent(report.reported_loss_rate),
        percent(losses.loss_rate if losses is not None else None),
    )
    table.add_row("loss, all packets", percent(report.sent_loss_rate), percent(report.loss_rate))
    table.add_row("burst, packets", "", f"{report.mean_burst:.1f}")
    table.add_row("codebooks + copies", f"{mask.sent} + {mask.twice}", "")
    table.add_row("jitter, ms", "", f"{report.jitter_ms:.1f}")
    for stage, delay in report.latency_ms.items():
        sent = stage.startswith("encoder")
        text = f"{delay.p50:.0f} (p99 {delay.p99:.0f})"
        table.add_row(f"{stage}, ms", text if sent else "", "" if sent else text)
    table.add_row("refused", "", ", ".join(f"{n} {what}" for what, n in report.refused.items()) or "0")
    return table


def summary(report: CallReport) -> str:
    """The figures of a call in a few lines."""
    if not report.meetings:
        return "nobody was met"
    round_trip = "" if report.round_trip_ms is None else f", round trip {report.round_trip_ms:.0f} ms"
    lost = report.sent_loss_rate
    arrived = "" if lost is None else f"of those sent, {lost:.1%} did not arrive; "
    ear = report.latency_ms.get("mouth_to_ear")
    text = (
        f"{report.seconds:.1f} s, {'encrypted' if report.encrypted else 'NOT encrypted'}: sent "
        f"{report.sent_payload_bps:.0f} bit/s of payload, {report.sent_gross_bps:.0f} in all; heard "
        f"{report.received_payload_bps:.0f}, {report.received_gross_bps:.0f} in all\n"
        f"{report.packets_received} packets came, {report.loss_rate:.1%} were lost or late in bursts of "
        f"{report.mean_burst:.1f}; {arrived}jitter {report.jitter_ms:.1f} ms{round_trip}"
    )
    if report.unheard_seconds > 10:
        text += f"\nnothing was heard of the other side in the last {report.unheard_seconds:.0f} s"
    for stage, delay in report.latency_ms.items():
        if stage != "mouth_to_ear":
            text += f"\n{stage.replace('_', ' '):>14}: {delay.p50:6.1f} ms, p99 {delay.p99:6.1f} ms"
    if ear is not None:
        text += f"\n  mouth to ear: {ear.p50:6.1f} ms, p99 {ear.p99:6.1f} ms (of it {report.context_ms:.0f} context)"
    return text
