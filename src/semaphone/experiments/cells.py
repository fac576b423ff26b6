"""One recording through one system in one weather: what is to be measured, and measuring it.

A cell's digest is made of all that decides the result: the system with the digests of its weights, the channel, the
seed, the samples of the recording, its text. `perform` is what a worker process does.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semaphone.errors import InputError, SemaphoneError
from semaphone.experiments.corpus import Recording
from semaphone.experiments.systems import RATE, Sent, System

if TYPE_CHECKING:
    from semaphone.audio import Samples

Row = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One recording through one system in one weather."""

    system: System
    channel: str  # specification of an erasure channel
    recording: Recording
    seed: int  # of the experiment
    draw: int  # which of several weathers
    identity: str  # JSON: what the system is, in this channel

    @property
    def weather(self) -> int:
        """The seed of the channel: the same for every system, another one for each recording and draw."""
        return weather_of(self.recording, self.seed, self.draw)

    @property
    def digest(self) -> str:
        """Of everything that decides the scores but the scorers."""
        recording = self.recording
        about = [self.identity, self.channel, self.weather, recording.digest, recording.text, recording.language]
        return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:20]


def weather_of(recording: Recording, seed: int, draw: int = 0) -> int:
    """The seed of a recording's channel; `seed` is that of the experiment."""
    name = f"{seed} {draw} {recording.name}"
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big")


def plan(
    systems: Sequence[System], channels: Sequence[str], recordings: Sequence[Recording], seed: int, draws: int = 1
) -> list[Cell]:
    """Every cell, recording by recording. Where nothing is lost one draw is enough."""
    from semaphone.channel.erasure import parse_channel

    made = {text: parse_channel(text) for text in channels}
    identities = {
        (system, text): json.dumps(system.identity(channel), sort_keys=True)
        for system in systems
        for text, channel in made.items()
    }
    return [
        Cell(system, text, recording, seed, draw, identities[system, text])
        for recording in recordings
        for text, channel in made.items()
        for draw in range(draws if channel.mean_loss > 0 else 1)
        for system in systems
    ]


@lru_cache(maxsize=64)
def scorer_of(metric: str) -> str:
    """The packages behind a metric with their versions, as they stand in a row."""
    from semaphone.metrics.scores import scorer_versions

    return ", ".join(f"{package} {version}" for package, version in scorer_versions([metric]).items())


@dataclass(frozen=True)
class Task:
    """What a worker does: send, score, and keep a small recording of what arrived for the page."""

    cell: Cell
    metrics: tuple[str, ...]
    keep: Path | None = None


@lru_cache(maxsize=2)
def _speech(path: Path) -> Samples:
    from semaphone.audio import read_audio

    return read_audio(path, RATE)


def perform(task: Task) -> Row | str:
    """The row of a task, or the sentence that says why there is none."""
    from semaphone.channel.erasure import parse_channel

    cell = task.cell
    recording = cell.recording
    try:
        speech = _speech(recording.file)
        sent = cell.system.send(speech, parse_channel(cell.channel), cell.weather, recording.language)
        row = _row(task, speech, sent)
    except SemaphoneError as error:
        return str(error)
    if task.keep is not None:
        keep(task.keep, sent.speech)
    return row


def _row(task: Task, speech: Samples, sent: Sent) -> Row:
    from semaphone.link.report import versions

    cell, recording = task.cell, task.cell.recording
    scores, scorers = _scored(task, speech, sent)
    return {
        "cell": cell.digest,
        "metrics": ",".join(task.metrics),
        "system": cell.system.name,
        "family": cell.system.family,
        "channel": cell.channel,
        "seed": cell.seed,
        "draw": cell.draw,
        "file": recording.name,
        "set": recording.set,
        "speaker": recording.speaker,
        "token_bps": sent.token_bps,
        "payload_bps": sent.payload_bps,
        "gross_bps": sent.gross_bps,
        "packets_sent": sent.packets_sent,
        "packets_lost": sent.packets_lost,
        "delay_ms": sent.delay_ms,
        "chunk_loss": sent.chunk_loss,
        **scores,
        "scorers": scorers,
        "identity": json.loads(cell.identity),
        "versions": versions(),
    }


def _scored(task: Task, speech: Samples, sent: Sent) -> tuple[dict[str, Any], dict[str, str]]:
    from semaphone.metrics.scores import evaluate

    if not task.metrics:
        return {}, {}
    scorers = {metric: scorer_of(metric) for metric in task.metrics}
    if not len(sent.speech):
        return {"notes": dict.fromkeys(task.metrics, "nothing arrived")}, scorers
    recording = task.cell.recording
    found = evaluate(
        speech,
        sent.speech,
        RATE,
        recording.text,
        task.metrics,
        language=recording.language,
        same_timing=sent.same_timing,
    ).to_json()
    left_out = [name for name, value in found.items() if value in (None, {}) and name not in task.metrics]
    return {name: value for name, value in found.items() if name not in (*left_out, "versions")}, scorers


def keep(path: Path, speech: Samples) -> None:
    """A small recording of 16 kHz speech: MP3, which every browser plays. Without room there is none, and no harm."""
    import soundfile

    from semaphone.files import replacing

    with contextlib.suppress(InputError, OSError, soundfile.LibsndfileError), replacing(path, "audio") as part:
        soundfile.write(part, speech if len(speech) else [0.0], RATE, format="MP3", subtype="MPEG_LAYER_III")
