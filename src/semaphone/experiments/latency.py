"""How long a sound takes from mouth to ear (LargeSC Table II, eqs 21-23), part by part.

    semaphone experiment latency --data recordings/ --out results/ [--recovery FILE] [--lyra FOLDER]

A talk goes through the real transmitter and receiver, block by block, in every schedule; each part of the computing
is timed where it happens. Waiting follows from the schedule: a sound waits until its block is complete and its last
copy has left, and for the decoder's overlap. The network itself takes no time here, as in the paper. Beside it: Opus,
SoundStream, and a text link, which is what the paper's SyncSC does.

Computing times are those of this machine at this moment, so a second run gives others.
"""

from __future__ import annotations

import argparse
import hashlib
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from semaphone.errors import InputError, MissingExtraError
from semaphone.experiments import options
from semaphone.experiments.lines import Lines
from semaphone.experiments.terminal import print_table

if TYPE_CHECKING:
    from semaphone.audio import Samples
    from semaphone.baselines.base import Baseline
    from semaphone.codec.base import Codec
    from semaphone.controller.base import Controller
    from semaphone.packet.format import PacketFormat
    from semaphone.recovery.base import Recovery

KEY = ("method", "setting", "talk")
SCHEDULES = "split,block,bundle:80ms,bundle:160ms,bundle:320ms"
RIVALS = ("opus:8000:20ms", "opus:8000:60ms", "soundstream:6000", "textlink")
BUSY = 0.8  # of a core: a process that has less shares it with others
SKIPPED = 2  # first blocks, in which everything is touched for the first time
CODEBOOKS, COPIES = 8, 7  # the paper's 2.06 kbit/s

# Parts in the order in which they come. Waiting (T_context) first, then computing (T_coder, T_RA, T_LM).
WAITING = {"block": "block of speech", "copies": "copies in later packets", "lookahead": "look-ahead, overlap"}
COMPUTING = {
    "encoder": "encoder",
    "controller": "controller",
    "packetise": "packets, written",
    "depacketise": "packets, read",
    "recovery": "recovery",
    "decoder": "decoder",
}
# Table II: kHz, bit/s, T_coder, T_context, delay in s (its T_coder is headed ms, and adds up in s only).
PAPER = (
    ("Opus", 24, 8000.0, 0.00077, 0.06, 0.061),
    ("SoundStream", 24, 6400.0, 0.044, 0.013, 0.057),
    ("SyncSC (speech to text to speech)", 16, 55.37, 0.18, 1.68, 1.86),
    ("LargeSC, A100", 24, 2060.0, 0.30, 0.16, 0.46),
    ("LargeSC, RTX 3080", 24, 2060.0, 0.32, 0.16, 0.48),
)


@dataclass(frozen=True)
class Timed:
    """What was timed of one method; all in s, one entry a block, packet or phrase."""

    waiting: dict[str, list[float]]  # by names of WAITING; a single entry holds for all
    computing: dict[str, list[float]]  # by names of COMPUTING
    seconds: float  # of speech
    payload_bps: float
    sample_rate: int
    busy: float  # s of computing for all of the speech
    share: float  # of a core that this process had meanwhile: less than 1 where others compute, too
    lost_tokens: float = 0.0  # a chunk, on average: N of eq 23

    def row(self) -> dict[str, Any]:
        """As it stands in the file of results, in ms."""
        count = max(map(len, [*self.computing.values(), *self.waiting.values()]))
        context = _sums(self.waiting, count)
        coder = _sums(self.computing, count)
        return {
            "parts_ms": {name: _quantiles(v) for name, v in (self.waiting | self.computing).items()},
            "context_ms": _quantiles(context),
            "coder_ms": _quantiles(coder),
            "total_ms": _quantiles(context + coder),
            "real_time_factor": round(self.busy / self.seconds, 4),
            "payload_bps": round(self.payload_bps, 1),
            "core_share": round(self.share, 3),
            "sample_rate": self.sample_rate,
            "seconds": round(self.seconds, 2),
            "lost_tokens": round(self.lost_tokens, 3),
            "count": count,
        }


