"""Files, resampling, chunking: the only place that knows about sample formats.

Inside the house speech is one channel of float32 in [-1, 1]. Everything here streams: an hour of
recording takes no more memory than a second, and reading in blocks equals reading at once.

    for samples, length in chunks(read_blocks("talk.mp3", 16000), 1280):
        ...
    with AudioWriter("out.wav", 16000) as out:
        out.write(samples)
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from semaphone.errors import InputError
from semaphone.files import replacing

if TYPE_CHECKING:
    import io

    from numpy.typing import NDArray
    from typing_extensions import Self

    Samples = NDArray[np.float32]  # [samples], one channel
    Frames = NDArray[np.float32]  # [frames, channels]

BLOCK = 16384  # frames read at once
LOWEST_RATE, HIGHEST_RATE = 4000, 384000  # Hz
# Float files may overshoot full scale a little; far beyond it they hold something else than speech in [-1, 1].
LOUDEST = 16.0
FORMATS = {".wav": "WAV", ".flac": "FLAC"}


@dataclass(frozen=True)
class AudioInfo:
    """The facts of an audio file."""

    path: str
    sample_rate: int  # Hz
    channels: int
    frames: int | None  # samples of one channel; None if the file does not say
    format: str  # "WAV PCM_16", "aac", ...

    @property
    def seconds(self) -> float | None:
        """Duration in s, if the file says."""
        return None if self.frames is None else self.frames / self.sample_rate


@dataclass(frozen=True)
class _Source:
    """An open file: its facts and its samples as they stand in it, [frames, channels]."""

    info: AudioInfo
    blocks: Iterator[Frames]


class Resampler:
    """From one sample rate to another, block by block, without delay: n samples become round(n · ratio).

    Outputs of `push` lag behind by the filter's length; `flush` gives the rest. Together they equal one call
    over the whole signal.
    """

    def __init__(self, from_rate: int, to_rate: int) -> None:
        import soxr

        self._stream = None
        if from_rate != to_rate:
            self._stream = soxr.ResampleStream(from_rate, to_rate, 1, dtype="float32", quality="HQ")

    def push(self, samples: Samples, last: bool = False) -> Samples:
        """The samples that are ready; `last` ends the signal."""
        if self._stream is None:
            return samples
        out: Samples = self._stream.resample_chunk(samples, last=last)
        return out

    def flush(self) -> Samples:
        """What the filter still holds."""
        return self.push(np.zeros(0, np.float32), last=True)


def probe(path: str | Path) -> AudioInfo:
    """Sample rate, channels and length of a file, without reading its samples.

    Raises InputError if it is missing, empty or not audio.
    """
    return _open(str(path)).info


def read_blocks(path: str | Path, sample_rate: int, *, stdin_rate: int = 16000) -> Iterator[Samples]:
    """Mono blocks of a file at `sample_rate` (Hz), of any length but zero, in [-1, 1].

    Reads what soundfile reads (WAV, FLAC, Ogg, MP3, ...) and, with PyAV installed, AAC, Opus, G.722 and more.
    Channels are averaged, samples beyond full scale clipped. `-` is standard input: raw 16-bit little-endian
    PCM, one channel, `stdin_rate` Hz; a half sample at its end is dropped.

    Raises InputError at once if the file cannot be opened, later if it is damaged, holds samples that are not
    finite, or none at all.
    """
    source = _open_stdin(stdin_rate) if str(path) == "-" else _open(str(path))
    if not LOWEST_RATE <= source.info.sample_rate <= HIGHEST_RATE:
        raise InputError(
            f"{source.info.path} has a sample rate of {source.info.sample_rate} Hz,"
            f" and only {LOWEST_RATE} to {HIGHEST_RATE} Hz make sense for speech."
        )
    return _mono(source, sample_rate)


def read_audio(path: str | Path, sample_rate: int, *, stdin_rate: int = 16000) -> Samples:
    """All of a file, [samples] float32 mono in [-1, 1] at `sample_rate` (Hz); see `read_blocks`."""
    return np.concatenate(list(read_blocks(path, sample_rate, stdin_rate=stdin_rate)))


def chunks(blocks: Iterable[Samples], chunk_samples: int) -> Iterator[tuple[Samples, int]]:
    """Cuts blocks of any length into whole chunks: pairs of [chunk_samples] and how many of them are real.

    Only the last chunk can be short; zeros fill it up.
    """
    pending: list[Samples] = []
    held = 0
    for block in blocks:
        pending.append(block)
        held += len(block)
        if held >= chunk_samples:
            joined = np.concatenate(pending)
            whole = held - held % chunk_samples
            for start in range(0, whole, chunk_samples):
                yield joined[start : start + chunk_samples], chunk_samples
            pending, held = [joined[whole:]], held - whole
    if held:
        yield np.concatenate([*pending, np.zeros(chunk_samples - held, np.float32)]), held


def to_pcm16(samples: Samples) -> NDArray[np.int16]:
    """[-1, 1] to 16-bit integers, clipped; what was read from a 16-bit file comes out as it was."""
    if not np.isfinite(samples).all():
        raise ValueError("samples to write must be finite")
    pcm: NDArray[np.int16] = np.clip(np.rint(samples * 32768.0), -32768, 32767).astype(np.int16)
    return pcm


class AudioWriter:
    """Writes mono speech as 16-bit WAV or FLAC, by the suffix; `-` is raw 16-bit PCM on standard output.

    A context manager: the file appears under its name when the block ends well, and not at all otherwise.
    Raises InputError if the target cannot be written.
    """

    def __init__(self, path: str | Path, sample_rate: int) -> None:
        self.path = str(path)
        self.sample_rate = sample_rate
        self.samples_written = 0
        self.samples_clipped = 0
        self._stack = ExitStack()
        self._file: Any = None
        if self.path != "-" and Path(path).suffix.lower() not in FORMATS:
            raise InputError(f"{self.path} should end in {' or '.join(FORMATS)}, the formats that are written.")

    def __enter__(self) -> Self:
        if self.path == "-":
            return self
        import soundfile

        part = self._stack.enter_context(replacing(self.path))
        try:
            self._file = self._stack.enter_context(
                soundfile.SoundFile(
                    part, "w", self.sample_rate, 1, "PCM_16", format=FORMATS[Path(self.path).suffix.lower()]
                )
            )
        except Exception as error:
            self._stack.__exit__(type(error), error, error.__traceback__)
            raise InputError(f"{self.path} cannot be written: {error}") from error
        return self

    def write(self, samples: Samples) -> None:
        """Appends samples [n] in [-1, 1]; what lies beyond is clipped."""
        pcm = to_pcm16(samples)
        if self._file is None:
            sys.stdout.buffer.write(pcm.astype("<i2").tobytes())
            sys.stdout.buffer.flush()  # someone may be listening live
        else:
            self._write_file(pcm)
        self.samples_written += len(pcm)
        self.samples_clipped += int(np.count_nonzero(np.abs(samples) > 1.0))

    def _write_file(self, pcm: NDArray[np.int16]) -> None:
        try:
            self._file.write(pcm)
        except (RuntimeError, AssertionError, OSError) as error:  # soundfile asserts that everything was written
            raise InputError(f"{self.path} cannot be written to its end; is the disk full?") from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, traceback)


def _mono(source: _Source, sample_rate: int) -> Iterator[Samples]:
    """Checked, averaged over channels, resampled, clipped."""
    info = source.info
    resampler = Resampler(info.sample_rate, sample_rate)
    frames = 0
    for block in source.blocks:
        _check(block, info, frames)
        frames += len(block)
        out = resampler.push(np.ascontiguousarray(block.mean(axis=1, dtype=np.float32)))
        if len(out):
            yield np.clip(out, -1.0, 1.0)
    if not frames:
        raise InputError(f"{info.path} holds no samples.")
    rest = resampler.flush()
    if len(rest) and info.sample_rate != sample_rate:
        yield np.clip(rest, -1.0, 1.0)


def _check(block: Frames, info: AudioInfo, before: int) -> None:
    """Refuses samples that are no speech; says where."""
    bad = ~np.isfinite(block)
    if bad.any():
        what = "a sample that is not a finite number"
    else:
        bad = np.abs(block) > LOUDEST
        what = f"a sample beyond {LOUDEST:g} times full scale"
    rows = np.flatnonzero(bad.any(axis=1))
    if len(rows):
        raise InputError(f"{info.path} has {what} at {(before + rows[0]) / info.sample_rate:.3f} s.")


def _open(path: str) -> _Source:
    file = Path(path)
    try:
        if not file.exists():
            raise InputError(f"{path} does not exist.")
        if file.is_dir():
            raise InputError(f"{path} is a folder, not an audio file.")
        if not file.is_file():
            raise InputError(f"{path} is not a regular file; give raw PCM to standard input with -.")
        with file.open("rb") as opened:
            if not opened.read(1):
                raise InputError(f"{path} is empty.")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    return _open_soundfile(path) or _open_av(path)


def _open_soundfile(path: str) -> _Source | None:
    """`None` if libsndfile does not know the format."""
    import soundfile

    try:
        file = soundfile.SoundFile(path)
    except (soundfile.LibsndfileError, TypeError):  # TypeError: a suffix that means raw samples
        return None
    # libsndfile gives the largest number when a compressed file does not say how long it is.
    frames = file.frames if file.frames < 2**62 else None

    def blocks() -> Iterator[Frames]:
        with file:
            read = 0
            while True:
                try:
                    block: Frames = file.read(BLOCK, dtype="float32", always_2d=True)
                except soundfile.LibsndfileError as error:
                    raise InputError(f"{path} is damaged after {read / file.samplerate:.1f} s.") from error
                if not len(block):
                    return
                read += len(block)
                yield block

    return _Source(AudioInfo(path, file.samplerate, file.channels, frames, f"{file.format} {file.subtype}"), blocks())


def _open_av(path: str) -> _Source:
    try:
        import av
    except ImportError:
        hint = "PyAV reads more formats: pip install 'semaphone[baselines]'"
        raise InputError(f"{path} is not audio that can be read here ({hint}).") from None
    try:
        container = av.open(path)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise InputError(f"{path} is not audio that can be read.") from error
    stream = container.streams.audio[0] if container.streams.audio else None
    if stream is None or not stream.rate:
        container.close()
        raise InputError(f"{path} holds no audio.")
    rate = int(stream.rate)
    frames = round(stream.duration * stream.time_base * rate) if stream.duration and stream.time_base else None

    def blocks() -> Iterator[Frames]:
        to_float = av.AudioResampler(format="fltp")
        read = 0
        with container:
            try:
                for packet in container.demux(stream):
                    for decoded in packet.decode():
                        for frame in to_float.resample(decoded):
                            read += frame.samples
                            yield frame.to_ndarray().T.astype(np.float32, copy=False)
            except av.error.FFmpegError as error:
                raise InputError(f"{path} is damaged after {read / rate:.1f} s.") from error

    return _Source(AudioInfo(path, rate, stream.channels, frames, stream.codec_context.name), blocks())


def _open_stdin(rate: int) -> _Source:
    def blocks() -> Iterator[Frames]:
        stream = cast("io.BufferedReader", sys.stdin.buffer)
        rest = b""
        first = True
        while data := stream.read1(2 * BLOCK):
            if first and data[:4] in (b"RIFF", b"fLaC", b"OggS"):
                raise InputError("Standard input is an audio file; it should be raw 16-bit PCM (or give a file name).")
            first = False
            data = rest + data
            whole = len(data) - len(data) % 2
            rest = data[whole:]
            yield (np.frombuffer(data[:whole], "<i2").astype(np.float32) / np.float32(32768)).reshape(-1, 1)

    return _Source(AudioInfo("standard input", rate, 1, None, "PCM_16"), blocks())
