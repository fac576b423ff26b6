"""What was measured is kept, counted once, and the same whoever measured it."""

from __future__ import annotations

import json
import os

import pytest
from tests.experiments.fake import Muted, recordings

from semaphone.errors import InputError
from semaphone.experiments import cells, sweep
from semaphone.experiments.cells import Task, plan
from semaphone.experiments.sweep import Results, measure
from semaphone.lines import Lines

OURS, THEIRS = Muted("ours", "ours"), Muted("theirs", "theirs", "b")


def tasks_of(planned, results, metrics=("stoi",)):
    return [Task(cell, missing) for cell in planned if (missing := results.missing(cell, metrics))]


@pytest.fixture
def planned(tmp_path, rng):
    return plan([OURS, THEIRS], ["none", "uniform:0.3"], recordings(tmp_path / "speech", rng), seed=1, draws=2)


def test_a_plan_has_one_draw_without_loss_and_one_weather_for_all(planned):
    assert len(planned) == 2 * 2 * (1 + 2)
    lossy = [cell for cell in planned if cell.channel != "none" and cell.recording.name == "0.wav"]
    assert {cell.draw for cell in lossy} == {0, 1}
    by_draw = {cell.draw: {c.weather for c in lossy if c.draw == cell.draw} for cell in lossy}
    assert all(len(weathers) == 1 for weathers in by_draw.values())
    assert by_draw[0] != by_draw[1]
    assert len({cell.digest for cell in planned}) == len(planned)


def test_only_what_is_missing_is_measured(planned, tmp_path, monkeypatch):
    path = tmp_path / "rows.jsonl"
    measure(tasks_of(planned, Results(path)), Results(path))
    whole = path.read_bytes()
    assert len(whole.splitlines()) == len(planned)
    path.write_bytes(whole[:-20])  # killed while it wrote
    results = Results(path)
    assert len(tasks_of(planned, results)) == 1
    measure(tasks_of(planned, results), results)
    assert path.read_bytes() == whole
    monkeypatch.setattr(sweep, "perform", lambda _: pytest.fail("measured again"))
    measure(tasks_of(planned, Results(path)), Results(path))


def test_other_metrics_and_versions_are_other_rows(planned, tmp_path, monkeypatch):
    results = Results(tmp_path / "rows.jsonl")
    measure(tasks_of(planned[:1], results), results)
    assert results.row(planned[0], ["stoi", "pesq"]) is None
    measure(tasks_of(planned[:1], results, ["stoi", "pesq"]), results)
    row = results.row(planned[0], ["stoi", "pesq"])
    assert row is not None
    assert row["stoi"] > 0.9
    assert row["pesq"] > 1
    assert [json.loads(line)["metrics"] for line in results.path.read_text().splitlines()] == ["stoi", "pesq"]
    assert row["scorers"]
    scorer_of = cells.scorer_of
    monkeypatch.setattr(sweep, "scorer_of", lambda metric: scorer_of(metric) + "1")
    assert Results(results.path).missing(planned[0], ["stoi"]) == ("stoi",)


def test_other_weights_seeds_and_texts_are_other_cells(planned, tmp_path, rng):
    some = recordings(tmp_path / "again", rng)
    same = plan([Muted("another name", "x")], ["none"], [planned[0].recording], seed=1)[0]
    assert same.digest == planned[0].digest
    for other in (
        plan([Muted("ours", "ours", "c")], ["none"], [planned[0].recording], seed=1),
        plan([OURS], ["none"], [planned[0].recording], seed=2),
        plan([OURS], ["uniform:0.1"], [planned[0].recording], seed=1),
        plan([OURS], ["none"], some, seed=1),
    ):
        assert other[0].digest != planned[0].digest


def test_what_fails_is_told_once_and_left_out(planned, tmp_path):
    told: list[str] = []
    (tmp_path / "speech" / "0.wav").write_text("gone bad meanwhile")
    cells._speech.cache_clear()
    results = Results(tmp_path / "rows.jsonl")
    measure(tasks_of(planned, results), results, say=told.append)
    assert len(told) == 2  # once for each system
    assert "0.wav" in told[0]
    assert len(results.path.read_text().splitlines()) == len(planned) // 2


def test_stopping_keeps_what_was_measured(planned, tmp_path, monkeypatch):
    done: list[object] = []

    def stops(task):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(task)
        return cells.perform(task)

    monkeypatch.setattr(sweep, "perform", stops)
    results = Results(tmp_path / "rows.jsonl")
    with pytest.raises(KeyboardInterrupt):
        measure(tasks_of(planned, results), results)
    assert len(results.path.read_text().splitlines()) == 3


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_is_one_sentence(tmp_path):
    (tmp_path / "rows.jsonl").symlink_to("/dev/full")
    with pytest.raises(InputError, match="goes on from there"):
        Lines(tmp_path / "rows.jsonl", ("a",)).add({"a": 1})


def test_no_room_for_a_recording_loses_no_row(planned, tmp_path):
    results = Results(tmp_path / "rows.jsonl")
    measure([Task(planned[0], ("stoi",), tmp_path / "no such folder" / "x.mp3")], results)
    assert results.row(planned[0], ["stoi"]) is not None


@pytest.mark.slow
def test_workers_make_the_same_rows(planned, tmp_path):
    alone, together = Results(tmp_path / "alone.jsonl"), Results(tmp_path / "together.jsonl")
    keep = {cell.digest: tmp_path / f"{cell.digest}.mp3" for cell in planned[:1]}
    tasks = [Task(cell, ("stoi",), keep.get(cell.digest)) for cell in planned]
    measure(tasks, alone)
    measure(tasks, together, jobs=2)
    assert sorted(alone.path.read_text().splitlines()) == sorted(together.path.read_text().splitlines())
    assert keep[planned[0].digest].stat().st_size > 500