def _sums(parts: dict[str, list[float]], count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    total = np.zeros(count)
    for values in parts.values():
        total += np.asarray(values if len(values) > 1 else values * count)
    return total


def _quantiles(values: Sequence[float] | np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, float]:
    p50, p99 = np.percentile(np.asarray(values) * 1000.0, [50, 99])
    return {"p50": round(float(p50), 3), "p99": round(float(p99), 3)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the experiment."""
    parser.add_argument("--data", type=Path, required=True, metavar="FILE-OR-DIR", help="a recording, or a folder")
    parser.add_argument("--seconds", type=float, metavar="S", help="of speech to send (default 30, with --quick 8)")
    parser.add_argument("--quick", action="store_true", help="a first look")
    parser.add_argument("--loss", type=float, default=0.1, help="share of packets lost on the way (default 0.1)")
    parser.add_argument("--schedules", default=SCHEDULES, metavar="LIST", help=f"default {SCHEDULES}")
    parser.add_argument("--codebooks", type=options.count, help=f"tokens sent of each chunk (default {CODEBOOKS})")
    parser.add_argument("--copies", type=int, help=f"of them twice (default {COPIES}, the paper's 2.06 kbit/s)")
    parser.add_argument("--seed", type=int, default=1, help="of the losses (default 1)")
    options.add_system_options(parser)


def run(args: argparse.Namespace) -> int:
    """Time what is not timed yet, print the table, draw."""
    from semaphone.commands._progress import progress
    from semaphone.experiments.talk import read_talk

    seconds = args.seconds or (8.0 if args.quick else 30.0)
    speech = read_talk(args.data, seconds)
    talk = hashlib.sha256(speech.tobytes()).hexdigest()[:12]
    lines = Lines(args.out / "results.jsonl", KEY)
    rows: list[dict[str, Any]] = []
    methods = [*_ours(args, speech), *_rivals(args, speech)]
    with progress() as bar:
        task = bar.add_task("timing", total=len(methods))
        for method, setting, timed in methods:
            bar.update(task, description=f"{method}, {setting}")
            place = {"method": method, "setting": setting, "talk": talk}
            row = lines.get(**place)
            if row is None:
                try:
                    row = lines.add({**place, **timed().row(), "machine": _machine()})
                except MissingExtraError as error:
                    bar.console.print(f"left out: {method}: {error}")
            if row is not None:
                rows.append(row)
            bar.advance(task)
    _print(rows)
    _page(rows, args)
    print(f"results in {lines.path}, table and figure in {args.out}")
    return 0


Method = tuple[str, str, "Callable[[], Timed]"]


def _ours(args: argparse.Namespace, speech: Samples) -> Iterator[Method]:
    from semaphone.audio import Resampler
    from semaphone.controller.base import FixedController
    from semaphone.experiments.systems import codec_named, recovery_named
    from semaphone.packet.format import PacketFormat

    if not 0 <= args.loss < 1:
        raise InputError(f"A loss rate lies from 0 to below 1, not at {args.loss:g}.")
    name = options.recovery_of(args)
    codec = codec_named(args.codec)
    info = codec.info
    codebooks = min(args.codebooks or CODEBOOKS, info.num_codebooks)
    copies = min(COPIES if args.copies is None else args.copies, codebooks)
    if info.sample_rate != 16_000:
        speech = Resampler(16_000, info.sample_rate).push(speech, last=True)
    for schedule in args.schedules.split(","):
        form = PacketFormat.named(schedule, info.num_codebooks, info.codebook_size, frame_rate=info.frame_rate)
        about = f"{schedule}, {codebooks} + {copies} tokens, recovery {name}, {args.loss:.0%} lost"
        controller, recovery = FixedController(codebooks, copies), recovery_named(name, args.codec)
        yield info.name, about, partial(time_link, speech, codec, controller, form, recovery, args.loss, args.seed)


def time_link(
    speech: Samples,
    codec: Codec,
    controller: Controller,
    form: PacketFormat,
    recovery: Recovery,
    loss: float,
    seed: int,
) -> Timed:
    """A talk at the codec's sample rate through transmitter and receiver."""
    from semaphone.channel.erasure import parse_channel
    from semaphone.link.receiver import Receiver, ReceiverState
    from semaphone.link.talk import Length, steps
    from semaphone.link.transmitter import Transmitter, TransmitterState
    from semaphone.packet.status import TokenStatus

    info = codec.info
    transmitter, receiver = Transmitter(codec, controller, form), Receiver(codec, recovery, form)
    sampler = parse_channel(f"uniform:{loss:g}").sampler(np.random.default_rng(seed))
    sending: TransmitterState | None = None
    hearing: ReceiverState | None = None
    computing: dict[str, list[float]] = {name: [] for name in COMPUTING}
    arrived: dict[int, bytes | None] = {}
    sent_seconds: list[dict[str, float]] = []
    bits = block = 0
    gone: list[int] = []
    clock = _Clock()
    for step in steps([speech], info, form.chunks_per_block, Length()):
        if len(step) < form.chunks_per_block * info.chunk_samples:
            break  # a part of a block would be another thing to time
        sent, sending = transmitter.step(step, sending, loss)
        sent_seconds.append(sent.seconds)
        for packet in sent.packets:
            bits += 8 * len(packet.payload)
            arrived[packet.sequence] = None if sampler.lost(packet.send_time) else packet.payload
        while form.sequences_of(block)[-1] in arrived:
            numbers = form.sequences_of(block)
            heard, hearing = receiver.step([arrived.get(number) for number in numbers], hearing)
            _note(computing, sent_seconds[block], heard.seconds)
            gone.append(int(((heard.status == TokenStatus.LOST) | (heard.status == TokenStatus.UNKNOWN)).sum()))
            block += 1
    if block <= SKIPPED + 1:
        raise InputError(f"The talk is too short for {form.chunks_per_block}-chunk blocks; give more --seconds.")
    first, last = form.sequences_of(0)[0], form.sequences_of(0)[-1]
    waiting = {
        "block": [form.send_time(first)],
        "copies": [form.send_time(last) - form.send_time(first)],
        "lookahead": [info.delay / info.sample_rate],
    }
    seconds = (block - SKIPPED) * form.block_duration
    kept = {name: values[SKIPPED:] for name, values in computing.items()}
    busy = sum(map(sum, kept.values()))
    chunks = len(sent_seconds) * form.chunks_per_block
    lost_tokens = sum(gone[SKIPPED:]) / (len(gone[SKIPPED:]) * form.chunks_per_block)
    return Timed(
        waiting, kept, seconds, bits / chunks * info.frame_rate, info.sample_rate, busy, clock.share(), lost_tokens
    )


def _note(computing: dict[str, list[float]], sent: dict[str, float], heard: dict[str, float]) -> None:
    found = {"packetise": sent["packets"], "depacketise": heard["packets"]}
    for name, values in computing.items():
        values.append(found.get(name, sent.get(name, heard.get(name, 0.0))))


# What stands beside it.


def _rivals(args: argparse.Namespace, speech: Samples) -> Iterator[Method]:
    from semaphone.experiments.rivals import BaselineSystem

    for system in options.rivals_of(args, RIVALS):
        assert isinstance(system, BaselineSystem)
        made = system.make(args.loss)
        if made.info.name == "textlink":
            yield "text link", "as SyncSC: Whisper, text, a synthetic voice", partial(time_text, speech)
        else:
            yield made.info.title, f"{args.loss:.0%} expected", partial(time_baseline, speech, made)


def time_baseline(speech: Samples, baseline: Baseline) -> Timed:
    """A talk through a baseline, packet by packet."""
    info = baseline.info
    size = round(info.packet_s * 16_000)
    computing: dict[str, list[float]] = {"encoder": [], "decoder": []}
    encoding = decoding = None
    bits = 0
    clock = _Clock()
    for first in range(0, len(speech) - size + 1, size):
        began = time.perf_counter()
        packets, encoding = baseline.encode(speech[first : first + size], encoding)
        encoded = time.perf_counter()
        _, decoding = baseline.decode(packets, decoding)
        computing["encoder"].append(encoded - began)
        computing["decoder"].append(time.perf_counter() - encoded)
        bits += sum(8 * len(packet.payload) for packet in packets)
    if len(computing["encoder"]) <= SKIPPED + 1:
        raise InputError(f"The talk is too short for packets of {1000 * info.packet_s:.0f} ms; give more --seconds.")
    copies = info.packet_s if getattr(baseline, "expected_loss", 0.0) > 0 else 0.0  # Opus: in the next packet
    waiting = {"block": [info.packet_s], "copies": [copies], "lookahead": [info.delay_s - info.packet_s - copies]}
    rate = bits / (len(computing["encoder"]) * info.packet_s)
    kept = {name: values[SKIPPED:] for name, values in computing.items()}
    seconds = len(kept["encoder"]) * info.packet_s
    return Timed(waiting, kept, seconds, rate, 16_000, sum(map(sum, kept.values())), clock.share())


def time_text(speech: Samples) -> Timed:
    """A talk through the text link, phrase by phrase: each is heard, sent and spoken when its last word is out."""
    from semaphone.baselines.textlink import TextLink, listen, speak
    from semaphone.metrics.text import transcribe

    link = TextLink()
    phrases = listen(speech, link.language, link.words_per_packet)
    if not phrases:
        raise InputError("No words were heard in the talk.")
    speak("Good evening.")
    context: list[float] = []
    computing: dict[str, list[float]] = {"encoder": [], "decoder": []}
    before = 0.0
    clock = _Clock()
    for phrase in phrases:
        piece = speech[round(before * 16_000) : round(phrase.end_s * 16_000)]
        context.append(phrase.end_s - before)
        before = phrase.end_s
        began = time.perf_counter()
        transcribe(piece, link.language)
        heard = time.perf_counter()
        speak(phrase.text)
        computing["encoder"].append(heard - began)
        computing["decoder"].append(time.perf_counter() - heard)
    seconds = len(speech) / 16_000
    bits = sum(packet.bits for packet in link.packets(phrases))
    busy = sum(map(sum, computing.values()))
    return Timed({"block": context}, computing, seconds, bits / seconds, 16_000, busy, clock.share())


class _Clock:
    """How much of a core a process has had since."""

    def __init__(self) -> None:
        self._wall, self._used = time.perf_counter(), time.process_time()

    def share(self) -> float:
        """1: all of one."""
        return (time.process_time() - self._used) / max(time.perf_counter() - self._wall, 1e-9)


def _machine() -> str:
    """What computed: the processor's name where the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


# Table and figure.

HEAD = ("method", "setting", "kHz", "bit/s", "T_coder", "p99", "T_context", "delay", "p99", "real-time factor")


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        row["method"],
        row["setting"],
        f"{row['sample_rate'] / 1000:g}",
        f"{row['payload_bps']:.0f}",
        f"{row['coder_ms']['p50']:.1f}",
        f"{row['coder_ms']['p99']:.1f}",
        f"{row['context_ms']['p50']:.1f}",
        f"{row['total_ms']['p50']:.1f}",
        f"{row['total_ms']['p99']:.1f}",
        f"{row['real_time_factor']:.4f}",
    ]


def _paper_cells() -> list[list[str]]:
    return [
        [
            f"paper: {name}",
            "",
            f"{khz}",
            f"{bps:g}",
            f"{1000 * coder:g}",
            "",
            f"{1000 * context:g}",
            f"{1000 * d:g}",
            "",
            "",
        ]
        for name, khz, bps, coder, context, d in PAPER
    ]


def _parts_table(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """p50 and p99 of every part in ms."""
    names = WAITING | COMPUTING
    head = ["method", "setting", *names.values()]

    def cell(row: dict[str, Any], name: str) -> str:
        part = row["parts_ms"].get(name)
        if part is None:
            return "–"
        same = part["p50"] == part["p99"]
        return f"{part['p50']:.1f}" if same else f"{part['p50']:.2f} / {part['p99']:.2f}"

    return head, [[row["method"], row["setting"], *(cell(row, name) for name in names)] for row in rows]


def _busy(share: float) -> str:
    return (
        f"The machine was busy: at worst this process had {share:.0%} of a core, so computing took longer here than it "
        "has to. Time again on an idle machine."
    )


def _print(rows: Sequence[dict[str, Any]]) -> None:
    cells = [*map(_cells, rows), *_paper_cells()]
    print_table(HEAD, cells, "Delay without the network, ms (median; 99th percentile)", left=2, width=170)
    print_table(*_parts_table(rows), "Parts, ms (median / 99th percentile)", left=2, width=170)
    shares = [row["core_share"] for row in rows]
    if min(shares, default=1.0) < BUSY:
        print(_busy(min(shares)))


def _page(rows: Sequence[dict[str, Any]], args: argparse.Namespace) -> None:
    from semaphone.experiments.page import paragraph, save, table, write_page

    machines = ", ".join(dict.fromkeys(row["machine"] for row in rows))
    parts = [
        paragraph(
            "Delay of a sound from mouth to ear without the network, in ms: median and 99th percentile over blocks "
            "(packets, phrases). T_context is waiting: for the rest of the block, for copies that ride in a later "
            "packet, for the decoder's overlap. T_coder is computing, all parts of both ends, one after the other."
        ),
        paragraph(
            f"Timed on {machines} with one thread; the paper's rows on a server with an A100, or an RTX 3080. A "
            "real-time factor of 0.1 means that a tenth of the time is spent computing. The paper heads T_coder with "
            "ms; its sums only add up in seconds, and so it is shown here."
        ),
        table(HEAD, [*map(_cells, rows), *_paper_cells()]),
        save(_figure(rows), args.out, "latency"),
        "<h2>Parts</h2>",
        table(*_parts_table(rows)),
    ]
    shares = [row["core_share"] for row in rows]
    if min(shares, default=1.0) < BUSY:
        parts.insert(2, paragraph(_busy(min(shares))))
    told = [
        f"{row['method']}, {row['setting']}: {row['lost_tokens']:.2f} tokens of a chunk were lost on average, and "
        f"recovery took {row['parts_ms']['recovery']['p50']:.2f} ms a block."
        for row in rows
        if "recovery" in row["parts_ms"]
    ]
    parts += ["<h2>Recovery (eq 23)</h2>", *(paragraph(text) for text in told)]
    write_page(args.out / "index.html", "The parts of the delay (LargeSC Table II)", parts)


def _short(row: dict[str, Any]) -> str:
    """The method, and its schedule where it has one."""
    schedule = row["setting"].partition(",")[0]
    return f"{row['method']}: {schedule}" if "recovery" in row["setting"] else str(row["method"])


_WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}


def _figure(rows: Sequence[dict[str, Any]]) -> Any:
    from matplotlib.figure import Figure

    from semaphone.experiments.pictures import COLOURS

    names = [_short(row) for row in rows]
    names += [f"paper: {name}" for name, *_ in PAPER]
    figure = Figure(figsize=(9.6, 0.36 * len(names) + 1.9), layout="constrained")
    axes = figure.subplots()
    place = np.arange(len(names))
    left = np.zeros(len(names))
    looks = dict(
        zip([*WAITING, *COMPUTING], [*COLOURS[:2], COLOURS[4], *COLOURS[2:4], *COLOURS[5:8], "#F0E442"], strict=True)
    )
    for name, text in (WAITING | COMPUTING).items():
        values = [row["parts_ms"].get(name, {"p50": 0.0})["p50"] for row in rows]
        values += [0.0] * len(PAPER)
        if not any(values):
            continue
        hatch = "" if name in WAITING else "///"
        axes.barh(place, values, left=left, color=looks[name], hatch=hatch, edgecolor="white", lw=0.3, label=text)
        left += np.array(values)
    context = [0.0] * len(rows) + [1000 * c for _, _, _, _, c, _ in PAPER]
    coder = [0.0] * len(rows) + [1000 * c for _, _, _, c, _, _ in PAPER]
    axes.barh(place, context, color="#BBBBBB", edgecolor="white", label="paper: T_context")
    axes.barh(place, coder, left=context, color="#777777", hatch="///", edgecolor="white", label="paper: T_coder")
    left += np.array(context) + np.array(coder)
    late = np.array([row["total_ms"]["p99"] for row in rows])
    # Text takes so long that it would press everything else flat: its bars run out of the picture.
    speech = [end for name, end in zip(names, [*late, *left[len(rows) :]], strict=True) if "text" not in name]
    edge = 1.15 * max(speech, default=max(left))
    inside = late < edge
    axes.plot(late[inside], place[: len(rows)][inside], "k|", markersize=12, markeredgewidth=2, label="99th percentile")
    for y, end in enumerate(left):
        if end > edge:
            axes.text(0.985 * edge, y, f"{end:.0f} ▸", va="center", ha="right", fontsize=8, bbox=_WHITE)
        else:
            axes.text(
                (max(end, late[y]) if y < len(rows) else end) + 0.012 * edge, y, f"{end:.0f}", va="center", fontsize=8
            )
    axes.set_yticks(place, names, fontsize=8)
    axes.invert_yaxis()
    axes.set(xlabel="ms, median", xlim=(0, edge))
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return figure
