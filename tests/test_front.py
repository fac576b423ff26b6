"""The library as somebody uses it who has read its docstrings and nothing else."""

import doctest
import subprocess
import sys

import numpy as np
import pytest
import torch
from tests.codec.tiny import tiny_codec

import semaphone
from semaphone import front, plugins
from semaphone.errors import InputError


@pytest.fixture(scope="module")
def codec():
    return front.Codec(tiny_codec())


def noise(length, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(length)).astype(np.float32)


def test_importing_loads_nothing_heavy():
    heavy = "import sys, semaphone; print([m for m in ('torch', 'scipy', 'transformers', 'numpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_every_public_name_is_there_and_says_what_it_is():
    for name in semaphone.__all__:
        assert getattr(semaphone, name).__doc__, name
    assert set(semaphone.__all__) <= set(dir(semaphone))
    with pytest.raises(AttributeError, match="nothing"):
        semaphone.nothing  # noqa: B018


def test_speech_of_any_length_comes_back_aligned(codec):
    for length in (1, 1279, 1280, 5000):
        x = noise(length)
        tokens = codec.encode(x)
        assert tokens.shape[0] == codec.info.num_codebooks
        assert tokens.dtype == np.int64
        assert codec.decode(tokens, length=length).shape == (length,)
    assert codec.encode(np.stack([noise(3000), noise(3000, 1)])).shape[0] == 2
    assert np.array_equal(codec.encode(torch.from_numpy(noise(3000))), codec.encode(noise(3000)))
    assert np.array_equal(codec.encode((noise(3000) * 32768).astype(np.int16)).shape, codec.encode(noise(3000)).shape)
    assert codec.encode(noise(3000), num_codebooks=1).shape[0] == 1
    twice = codec.encode(noise(6000), sample_rate=32_000).shape[1]
    assert twice == codec.encode(noise(3000)).shape[1]


def test_a_stream_gives_what_the_whole_gives(codec):
    x = noise(9000)
    whole = codec.encode(x)
    stream = codec.stream()
    parts = [stream.encode(x[i : i + 700]) for i in range(0, 9000, 700)]
    streamed = np.concatenate(parts, 1)
    assert np.array_equal(streamed, whole[:, : streamed.shape[1]])
    speech = np.concatenate([stream.decode(streamed[:, :3]), stream.decode(streamed[:, 3:])])
    np.testing.assert_allclose(speech[codec.info.delay :], codec.decode(streamed), atol=1e-5)


@pytest.mark.parametrize(
    ("speech", "says"),
    [
        (np.zeros(0, np.float32), "at least one sample"),
        (np.zeros((2, 2, 2), np.float32), "shape"),
        (np.array([0.0, np.nan]), "finite"),
        (np.zeros(10, np.int32), "16-bit"),
        (np.zeros(10, bool), "16-bit"),
        (["a", "b"], "floats"),
        (None, "shape"),
    ],
)
def test_what_is_no_speech_is_refused(codec, speech, says):
    with pytest.raises(InputError, match=says):
        codec.encode(speech)


def test_what_are_no_tokens_is_refused(codec):
    good = np.zeros((codec.info.num_codebooks, 3), np.int64)
    size = codec.info.codebook_size
    for wrong, says in (
        (good - 1, "0 to"),
        (good + size, "0 to"),
        (good.astype(float), "whole numbers"),
        (good[0], "shape"),
        (good[:, :0], "shape"),
        (np.zeros((codec.info.num_codebooks + 1, 3), int), "shape"),
    ):
        with pytest.raises(InputError, match=says):
            codec.decode(wrong)
    with pytest.raises(InputError, match="hold 0 to"):
        codec.decode(good, length=10**9)
    for count in (0, 99, -1):
        with pytest.raises(InputError, match="codebooks, not"):
            codec.encode(noise(2000), num_codebooks=count)
    with pytest.raises(InputError, match="sample rate"):
        codec.encode(noise(2000), sample_rate=7)


