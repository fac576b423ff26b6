"""Options of the experiments on quality."""

from __future__ import annotations

import argparse

import pytest
from tests.experiments.fake import write_recordings

from semaphone.channel.erasure import parse_channel
from semaphone.errors import InputError
from semaphone.experiments import link_systems, options


def parsed(*arguments):
    parser = argparse.ArgumentParser()
    options.add_corpus_options(parser)
    options.add_system_options(parser)
    options.add_loss_options(parser)
    return parser.parse_args(["--data", "x", *arguments])


def test_losses():
    assert options.losses_of(parsed()) == [0, 0.05, 0.1, 0.2, 0.3]
    assert options.losses_of(parsed("--quick")) == [0, 0.1, 0.3]
    assert options.losses_of(parsed("--losses", "0.3,0,0.3")) == [0, 0.3]
    for bad in ("much", "1", "-0.1", ","):
        with pytest.raises(InputError):
            options.losses_of(parsed(f"--losses={bad}"))


def test_weathers_are_channels():
    assert options.Weather("bursts", 0.0).specification == options.Weather("uniform", 0.0).specification == "none"
    assert parse_channel(options.Weather("bursts", 0.2).specification).mean_loss == 0.2
    assert parse_channel(options.Weather("uniform", 0.05).specification).mean_loss == 0.05
    assert options.Weather("bursts", 0.2).title == "20% in bursts of 240ms"


def test_kinds_of_weather():
    parser = argparse.ArgumentParser()
    options.add_corpus_options(parser)
    options.add_loss_options(parser)
    options.add_weather_option(parser)
    both = options.weathers_of(parser.parse_args(["--data", "x"]), "0.1,0.2", "0.1")
    assert [(one.kind, one.loss) for one in both] == [
        ("uniform", 0.1),
        ("uniform", 0.2),
        ("bursts", 0.1),
        ("bursts", 0.2),
    ]
    assert options.weathers_of(parser.parse_args(["--data", "x", "--weather", "bursts"]), "0.1,0.2", "0.1") == both[2:]


def test_a_quick_look_uses_two_cores(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(8), raising=False)
    assert options.jobs_of(parsed()) == 1
    assert options.jobs_of(parsed("--quick")) == 2
    assert options.jobs_of(parsed("--quick", "--jobs", "3")) == 3


def test_counts():
    assert options.count("3") == 3
    for bad in ("0", "-1", "x", "99999999999"):
        with pytest.raises(argparse.ArgumentTypeError):
            options.count(bad)


def test_a_quick_look_takes_short_recordings(tmp_path, rng):
    folder = write_recordings(tmp_path / "short", rng, 3, 2.5)
    write_recordings(tmp_path / "short" / "z", rng, 3, 1.0)
    assert [r.name for r in options.recordings_of(parsed("--quick"), folder)] == ["0.wav", "2.wav"]
    assert [r.name for r in options.recordings_of(parsed("--quick"), folder / "z")] == ["0.wav", "1.wav"]
    assert len(options.recordings_of(parsed("--quick", "--limit", "4"), folder)) == 4
    assert len(options.recordings_of(parsed(), folder)) == 6


def test_rivals_that_are_named_must_be_there():
    for bad in ("mp3:8000", "opus:6000:70ms", "codec2:1200:20ms", "opus:6000:60ms:1"):
        with pytest.raises(InputError):
            options.rivals_of(parsed("--rivals", bad))
    assert options.rivals_of(parsed("--rivals", "")) == []
    found = options.rivals_of(parsed("--rivals", "codec2:1200,opus:6000:60ms"))
    assert [system.name for system in found] == ["Codec 2 1.2 kbit/s", "Opus 6 kbit/s, 60 ms"]


def test_metrics_are_known(monkeypatch):
    assert options.metrics_of(parsed("--metrics", "wer,stoi"), ()) == ("stoi", "wer")
    with pytest.raises(InputError):
        options.metrics_of(parsed("--metrics", "taste"), ())
    monkeypatch.setattr("semaphone.metrics.scores._version", lambda _: None)
    with pytest.raises(InputError):  # nothing is left
        options.metrics_of(parsed(), ("stoi",))


def test_histories():
    args = parsed("--schedule", "history", "--history", "8x4/4,2", "--recovery", "hold", "--wait", "160ms")
    found = link_systems.at_rates(args, [11], "hold")
    assert [system.name for system in found] == ["nano history 8x4", "nano history 4,2"]
    assert [(system.horizon, system.wait, system.schedule) for system in found] == [
        (3, 0.16, "history"),
        (1, 0.16, "history"),
    ]
    (told,) = link_systems.at_rates(parsed("--schedule", "history", "--horizon", "400ms"), [11], "hold")
    assert (told.horizon, told.transmissions) == (5, 11)
    with pytest.raises(InputError, match="--history goes with --schedule history"):
        link_systems.at_rates(parsed("--history", "8x4"), [11], "hold")
    with pytest.raises(InputError, match="--horizon goes with --schedule history"):
        link_systems.at_rates(parsed("--horizon", "2", "--controllers", "fixed"), [11], "hold")


def test_a_named_metric_that_is_not_installed_is_refused_before_the_work(monkeypatch):
    from argparse import Namespace

    from semaphone.experiments import options

    monkeypatch.setattr(options, "_lacks", lambda metric: "resemblyzer is not installed" if "speaker" in metric else "")
    with pytest.raises(InputError, match=r"resemblyzer is not installed; leave speaker_similarity out of --metrics"):
        options.metrics_of(Namespace(metrics="pesq,speaker_similarity"), ())
    assert options.metrics_of(Namespace(metrics=None), ("pesq", "speaker_similarity")) == ("pesq",)
