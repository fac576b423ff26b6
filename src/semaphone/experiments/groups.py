"""Who falls apart? Figures by group of recordings: where they are from, their language, high and low voices, children.

A table of metadata seldom says who speaks. High and low voices are told apart by the median of the original's F0:
165 Hz lies between most men and most women.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from semaphone.errors import MissingExtraError
from semaphone.experiments import points
from semaphone.experiments.study import Corpus, Measured, Table
from semaphone.training.data import fundamental
from semaphone.training.sources import SAMPLE_RATE

if TYPE_CHECKING:
    from semaphone.experiments.corpus import Recording

BETWEEN = 165.0  # Hz
CHILD = "_child"  # how the table of metadata ends the speaker's name
VOICED = 20  # frames of 10 ms that a median rests on, at least


def groups_of(recording: Recording) -> list[str]:
    """The groups a recording belongs to."""
    found = [f"from {recording.set}"] if recording.set else []
    if recording.language:
        found.append(f"language {recording.language}")
    if recording.speaker.endswith(CHILD):
        return [*found, "children"]
    voice = _voice(recording)
    return [*found, voice] if voice else found


def _voice(recording: Recording) -> str:
    from semaphone.audio import read_audio

    try:
        f0 = fundamental(read_audio(recording.file, SAMPLE_RATE))
    except MissingExtraError:  # without pyworld nobody knows
        return ""
    voiced = f0[f0 > 0]
    if len(voiced) < VOICED:
        return ""
    return "low voices" if np.median(voiced) < BETWEEN else "high voices"


def by_group(measured: Measured, corpus: Corpus | None = None) -> Table:
    """Every metric by group and system, in the first weather; groups of two recordings or more, but not of all."""
    study = measured.study
    corpus = corpus or study.corpora[0]
    members: dict[str, set[str]] = {}
    for recording in corpus.recordings:
        for group in groups_of(recording):
            members.setdefault(group, set()).add(recording.name)
    rows = []
    for group, names in sorted(members.items()):
        if 1 < len(names) < len(corpus.recordings):
            rows += _rows(measured, corpus, group, names)
    head = ["group", "recordings", "system", *(points.title_of(metric) for metric in study.metrics)]
    return Table("By group", head, rows)


def _rows(measured: Measured, corpus: Corpus, group: str, names: set[str]) -> list[list[str]]:
    study = measured.study
    rows = []
    for system in study.systems:
        found = [row for row in measured.of(system, study.weathers[0], corpus) if row["file"] in names]
        scores = [points.shown(points.estimate(found, metric), metric) for metric in study.metrics]
        rows.append([group, str(len({row["file"] for row in found})), system.name, *scores])
    return rows
