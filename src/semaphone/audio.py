"""Files, resampling, chunking: the only place that knows about sample formats.

Inside the house speech is one channel of float32 in [-1, 1]. Everything here streams: an hour of
recording takes no more memory than a second, and reading in blocks equals reading at once.

    for samples, length in chunks(read_blocks("talk.mp3", 16000), 1280):
        ...
    with AudioWriter("out.wav", 16000) as out:
        out.write(samples)
"""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from semaphone import stopping
from semaphone.containers import HEAD, STREAM, container_of, enough, not_raw
from semaphone.errors import InputError, InputWarning
from semaphone.files import replacing
from semaphone.joined import Excerpt, Part, parts
from semaphone.native import quiet_native_log
from semaphone.streams import standard_input, standard_output

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from typing_extensions import Self

    Samples = NDArray[np.float32]  # [samples], one channel
    Frames = NDArray[np.float32]  # [frames, channels]

BLOCK = 16384  # frames read at once
LOWEST_RATE, HIGHEST_RATE = 4000, 384000  # Hz
# Float files may overshoot full scale a little; far beyond it they hold something else than speech in [-1, 1].
LOUDEST = 16.0
UNKNOWN = 2**62  # frames: libsndfile gives the largest number when a compressed file does not say how long it is
QUIET = 1e-4  # of full scale, the level of channels that nobody would miss
CANCELLED = 0.01  # of the channels' mean energy is left in their mean: far less than if they were unlike each other
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
    """An open file: its facts and its samples as they stand in it, [frames, channels], with their rate in Hz.

    Rate and channels can change on the way.
    """

    info: AudioInfo
    blocks: Iterator[tuple[Frames, int]]


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


def read_blocks(
    path: str | Path, sample_rate: int, *, stdin_rate: int = 16000, channel: int | None = None
) -> Iterator[Samples]:
    """Mono blocks of a file at `sample_rate` (Hz), of any length but zero, in [-1, 1].

    Reads what soundfile reads (WAV, FLAC, Ogg, MP3, ...) and, with PyAV installed, AAC, Opus, G.722 and more: the
    first track that can be decoded, and recordings that follow each other in one file one after another, whatever
    their rates. Channels are averaged unless `channel` (from 1 on) takes one, samples beyond full scale clipped. `-`
    is standard input: raw 16-bit little-endian PCM, one channel, `stdin_rate` Hz; a half sample at its end is dropped.

    Raises InputError at once if the file cannot be opened, later if it is damaged, holds samples that are not
    finite, or none at all. Warns (InputWarning) if the channels cancel each other.
    """
    source = _open_stdin(stdin_rate) if str(path) == "-" else _open(str(path))
    _check_rate(source.info.path, source.info.sample_rate)
    _check_channel(source.info.path, source.info.channels, channel)
    return _mono(source, sample_rate, channel)


def read_audio(path: str | Path, sample_rate: int, *, stdin_rate: int = 16000, channel: int | None = None) -> Samples:
    """All of a file, [samples] float32 mono in [-1, 1] at `sample_rate` (Hz); see `read_blocks`."""
    return np.concatenate(list(read_blocks(path, sample_rate, stdin_rate=stdin_rate, channel=channel)))


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
            self._bytes = standard_output()
            return self
        import soundfile

        part = self._stack.enter_context(replacing(self.path, "audio"))
        try:
            kind = FORMATS[Path(self.path).suffix.lower()]
            self._file = self._stack.enter_context(
                soundfile.SoundFile(os.fsencode(part), "w", self.sample_rate, 1, "PCM_16", format=kind)
            )
        except Exception as error:
            self._stack.__exit__(type(error), error, error.__traceback__)
            raise InputError(f"{self.path} cannot be written: {error}") from error
        return self

    def write(self, samples: Samples) -> None:
        """Appends samples [n] in [-1, 1]; what lies beyond is clipped."""
        stopping.check()
        pcm = to_pcm16(samples)
        if self._file is None:
            self._write_bytes(pcm.astype("<i2").tobytes())
        else:
            self._write_file(pcm)
        self.samples_written += len(pcm)
        self.samples_clipped += int(np.count_nonzero(np.abs(samples) > 1.0))

    def _write_bytes(self, data: bytes) -> None:
        try:
            self._bytes.write(data)
            self._bytes.flush()  # someone may be listening live
        except BrokenPipeError:
            raise
        except OSError as error:
            raise InputError(f"Standard output cannot be written: {error.strerror or error}.") from error

    def _write_file(self, pcm: NDArray[np.int16]) -> None:
        try:
            self._file.write(pcm)
        except (RuntimeError, AssertionError, OSError) as error:  # soundfile asserts that everything was written
            raise InputError(f"{self.path} cannot be written to its end; is the disk full?") from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, traceback)


