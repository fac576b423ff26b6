"""The demonstration: one recording through the link in three weathers, beside what a user would pick instead.

At 0, 10 and 30 % loss: Semaphone; Opus at 6 kbit/s, told the loss, over the same bad weather; and
the honest floor, a text link (speech → text → a synthetic voice). Everything that is heard lies in
one folder, with a report, a picture and a page to listen to.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from semaphone.audio import AudioWriter
from semaphone.baselines.base import Baseline, transfer
from semaphone.baselines.opus import Opus
from semaphone.baselines.textlink import TextLink, speak
from semaphone.channel.erasure import parse_channel
from semaphone.codec.base import Codec
from semaphone.codec.registry import load_codec
from semaphone.controller.registry import ControllerSpec, decided, load_controller, padded
from semaphone.files import replacing, write_whole
from semaphone.link.feedback import Feedback
from semaphone.link.plot import plot_link
from semaphone.link.simulate import Link, Record, simulate
from semaphone.metrics.scores import evaluate
from semaphone.packet.format import USUAL, PacketFormat
from semaphone.recovery.registry import default_recovery, load_recovery

if TYPE_CHECKING:
    from semaphone.audio import Samples
    from semaphone.recovery.base import Recovery

RATE = 16_000
LOSSES = (0.0, 0.1, 0.3)
METRICS = ("visqol", "plcmos", "wer")
TEXT = (
    "Good evening from the last station on the coast. The storm has taken the antenna, so this voice crosses "
    "the sea at one thousand bits a second. Two boats are safe in the harbour, and the third is on its way home."
)

Say = Callable[[str], None]  # tells what is being done


@dataclass(frozen=True)
class Row:
    """One system in one weather."""

    system: str
    loss: float  # loss rate of the channel
    file: str  # what is heard
    token_bps: float
    payload_bps: float
    gross_bps: float
    packets_sent: int
    packets_lost: int
    visqol: float | None
    plcmos: float | None
    wer: float | None
    delay_ms: float  # without the network


WRITTEN = ("original.wav", "semaphone-??.wav", "opus-??.wav", "textlink-??.wav")  # recordings in the folder `out`


@dataclass(frozen=True)
class Demo:
    """What the demonstration sends."""

    out: Path
    speech: Samples  # 16 kHz
    text: str | None  # what is said, if it is known
    codec: str = "nano"
    recovery: str | None = None  # None: the language model where its weights are
    controller: ControllerSpec = field(default_factory=ControllerSpec)
    seed: int = 7


def spoken() -> Samples:
    """The paragraph that is sent where the user has no recording."""
    return speak(TEXT)


def _write(path: Path, speech: Samples) -> None:
    with AudioWriter(path, RATE) as out:
        out.write(speech)


def _scored(demo: Demo, heard: Samples, same_timing: bool = True) -> dict[str, float | None]:
    scores = evaluate(demo.speech, heard, RATE, text=demo.text, metrics=METRICS, language="en", same_timing=same_timing)
    return {name: scores.values()[name] for name in METRICS}


def _semaphone(demo: Demo, codec: Codec, filler: str, recovery: Recovery, loss: float) -> tuple[Row, dict[str, Any]]:
    info = codec.info
    form = PacketFormat.named(USUAL, info.num_codebooks, info.codebook_size, frame_rate=info.frame_rate)
    spec = decided(demo.controller, info)
    form = padded(spec, info, form)
    controller = load_controller(spec, info, form)
    feedback = None if spec.kind == "fixed" else Feedback()
    link = Link(codec, controller, form, recovery, parse_channel(f"uniform:{loss}"), feedback, spec.pauses)
    record = Record()
    heard = np.concatenate(list(simulate([demo.speech], link, demo.seed, record)))
    report = record.report(link, demo.seed, filler)
    name = f"semaphone-{round(100 * loss):02d}.wav"
    _write(demo.out / name, heard)
    if loss == LOSSES[-1]:
        title = f"Semaphone, {report.payload_bps:.0f} bit/s of payload, {report.packet_loss_rate:.0%} of packets lost"
        with replacing(demo.out / "link.png") as part:
            plot_link(part, "png", demo.speech, heard, record, RATE, info.chunk_samples / RATE, title)
    row = Row(
        "Semaphone",
        loss,
        name,
        report.token_bps,
        report.payload_bps,
        report.gross_bps,
        report.packets_sent,
        report.packets_lost,
        delay_ms=report.latency_ms["total"].p50,
        **_scored(demo, heard),
    )
    return row, report.to_json()


def _baseline(demo: Demo, loss: float, baseline: Baseline, system: str, stem: str) -> Row:
    sampler = parse_channel(f"uniform:{loss}").sampler(np.random.default_rng(demo.seed))
    arrived = transfer(baseline, demo.speech, sampler)
    name = f"{stem}-{round(100 * loss):02d}.wav"
    _write(demo.out / name, arrived.speech)
    same = baseline.info.same_timing
    scores = _scored(demo, arrived.speech, same) if len(arrived.speech) else dict.fromkeys(METRICS)
    if not same:
        scores["visqol"] = None  # nothing to compare moment by moment
    return Row(
        system,
        loss,
        name,
        round(arrived.codec_bps, 1),
        round(arrived.payload_bps, 1),
        round(arrived.gross_bps, 1),
        arrived.packets_sent,
        arrived.packets_lost,
        delay_ms=round(1000 * baseline.info.delay_s, 1),
        **scores,
    )


def rows(demo: Demo, say: Say, reports: list[dict[str, Any]]) -> Iterator[Row]:
    """One row after another, as they are measured."""
    codec = load_codec(demo.codec)
    filler = demo.recovery or default_recovery(codec.info)
    recovery = load_recovery(filler, codec.info)
    for loss in LOSSES:
        say(f"Semaphone at {loss:.0%} loss")
        row, report = _semaphone(demo, codec, filler, recovery, loss)
        reports.append(report)
        yield row
        say(f"Opus at {loss:.0%} loss")
        yield _baseline(demo, loss, Opus(6000, frame_ms=60, expected_loss=loss), "Opus 6 kbit/s", "opus")
        say(f"text link at {loss:.0%} loss")
        yield _baseline(demo, loss, TextLink(), "text link", "textlink")


def run_demo(demo: Demo, say: Say) -> list[Row]:
    """Everything, written to `demo.out`: recordings, report.json, link.png and index.html."""
    from semaphone.experiments.listen import listening_page

    demo.out.mkdir(parents=True, exist_ok=True)
    _write(demo.out / "original.wav", demo.speech)
    reports: list[dict[str, Any]] = []
    found = list(rows(demo, say, reports))
    whole = {"seed": demo.seed, "text": demo.text, "rows": [asdict(row) for row in found], "links": reports}
    write_whole(demo.out / "report.json", json.dumps(whole, indent=2) + "\n")
    write_whole(demo.out / "index.html", listening_page(found))
    return found
