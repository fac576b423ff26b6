"""Figures by group."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import soundfile
from tests.experiments.fake import Muted

from semaphone.experiments.corpus import Recording
from semaphone.experiments.groups import by_group, groups_of
from semaphone.experiments.options import Weather
from semaphone.experiments.study import Corpus, Measured, Study


def recording(folder, name: str, hertz: float, **facts: str) -> Recording:
    time = np.arange(16_000) / 16_000
    file = folder / f"{name}.wav"
    speech = sum(0.1 * np.sin(2 * np.pi * k * hertz * time) for k in range(1, 8))
    soundfile.write(file, speech, 16_000)
    return Recording(file, file.name, name, 1.0, **facts)


def test_who_belongs_where(tmp_path):
    pytest.importorskip("pyworld")
    low, high = recording(tmp_path, "low", 110.0, set="a"), recording(tmp_path, "high", 220.0, language="de")
    assert groups_of(low) == ["from a", "low voices"]
    assert groups_of(high) == ["language de", "high voices"]
    assert groups_of(replace(high, speaker="so0001_child")) == ["language de", "children"]
    soundfile.write(tmp_path / "still.wav", np.zeros(16_000), 16_000)
    assert groups_of(Recording(tmp_path / "still.wav", "still.wav", "s", 1.0)) == []


def test_groups_have_their_own_means(tmp_path):
    pytest.importorskip("pyworld")
    pitches = {"a": 110.0, "b": 120.0, "c": 230.0}
    recordings = [
        recording(tmp_path, n, hertz, set="xyx"[i], language="en") for i, (n, hertz) in enumerate(pitches.items())
    ]
    system, weather = Muted("S", "S"), Weather("uniform", 0.0)
    corpus = Corpus("here", recordings)
    measured = Measured(Study("n", "t", [], [system], [weather], [corpus], ("stoi",), []))
    scores = zip(recordings, (0.2, 0.4, 0.9), strict=True)
    measured.rows[system, weather.specification, "here"] = [
        {"file": r.name, "draw": 0, "stoi": value} for r, value in scores
    ]
    table = by_group(measured)
    assert [(row[0], row[1], row[3].split()[0]) for row in table.rows] == [
        ("from x", "2", "0.550"),
        ("low voices", "2", "0.300"),
    ]
