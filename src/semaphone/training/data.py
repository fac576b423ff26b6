"""Speech at rest for training: any folder of recordings becomes one cache that is read in place.

A corpus cache is a folder of flat arrays, made once and then mapped into memory:

    index.json     one entry a recording: file, group, first sample, number of samples
    audio.i16      all samples one after another, 16-bit, one channel
    f0.f16         fundamental frequency in Hz every 10 ms, 0 where unvoiced (pyworld: DIO + StoneMask)
    semantic.f16   a recogniser's encoder features [chunks, 512], averaged over each 80 ms chunk

Recordings are padded to whole chunks, so that sample, F0 and feature positions follow from each
other. `group` is the first folder below the root; batches are balanced over groups. A stage that
was interrupted starts again at that stage; finished ones are kept.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semaphone.errors import InputError
from semaphone.files import files_below, replacing, write_whole
from semaphone.workers import end_with_parent

SAMPLE_RATE = 16_000
CHUNK = 1_280  # samples of 80 ms
HOP = 160  # samples of 10 ms, the grid of F0
AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".opus", ".mp3"})
SEMANTIC_DIM = 512  # width of Whisper-base's encoder

Progress = Callable[[str, int, int], None]  # (stage, done, all)


@dataclass(frozen=True)
class Recording:
    """One recording inside a corpus cache; positions in samples, multiples of a chunk."""

    file: str
    group: str
    start: int
    length: int


@dataclass(frozen=True)
class Corpus:
    """A corpus cache, mapped into memory."""

    recordings: tuple[Recording, ...]
    audio: NDArray[np.int16]  # [samples]
    f0: NDArray[np.float16]  # [samples / 160], Hz, 0 where unvoiced
    semantic: NDArray[np.float16] | None  # [samples / 1280, 512]

    @functools.cached_property
    def by_file(self) -> dict[str, Recording]:
        """Recordings by their names."""
        return {recording.file: recording for recording in self.recordings}

    def speech(self, recording: Recording, sample_rate: int = SAMPLE_RATE) -> NDArray[np.float32]:
        """Samples of a recording in [-1, 1), whole chunks of 80 ms at 16 kHz and at any other rate."""
        part = self.audio[recording.start : recording.start + recording.length].astype(np.float32) / 32768.0
        if sample_rate == SAMPLE_RATE:
            return part
        import soxr

        length = len(part) * sample_rate // SAMPLE_RATE
        made: NDArray[np.float32] = soxr.resample(np.pad(part, (0, CHUNK)), SAMPLE_RATE, sample_rate)[:length]
        return made


def find_recordings(root: Path) -> list[tuple[Path, str]]:
    """(file, group) of every recording below a folder, in a fixed order."""
    if not root.is_dir():
        raise InputError(f"{root} is not a folder of recordings.")
    files = sorted(f for f in files_below(root) if f.suffix.lower() in AUDIO_SUFFIXES)
    if not files:
        raise InputError(f"No recordings ({', '.join(sorted(AUDIO_SUFFIXES))}) below {root}.")
    return [(f, f.relative_to(root).parts[0] if len(f.relative_to(root).parts) > 1 else "") for f in files]


def _write_audio(root: Path, cache: Path, progress: Progress) -> None:
    from semaphone.audio import read_audio

    files = find_recordings(root)
    index: list[dict[str, Any]] = []
    position = 0
    with replacing(cache / "audio.i16") as part, open(part, "wb") as out:
        for i, (file, group) in enumerate(files):
            progress("audio", i, len(files))
            try:
                speech = read_audio(file, SAMPLE_RATE)
            except InputError:
                continue  # a broken file in a corpus is left out
            padded = np.zeros(-(-len(speech) // CHUNK) * CHUNK, np.float32)
            padded[: len(speech)] = speech
            out.write((padded.clip(-1, 32767 / 32768) * 32768).astype(np.int16).tobytes())
            index.append(asdict(Recording(str(file.relative_to(root)), group, position, len(padded))))
            position += len(padded)
        if not index:
            raise InputError(f"None of the {len(files)} recordings below {root} could be read.")
    write_whole(cache / "index.json", json.dumps(index))


def fundamental(speech: NDArray[np.float32]) -> NDArray[np.float16]:
    """F0 in Hz at the end of every 10 ms hop of 16 kHz speech [T * 160] → [T]; 0 where unvoiced."""
    from semaphone.metrics.prosody import world

    pyworld = world()
    x = speech.astype(np.float64)
    raw, times = pyworld.dio(x, SAMPLE_RATE, f0_floor=65.0, f0_ceil=600.0, frame_period=10.0)
    f0 = pyworld.stonemask(x, raw, times, SAMPLE_RATE)[1:]
    hops = len(speech) // HOP
    return np.pad(f0[:hops], (0, max(0, hops - len(f0)))).astype(np.float16)


def _f0_of(part: tuple[Path, Recording]) -> NDArray[np.float16]:
    cache, r = part
    audio = np.memmap(cache / "audio.i16", np.int16, "r", offset=2 * r.start, shape=(r.length,))
    return fundamental(audio.astype(np.float32) / 32768.0)


def _write_f0(cache: Path, recordings: tuple[Recording, ...], workers: int, progress: Progress) -> None:
    pool = ProcessPoolExecutor(workers, initializer=end_with_parent)
    with replacing(cache / "f0.f16") as part, open(part, "wb") as out, pool:
        for i, f0 in enumerate(pool.map(_f0_of, [(cache, r) for r in recordings], chunksize=16)):
            progress("F0", i, len(recordings))
            out.write(f0.tobytes())


def _windows(recordings: tuple[Recording, ...], longest: int) -> Iterator[list[tuple[Recording, int, int]]]:
    """Groups of (recording, first sample, samples) that fill a window of at most `longest` samples."""
    window: list[tuple[Recording, int, int]] = []
    filled = 0
    for r in recordings:
        for first in range(0, r.length, longest):
            part = min(longest, r.length - first)
            if filled + part > longest:
                yield window
                window, filled = [], 0
            window.append((r, first, part))
            filled += part + 4 * CHUNK  # silence between neighbours
    if window:
        yield window


def _write_semantic(corpus: Corpus, cache: Path, whisper: Path, progress: Progress) -> None:
    """Whisper-base encoder rows (50 a second), averaged over the four rows of each chunk."""
    from ctranslate2 import StorageView
    from faster_whisper import WhisperModel

    model = WhisperModel(str(whisper), device="cpu", compute_type="float32", cpu_threads=2, local_files_only=True)
    longest = 26 * SAMPLE_RATE // CHUNK * CHUNK
    total, done = len(corpus.audio), 0
    with replacing(cache / "semantic.f16") as part, open(part, "wb") as out:
        for window in _windows(corpus.recordings, longest):
            progress("features", done, total)
            pieces: list[NDArray[np.float32]] = []
            for r, first, samples in window:
                pieces += [corpus.speech(r)[first : first + samples], np.zeros(4 * CHUNK, np.float32)]
            mel = np.asarray(model.feature_extractor(np.concatenate(pieces), padding=160), np.float32)
            mel = np.ascontiguousarray(mel[None, :, : mel.shape[1] // 8 * 8])
            rows = np.asarray(model.model.encode(StorageView.from_array(mel), to_cpu=True))[0]
            chunks = rows[: len(rows) // 4 * 4].reshape(-1, 4, SEMANTIC_DIM).mean(1).astype(np.float16)
            at = 0
            for _, _, samples in window:
                out.write(chunks[at : at + samples // CHUNK].tobytes())
                at += samples // CHUNK + 4
                done += samples


def open_corpus(cache: Path) -> Corpus:
    """Map a finished cache into memory. Raises InputError if it is not one."""
    try:
        recordings = tuple(Recording(**entry) for entry in json.loads((cache / "index.json").read_text()))
        audio = np.memmap(cache / "audio.i16", np.int16, "r")
        f0 = np.memmap(cache / "f0.f16", np.float16, "r") if (cache / "f0.f16").exists() else np.empty(0, np.float16)
        semantic = None
        if (cache / "semantic.f16").exists():
            semantic = np.memmap(cache / "semantic.f16", np.float16, "r").reshape(-1, SEMANTIC_DIM)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{cache} is not a corpus cache: {error}.") from None
    return Corpus(recordings, audio, f0, semantic)


def prepare_corpus(
    root: Path, cache: Path, whisper: Path | None, progress: Progress, workers: int = 2, want_f0: bool = True
) -> Corpus:
    """Make (or complete) the cache of a folder of recordings and open it. Nothing is made of a folder without any."""
    if not (cache / "index.json").exists():
        find_recordings(root)
        cache.mkdir(parents=True, exist_ok=True)
        _write_audio(root, cache, progress)
    corpus = open_corpus(cache)
    if want_f0 and len(corpus.f0) != len(corpus.audio) // HOP:
        _write_f0(cache, corpus.recordings, workers, progress)
    if whisper is not None and corpus.semantic is None:
        _write_semantic(corpus, cache, whisper, progress)
    return open_corpus(cache)


def group_weights(corpus: Corpus, shares: Mapping[str, float] | None = None) -> NDArray[np.float64]:
    """Probability of drawing a chunk from each recording: groups by their share, inside a group by length.

    Without shares a group weighs the square root of its length, so that large ones do not rule.
    """
    length = np.array([r.length for r in corpus.recordings], np.float64)
    groups = np.array([r.group for r in corpus.recordings])
    weights = np.zeros(len(length))
    for group in np.unique(groups):
        mask = groups == group
        share = np.sqrt(length[mask].sum()) if shares is None else shares.get(str(group), 0.0)
        weights[mask] = share * length[mask] / length[mask].sum()
    if weights.sum() <= 0:
        raise InputError("No group of the corpus has a share in the batches.")
    normalised: NDArray[np.float64] = weights / weights.sum()
    return normalised
