"""`semaphone relay`: bad weather in a box, between two ends of a call."""

from __future__ import annotations

import argparse

from semaphone.commands import _link


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = subparsers.add_parser(
        "relay",
        help="lose, delay and reorder UDP packets between two programs",
        description="Pass UDP packets on, in both directions, as a bad network would. Ctrl-C ends it.",
        epilog="example: semaphone relay --listen :5004 --to 127.0.0.1:5006 --loss 0.2 --jitter 30ms --reorder 0.05",
    )
    parser.add_argument("--listen", required=True, metavar="[HOST]:PORT", help="where clients send to")
    parser.add_argument("--to", required=True, metavar="HOST:PORT", help="where their packets go")
    loss = parser.add_mutually_exclusive_group()
    loss.add_argument("--loss", type=float, metavar="P", help="share of packets lost, 0 to 1")
    loss.add_argument("--channel", help="uniform:0.1, gilbert-elliott:loss=0.2,burst=240ms, trace:FILE,loop ...")
    parser.add_argument("--burst", metavar="TIME", help="losses of --loss come in bursts of this mean length")
    parser.add_argument("--delay", default="0", metavar="TIME", help="on the way; at least the jitter")
    parser.add_argument("--jitter", default="0", metavar="TIME", help="uniform around the delay: 30ms is ±30 ms")
    parser.add_argument("--delays", metavar="FILE", help="delays of a real network over time, CSV in ms, .gz or not")
    parser.add_argument("--duplicate", type=float, default=0.0, metavar="P", help="share of packets that come twice")
    parser.add_argument("--reorder", type=float, default=0.0, metavar="P", help="share of packets that overtake others")
    parser.add_argument("--rate", metavar="RATE", help="of the link, such as 8kbit, IPv4 and UDP headers included")
    parser.add_argument("--seed", type=_link.whole, default=0, help="the same seed is the same weather")
    parser.add_argument("--seconds", metavar="TIME", help="end after this time")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Relay until stopped, then say what happened."""
    import asyncio

    from semaphone.call.address import parse_address, parse_duration, parse_rate, show
    from semaphone.call.ending import Ending
    from semaphone.call.relay import Conditions, Relay, open_relay
    from semaphone.channel.delays import read_delays
    from semaphone.channel.erasure import GilbertElliott, Uniform, parse_channel
    from semaphone.errors import InputError

    if args.burst is not None and args.loss is None:
        raise InputError("--burst goes with --loss.")
    if args.channel is not None:
        channel = parse_channel(args.channel)
    elif args.burst is not None:
        channel = GilbertElliott(args.loss, parse_duration(args.burst))
    else:
        channel = Uniform(args.loss or 0.0)
    conditions = Conditions(
        channel,
        delay=parse_duration(args.delay),
        jitter=parse_duration(args.jitter),
        delays=read_delays(args.delays) if args.delays is not None else None,
        duplicates=args.duplicate,
        reordering=args.reorder,
        rate=parse_rate(args.rate) if args.rate is not None else 0.0,
    )
    listen, target = parse_address(args.listen), parse_address(args.to, "127.0.0.1")
    seconds = parse_duration(args.seconds) if args.seconds is not None else None
    running: list[Relay] = []

    async def relaying() -> None:
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        ending.calls(over.cancel)
        running.append(await open_relay(listen, target, conditions, args.seed))
        print(f"relaying from {show(listen)} to {show(target)}, {channel}", flush=True)
        try:
            await asyncio.wait([running[0].failed, over], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if running[0].failed.done():
                running[0].failed.result()
        finally:
            running[0].close()

    with Ending() as ending:  # a signal is the usual end, and no error: the counts are wanted
        try:
            asyncio.run(relaying())
        finally:
            for direction, counts in (running[0].counts if running else {}).items():
                print(f"{direction}: " + (", ".join(f"{n} {what}" for what, n in counts.items()) or "nothing came"))
    return 0
