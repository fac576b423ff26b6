"""Result lines survive interruption, and results of other settings are kept apart."""

from __future__ import annotations

import pytest

from semaphone.errors import InputError
from semaphone.lines import Lines, Measured


def test_lines_go_on_after_a_cut(tmp_path):
    lines = Lines(tmp_path / "r.jsonl", ("a", "b"))
    lines.add({"a": 1, "b": None, "value": 0.5})
    with open(tmp_path / "r.jsonl", "a", encoding="utf-8") as file:
        file.write('{"a": 2, "b": nu')
    again = Lines(tmp_path / "r.jsonl", ("a", "b"))
    assert again.get(a=1, b=None) == {"a": 1, "b": None, "value": 0.5}
    assert again.get(a=2, b=None) is None
    again.add({"a": 2, "b": None, "value": 1.0})
    assert len(Lines(tmp_path / "r.jsonl", ("a", "b"))) == 2


def test_strange_lines_are_named(tmp_path):
    (tmp_path / "r.jsonl").write_text('{"a": 1}\nhello\n')
    with pytest.raises(InputError, match="Line 2"):
        Lines(tmp_path / "r.jsonl", ("a",))


def test_results_of_other_settings_are_not_mixed(tmp_path):
    path, place = (
        tmp_path / "r.jsonl",
        {"part": "noise", "system": "trained", "fading": "awgn", "snr": 1.0, "file": "a"},
    )
    sure, always = (Measured(path, tuple(place), {"doubt": d}) for d in (-1.7, -100.0))
    sure.add({**place, "text": ""})
    assert sure.get(**place) is not None
    assert always.get(**place) is None
    always.add({**place, "text": "babble"})
    again = Measured(path, tuple(place), {"doubt": -1.7})
    assert [line["text"] for line in again] == [""]
    assert len(again) == 1