def _mono(source: _Source, sample_rate: int, channel: int | None) -> Iterator[Samples]:
    """Checked, averaged over channels or one of them, resampled, clipped."""
    info = source.info
    rate = info.sample_rate
    resampler = Resampler(rate, sample_rate)
    levels = _Levels()
    seconds = 0.0
    for block, found in source.blocks:
        stopping.check()
        _check(block, info, seconds, found)
        _check_channel(info.path, block.shape[1], channel)
        if found != rate:
            _check_rate(info.path, found)
            yield from _clipped(resampler.flush())
            rate, resampler = found, Resampler(found, sample_rate)
        seconds += len(block) / rate
        mono = block.mean(axis=1, dtype=np.float32) if channel is None else block[:, channel - 1]
        if channel is None:
            levels.add(block, mono)
        yield from _clipped(resampler.push(np.ascontiguousarray(mono)))
    if not seconds:
        raise InputError(f"{info.path} holds no samples.")
    yield from _clipped(resampler.flush())
    levels.warn(info.path)


def _clipped(samples: Samples) -> Iterator[Samples]:
    if len(samples):
        yield np.clip(samples, -1.0, 1.0)


class _Levels:
    """Hears whether the mean of several channels is far below each of them."""

    def __init__(self) -> None:
        self._samples = 0
        self._each = self._mean = 0.0  # energy

    def add(self, block: Frames, mono: Samples) -> None:
        """A block [frames, channels] and its mean [frames]."""
        if block.shape[1] > 1:
            self._samples += len(block)
            self._each += float(np.square(block, dtype=np.float64).sum()) / block.shape[1]
            self._mean += float(np.square(mono, dtype=np.float64).sum())

    def warn(self, path: str) -> None:
        """Tell what was heard, if channels cancel each other."""
        audible = self._each > self._samples * QUIET**2
        if audible and self._mean < CANCELLED * self._each:
            warnings.warn(
                f"The channels of {path} cancel each other, so that their mean is next to silence; "
                "take one of them (--mix 1).",
                InputWarning,
                stacklevel=2,
            )


def _check_rate(path: str, rate: int) -> None:
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise InputError(
            f"{path} has a sample rate of {rate} Hz, and only {LOWEST_RATE} to {HIGHEST_RATE} Hz make sense for speech."
        )


def _check_channel(path: str, channels: int, channel: int | None) -> None:
    if channel is not None and not 1 <= channel <= channels:
        raise InputError(f"{path} has {channels} channel{'s' * (channels != 1)}; there is no channel {channel}.")


def _check(block: Frames, info: AudioInfo, before: float, rate: int) -> None:
    """Refuses samples that are no speech; says where. `before` is the time (s) of the block's first sample."""
    bad = ~np.isfinite(block)
    if bad.any():
        what = "a sample that is not a finite number"
    else:
        bad = np.abs(block) > LOUDEST
        what = f"a sample beyond {LOUDEST:g} times full scale"
    rows = np.flatnonzero(bad.any(axis=1))
    if len(rows):
        raise InputError(f"{info.path} has {what} at {before + rows[0] / rate:.3f} s.")


def _open(path: str) -> _Source:
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise InputError(f"{path} is a folder, not an audio file.")
        if not stat.S_ISREG(mode):
            raise InputError(f"{path} is not a regular file; give raw PCM to standard input with -.")
        with open(path, "rb") as opened:
            head = opened.read(HEAD)
            if not head:
                raise InputError(f"{path} is empty.")
            if container_of(head) == STREAM:
                raise InputError(f"{path} is no recording but holds {STREAM}, which `semaphone decode` turns into one.")
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist.") from error
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    return _open_soundfile(path) or _open_av(path)


def _open_soundfile(path: str) -> _Source | None:
    """`None` if libsndfile does not know the format."""
    import soundfile

    pieces = parts(path)
    try:
        # Bytes, since not every file name is text.
        file = _sound_file(path, Excerpt(path, pieces[0]) if pieces else os.fsencode(path))
    except (soundfile.LibsndfileError, TypeError):  # TypeError: a suffix that means raw samples
        return None
    frames = file.frames if file.frames < UNKNOWN and len(pieces) < 2 else None
    info = AudioInfo(path, file.samplerate, file.channels, frames, f"{file.format} {file.subtype}")
    return _Source(info, _soundfile_blocks(path, file, pieces[1:]))


