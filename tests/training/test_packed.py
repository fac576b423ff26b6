"""Corpora in a few files, and manifests: what they give is what the folder gives."""

import gzip
import json
import shutil

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from semaphone.errors import InputError
from semaphone.training.data import prepare_corpus
from semaphone.training.packed import INDEX, is_packed, pack_corpus, unpack_corpus
from semaphone.training.sources import find_sources, is_manifest


def quiet(*_):
    pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("speech")
    rng = np.random.default_rng(0)
    for group, name, rate in (
        ("a", "0.wav", 16000),
        ("a", "1.flac", 22050),
        ("b", "2.ogg", 16000),
        ("b", "3.mp3", 16000),
    ):
        (root / group).mkdir(exist_ok=True)
        time = np.arange(2 * rate) / rate
        wave = 0.3 * np.sin(2 * np.pi * 150 * time) + 0.02 * rng.standard_normal(len(time))
        soundfile.write(root / group / name, wave, rate)
    return root


@pytest.fixture(scope="module")
def corpus(folder, tmp_path_factory):
    return prepare_corpus(folder, tmp_path_factory.mktemp("cache"), None, quiet, workers=1)


@pytest.fixture
def packed(corpus, folder, tmp_path):
    pack_corpus(corpus, folder, tmp_path / "packed", shard_bytes=60_000)
    return tmp_path / "packed"


def test_a_packed_corpus_gives_the_cache_of_its_folder(corpus, packed, tmp_path):
    assert is_packed(packed)
    assert len(list(packed.glob("audio-*.zip"))) > 1
    found = unpack_corpus(packed, tmp_path / "again", workers=2)
    assert found.recordings == corpus.recordings
    assert np.array_equal(found.audio, corpus.audio)
    assert np.array_equal(found.f0, corpus.f0)
    again = prepare_corpus(packed, tmp_path / "third", None, quiet, workers=1)
    assert np.array_equal(again.audio, corpus.audio)


def test_a_cache_is_of_its_recordings_alone(folder, packed, tmp_path):
    prepare_corpus(folder, tmp_path / "cache", None, quiet, workers=1)
    with pytest.raises(InputError, match="other recordings"):
        prepare_corpus(packed, tmp_path / "cache", None, quiet, workers=1)


def test_a_missing_or_damaged_file_is_named(packed, tmp_path):
    whole = json.loads((packed / INDEX).read_text())
    last = sorted(packed.glob("audio-*.zip"))[-1]
    data = last.read_bytes()
    last.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])
    with pytest.raises(InputError, match=f"{last.name} is damaged"):
        unpack_corpus(packed, tmp_path / "cache", workers=1)
    last.unlink()
    with pytest.raises(InputError, match=f"lacks {last.name}"):
        unpack_corpus(packed, tmp_path / "cache", workers=1)
    found = unpack_corpus(packed, tmp_path / "cache", workers=1, partial=True)
    there = [r["file"] for r in whole["recordings"] if r["shard"] != last.name]
    assert [r.file for r in found.recordings] == there
    assert len(found.f0) == len(found.audio) // 160
    (packed / "f0.zip").unlink()
    with pytest.raises(InputError, match=r"lacks .*f0\.zip"):
        unpack_corpus(packed, tmp_path / "cache", workers=1, partial=True)


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"format": 2, "sample_rate": 16000}', '{"format": 1, "recordings": 3}']
)
def test_what_is_no_packed_corpus_is_refused(tmp_path, text):
    (tmp_path / INDEX).write_text(text)
    with pytest.raises(InputError, match=r"not a packed corpus|format 2"):
        unpack_corpus(tmp_path, tmp_path / "cache", workers=1)


def cut(path, name, start=0.5, duration=1.0, **more):
    source = {"type": "file", "channels": [0], "source": str(path)}
    recording = {"id": "r", "sources": [source], "sampling_rate": 16000, "num_samples": 32000, "duration": 2.0}
    spoken = [{"id": "s", "text": "hello there", "speaker": "jane"}]
    facts = {"id": name, "start": start, "duration": duration, "channel": 0, "supervisions": spoken}
    return json.dumps({**facts, "recording": recording, "type": "MonoCut", **more})


@pytest.mark.parametrize("packs", [False, True])
def test_a_manifest_gives_its_pieces(folder, corpus, tmp_path, packs):
    shutil.copytree(folder, tmp_path / "wavs")
    manifest = tmp_path / ("cuts.jsonl.gz" if packs else "cuts.jsonl")
    lines = cut("wavs/a/0.wav", "one") + "\n\n" + cut("wavs/b/2.ogg", "two", 0, 2.0, custom={"group": "g"}) + "\n"
    manifest.write_bytes(gzip.compress(lines.encode()) if packs else lines.encode())
    assert is_manifest(manifest)
    assert [(s.name, s.group, s.text) for s in find_sources(manifest)] == [
        ("one", "jane", "hello there"),
        ("two", "g", "hello there"),
    ]
    found = prepare_corpus(manifest, tmp_path / "cache", None, quiet, workers=1)
    first = next(r for r in corpus.recordings if r.file == "a/0.wav")
    whole = corpus.audio[first.start : first.start + first.length]
    assert np.array_equal(found.audio[:16000], whole[8000:24000])
    if packs:
        pack_corpus(found, manifest, tmp_path / "packed")
        again = unpack_corpus(tmp_path / "packed", tmp_path / "again", workers=1)
        assert np.array_equal(again.audio, found.audio)
        assert json.loads((tmp_path / "packed" / INDEX).read_text())["recordings"][0]["text"] == "hello there"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "Line 1"),
        ("[]", "Line 1"),
        ('{"id": "x"}', "Line 1"),
        (cut("a.wav", "x", start=-1.0), "impossible"),
        (cut("a.wav", "x", duration=float("nan")), "impossible"),
        (cut("a.wav", "x", type="MixedCut"), "MonoCut"),
        (cut("a.wav", "x") + "\n" + cut("a.wav", "x"), "two cuts"),
        ("", "names no recordings"),
    ],
)
def test_bad_manifests_are_refused(tmp_path, line, says):
    manifest = tmp_path / "cuts.jsonl"
    manifest.write_text(line)
    with pytest.raises(InputError, match=says):
        find_sources(manifest)


@given(st.text(max_size=200))
def test_no_line_of_a_manifest_breaks_it(tmp_path_factory, text):
    manifest = tmp_path_factory.mktemp("m") / "cuts.jsonl"
    manifest.write_text(text)
    with pytest.raises(InputError):
        find_sources(manifest)
