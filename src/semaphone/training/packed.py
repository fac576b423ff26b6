"""A corpus in a few large files, prepared once and trained from on another machine: `semaphone train prepare`.

    corpus.json      what is in it: each recording with its group, length and text, each file with its digest
    audio-000.zip    recordings as compressed files, as they were (or as FLAC where soundfile does not read them)
    f0.zip           fundamental frequency in Hz every 10 ms, half precision (see training/data.py)

Unpacking needs numpy and soundfile alone. It makes the cache of training/data.py, sample by sample the one that
the folder of recordings would have given.

    pack_corpus(prepare_corpus(folder, cache, None, progress), folder, Path("corpus"))
    corpus = unpack_corpus(Path("corpus"), Path("cache"), progress)
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semaphone.audio import BLOCK, Resampler
from semaphone.errors import InputError
from semaphone.files import replacing, write_whole
from semaphone.training.data import CHUNK, HOP, Corpus, Progress, Recording, open_corpus, padded_pcm
from semaphone.training.sources import SAMPLE_RATE, Source, find_sources
from semaphone.workers import end_with_parent

INDEX = "corpus.json"
F0 = "f0.zip"
FORMAT = 1
SHARD = 48 << 20  # bytes of a file of recordings, about
READABLE = frozenset({".flac", ".ogg", ".opus", ".mp3"})  # by soundfile alone, and compressed


@dataclass(frozen=True)
class Packed:
    """One recording of a packed corpus."""

    file: str  # its name in the folder that it came from
    group: str
    length: int  # samples at 16 kHz, a multiple of a chunk
    shard: str
    member: str
    text: str = ""


def is_packed(folder: Path) -> bool:
    """Whether a folder holds a packed corpus."""
    return (folder / INDEX).is_file()


def pack_corpus(
    corpus: Corpus,
    root: Path,
    out: Path,
    progress: Progress = lambda stage, done, total: None,
    shard_bytes: int = SHARD,
) -> str:
    """Write a packed corpus; corpus.json comes last, so a folder with one is whole.

    Args:
        corpus: the cache of the recordings, with F0.
        root: the folder or manifest that the recordings came from.
        out: the folder to write.
        progress: told (stage, done, all).
        shard_bytes: about how large each file of recordings gets.

    Returns:
        The digest of the corpus.
    """
    out.mkdir(parents=True, exist_ok=True)
    entries: list[Packed] = []
    sources = {source.name: source for source in find_sources(root)}
    shards = _shards(corpus, sources, shard_bytes)
    for name, members in shards:
        with replacing(out / name) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as file:
            for number, r in members:
                progress("packing", number, len(corpus.recordings))
                data, suffix = _compressed(corpus, r, sources[r.file])
                member = f"{number:06d}{suffix}"
                file.writestr(zipfile.ZipInfo(member), data)
                entries.append(Packed(r.file, r.group, r.length, name, member, sources[r.file].text))
    with replacing(out / F0) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(zipfile.ZipInfo("f0.f16"), corpus.f0.astype("<f2").tobytes(), zipfile.ZIP_DEFLATED)
    files = {f: _digest(out / f) for f in [*(name for name, _ in shards), F0]}
    digest = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
    facts: dict[str, Any] = {"format": FORMAT, "sample_rate": SAMPLE_RATE, "digest": digest, "files": files}
    write_whole(out / INDEX, json.dumps({**facts, "recordings": [asdict(e) for e in entries]}))
    return digest


def _shards(corpus: Corpus, sources: Mapping[str, Source], most: int) -> list[tuple[str, list[tuple[int, Recording]]]]:
    """Names of files and the numbered recordings that go into each."""
    parts: list[list[tuple[int, Recording]]] = [[]]
    size = 0
    for number, r in enumerate(corpus.recordings):
        source = sources[r.file]
        own = source.path.stat().st_size if source.whole else r.length
        if size + own > most and parts[-1]:
            parts.append([])
            size = 0
        parts[-1].append((number, r))
        size += own
    return [(f"audio-{i:03d}.zip", part) for i, part in enumerate(parts)]


def _compressed(corpus: Corpus, r: Recording, source: Source) -> tuple[bytes, str]:
    """The bytes of a recording and their suffix: the file itself, where soundfile reads it and it is compressed."""
    suffix = source.path.suffix.lower()
    if source.whole and suffix in READABLE:
        return source.path.read_bytes(), suffix
    import soundfile

    out = io.BytesIO()
    part = corpus.audio[r.start : r.start + r.length]
    soundfile.write(out, part, SAMPLE_RATE, "PCM_16", format="FLAC")
    return out.getvalue(), ".flac"


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _slow(file)


def _slow(file: io.BufferedReader) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def read_index(folder: Path) -> tuple[dict[str, Any], list[Packed]]:
    """Facts and recordings of a packed corpus. Raises InputError if it is none, or of a later format."""
    try:
        facts = json.loads((folder / INDEX).read_text("utf-8"))
        if facts["format"] != FORMAT or facts["sample_rate"] != SAMPLE_RATE:
            raise InputError(f"{folder} is a corpus of format {facts['format']}; this version reads {FORMAT}.")
        entries = [Packed(**e) for e in facts["recordings"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder} is not a packed corpus: {error}.") from None
    if not entries or any(e.length <= 0 or e.length % CHUNK for e in entries):
        raise InputError(f"{folder} is not a packed corpus: its recordings have impossible lengths.")
    return facts, entries


def unpack_corpus(
    folder: Path,
    cache: Path,
    progress: Progress = lambda stage, done, total: None,
    workers: int = 2,
    partial: bool = False,
) -> Corpus:
    """Make the cache of a packed corpus and open it. With `partial`, files that are not there are left out.

    Raises InputError if a file is missing or not what corpus.json says.
    """
    facts, entries = read_index(folder)
    missing = {name for name in facts["files"] if not (folder / name).is_file()}
    if missing and (not partial or F0 in missing):
        raise InputError(f"The packed corpus {folder} lacks {', '.join(sorted(missing))}.")
    for name, digest in facts["files"].items():
        if name not in missing and _digest(folder / name) != digest:
            raise InputError(f"{folder / name} is damaged: its digest is not the one in {INDEX}.")
    cache.mkdir(parents=True, exist_ok=True)
    kept = [e for e in entries if e.shard not in missing]
    _write_f0(folder, cache, entries, kept)
    index: list[dict[str, Any]] = []
    position = 0
    with replacing(cache / "audio.i16") as part, open(part, "wb") as out:
        for i, (entry, pcm) in enumerate(zip(kept, _decoded(folder, kept, workers), strict=True)):
            progress("audio", i, len(kept))
            if len(pcm) != entry.length:
                raise InputError(f"{entry.file} in {folder} has {len(pcm)} samples, not {entry.length}.")
            out.write(pcm.tobytes())
            index.append(asdict(Recording(entry.file, entry.group, position, len(pcm))))
            position += len(pcm)
    write_whole(cache / "index.json", json.dumps(index))
    return open_corpus(cache)


def _write_f0(folder: Path, cache: Path, entries: list[Packed], kept: list[Packed]) -> None:
    try:
        with zipfile.ZipFile(folder / F0) as file:
            f0 = np.frombuffer(file.read("f0.f16"), "<f2")
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{folder / F0} cannot be read: {error}.") from None
    if len(f0) != sum(e.length for e in entries) // HOP:
        raise InputError(f"{folder / F0} does not fit the recordings.")
    wanted = {e.member for e in kept}
    at, pieces = 0, []
    for e in entries:
        if e.member in wanted:
            pieces.append(f0[at : at + e.length // HOP])
        at += e.length // HOP
    with replacing(cache / "f0.f16") as part:
        Path(part).write_bytes(np.concatenate(pieces).astype(np.float16).tobytes())


def _decoded(folder: Path, entries: list[Packed], workers: int) -> Iterator[NDArray[np.int16]]:
    """Samples of recordings, in their order."""
    parts = [entries[i : i + 64] for i in range(0, len(entries), 64)]
    jobs = [(str(folder), [(e.shard, e.member) for e in part]) for part in parts]
    if workers <= 1:
        for job in jobs:
            yield from _decode(job)
        return
    with ProcessPoolExecutor(workers, initializer=end_with_parent) as pool:
        for found in pool.map(_decode, jobs):
            yield from found


def _decode(job: tuple[str, list[tuple[str, str]]]) -> list[NDArray[np.int16]]:
    import soundfile

    folder, members = Path(job[0]), job[1]
    files: dict[str, zipfile.ZipFile] = {}
    found: list[NDArray[np.int16]] = []
    try:
        for shard, member in members:
            if shard not in files:
                files[shard] = zipfile.ZipFile(folder / shard)
            with soundfile.SoundFile(io.BytesIO(files[shard].read(member))) as file:
                found.append(padded_pcm(_speech(file)))
    except (OSError, KeyError, RuntimeError, zipfile.BadZipFile) as error:
        raise InputError(f"A recording of the packed corpus {folder} cannot be read: {error}.") from None
    finally:
        for opened in files.values():
            opened.close()
    return found


def _speech(file: Any) -> NDArray[np.float32]:
    """All of an open sound file, read as `audio.read_audio` reads it."""
    resampler = Resampler(file.samplerate, SAMPLE_RATE)
    parts: list[NDArray[np.float32]] = []
    while len(block := file.read(BLOCK, dtype="float32", always_2d=True)):
        parts.append(resampler.push(np.ascontiguousarray(block.mean(axis=1, dtype=np.float32))))
    if file.samplerate != SAMPLE_RATE:
        parts.append(resampler.flush())
    return np.concatenate(parts).clip(-1.0, 1.0)