def _sound_file(path: str, name: bytes | Excerpt) -> Any:
    import soundfile

    with _quiet(path):
        file = soundfile.SoundFile(name)
    if file.frames >= UNKNOWN:
        file.seekable = lambda: False  # soundfile would seek to where it is anyway, which fails here
    return file


def _soundfile_blocks(path: str, file: Any, others: list[Part]) -> Iterator[tuple[Frames, int]]:
    """The blocks of an open file, and then of the other recordings in it."""
    import soundfile

    seconds = 0.0
    while True:
        with file:
            while len(block := _soundfile_block(path, file, seconds)):
                seconds += len(block) / file.samplerate
                yield block, file.samplerate
        if not others:
            return
        try:
            file = _sound_file(path, Excerpt(path, others.pop(0)))
        except soundfile.LibsndfileError as error:
            raise InputError(f"{path} is damaged after {seconds:.1f} s.") from error


def _soundfile_block(path: str, file: Any, seconds: float) -> Frames:
    import soundfile

    try:
        with _quiet(path, file.format):
            block: Frames = file.read(BLOCK, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise InputError(f"{path} is damaged after {seconds:.1f} s.") from error
    return block


def _quiet(path: str, format: str | None = None) -> AbstractContextManager[None]:
    """Keeps the decoder of MP3 from writing notes for its makers to standard error."""
    loud = path.lower().endswith((".wav", ".flac")) if format is None else not format.startswith("MP")
    return nullcontext() if loud else quiet_native_log()


def _open_av(path: str) -> _Source:
    try:
        import av
    except ImportError:
        hint = "PyAV reads m4a, AAC, WebM and more: pip install 'semaphone[formats]'"
        raise InputError(f"{path} is not audio that can be read here ({hint}).") from None
    with ExitStack() as stack:
        try:
            container = stack.enter_context(av.open(_openable(path, stack)))
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise InputError(f"{path} is not audio that can be read.") from error
        stream = _decodable(path, container)
        rate = int(stream.rate)
        frames = round(stream.duration * stream.time_base * rate) if stream.duration and stream.time_base else None
        info = AudioInfo(path, rate, stream.channels, frames, stream.codec_context.name)
        return _Source(info, _av_blocks(path, container, stream, stack.pop_all()))


def _openable(path: str, stack: ExitStack) -> Any:
    """The path, or, if it is no text, the open file."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return stack.enter_context(open(path, "rb"))
    return path


def _decodable(path: str, container: Any) -> Any:
    """The first audio track that there is a decoder for."""
    for stream in container.streams.audio:
        context = stream.codec_context  # None if nobody knows the codec
        if context is not None and context.is_decoder and stream.rate and stream.channels:
            return stream
    if container.streams.audio:
        raise InputError(f"{path} holds audio of a kind that cannot be decoded here.")
    raise InputError(f"{path} holds no audio.")


def _av_blocks(path: str, container: Any, stream: Any, opened: ExitStack) -> Iterator[tuple[Frames, int]]:
    import av

    to_float, kind = av.AudioResampler(format="flt"), None
    seconds = 0.0
    with opened:
        try:
            for packet in container.demux(stream):
                for decoded in packet.decode():
                    found = (decoded.format.name, decoded.layout.name, decoded.sample_rate)
                    if found != kind:  # a resampler knows the first kind only; it holds nothing back
                        to_float, kind = av.AudioResampler(format="flt"), found
                    for frame in to_float.resample(decoded):
                        seconds += frame.samples / frame.sample_rate
                        # Interleaved: of channels in planes of their own PyAV reads no more than eight.
                        samples = frame.to_ndarray().reshape(frame.samples, -1)
                        yield samples.astype(np.float32, copy=False), frame.sample_rate
        except (av.error.FFmpegError, ValueError) as error:
            raise InputError(f"{path} is damaged after {seconds:.1f} s.") from error


def _open_stdin(rate: int) -> _Source:
    source = standard_input()

    def pieces() -> Iterator[bytes]:
        head = b""
        while not enough(head) and (more := source.read(2 * BLOCK)):
            head += more
        if (found := not_raw(head)) is not None:
            what = f"an audio file ({found})" if found.endswith("recording") else found
            raise InputError(f"Standard input is {what}; it should be raw 16-bit PCM (or give a file name).")
        yield head
        while data := source.read(2 * BLOCK):
            yield data

    def blocks() -> Iterator[tuple[Frames, int]]:
        rest = b""
        for data in pieces():
            data = rest + data
            whole = len(data) - len(data) % 2
            rest = data[whole:]
            yield (np.frombuffer(data[:whole], "<i2").astype(np.float32) / np.float32(32768)).reshape(-1, 1), rate

    return _Source(AudioInfo("standard input", rate, 1, None, "PCM_16"), blocks())