@pytest.mark.parametrize("schedule", ["sliding", "split", "history", "bundle:160ms"])
def test_a_link_from_names(codec, schedule, tmp_path):
    link = front.Link(codec, channel="uniform:0.3", recovery="hold", schedule=schedule, codebooks=3)
    x = noise(20_000)
    heard = link.transmit(x, seed=3)
    assert heard.speech.shape == x.shape
    assert heard.report.packets_lost > 0
    assert heard.report.schedule.startswith(schedule.partition(":")[0])
    assert np.array_equal(link.transmit(x, seed=3).speech, heard.speech)
    if schedule == "history":
        heard.plot(tmp_path / "link.png")
        assert (tmp_path / "link.png").stat().st_size > 10_000
        with pytest.raises(InputError, match=r"\.png"):
            heard.plot(tmp_path / "link.wav")
        assert heard.report.chunk_loss_rate < 0.2


@pytest.mark.parametrize(
    "wrong",
    [
        {"channel": "storm"},
        {"recovery": "luck"},
        {"controller": "boss"},
        {"schedule": "never"},
        {"codebooks": 0},
        {"codebooks": 99},
        {"copies": 99},
        {"horizon": 3},
        {"schedule": "history", "horizon": 99},
        {"bitrate": 1.0, "controller": "budget"},
    ],
)
def test_links_that_cannot_be_are_refused(codec, wrong):
    with pytest.raises(InputError):
        front.Link(codec, **{"recovery": "hold", **wrong})


def test_parts_of_somebody_else_work_by_name(codec, monkeypatch):
    from semaphone.channel.models import Uniform
    from semaphone.controller.base import FixedController
    from semaphone.recovery.hold import NoRecovery

    monkeypatch.setattr(plugins, "_registered", {})
    semaphone.register_codec("mine", tiny_codec)
    semaphone.register_recovery("mine", lambda info: NoRecovery())
    semaphone.register_controller("mine", lambda info, form: FixedController(2, 1))
    semaphone.register_channel("mine", lambda text: Uniform(float(text)))
    link = semaphone.Link("mine", recovery="mine", controller="mine", channel="mine:1.0")
    assert link.transmit(noise(5000)).report.packet_loss_rate == 1.0
    assert plugins.names("codec") == ["mine"]
    for name in ("nano", "", "a b", "é"):
        with pytest.raises(InputError):
            semaphone.register_codec(name, tiny_codec)
    with pytest.raises(InputError, match="callable"):
        semaphone.register_codec("x", 3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="kinds"):
        plugins.register("engine", "x", tiny_codec)


def test_entry_points_of_a_package_are_found(monkeypatch):
    import importlib.metadata as metadata

    def entries(group, name=None):
        point = metadata.EntryPoint("theirs", "tests.codec.tiny:tiny_codec", group)
        broken = metadata.EntryPoint("broken", "tests.codec.tiny:no_such_thing", group)
        return [e for e in (point, broken) if name in (None, e.name)] if group == "semaphone.codecs" else []

    monkeypatch.setattr(metadata, "entry_points", entries)
    assert semaphone.load_codec("theirs").info.name == "nano"
    with pytest.raises(InputError, match="cannot be loaded"):
        semaphone.load_codec("broken")
    assert plugins.names("codec")[-1] == "theirs"


def test_scores(codec):
    pytest.importorskip("pystoi")
    x = noise(32_000)
    assert semaphone.evaluate(x, x, metrics=["stoi"]).stoi == pytest.approx(1.0, abs=1e-3)
    with pytest.raises(InputError, match="finite"):
        semaphone.evaluate(x, x * np.nan)


@pytest.mark.parametrize("module", [front, semaphone])
def test_examples_in_docstrings_run(module, monkeypatch):
    monkeypatch.setattr(plugins, "_registered", {})
    found = doctest.testmod(module)
    assert found.attempted > 3
    assert found.failed == 0
