from __future__ import annotations

import json
from pathlib import Path

import pytest

from semaphone.cli import main
from semaphone.errors import InputError
from semaphone.experiments.overhead import CHUNKS, PARTS, SETTINGS, Setting, measure
from semaphone.packet.format import SCHEDULES


def named(name: str) -> Setting:
    return next(setting for setting in SETTINGS if setting.name == name)


@pytest.mark.parametrize(("transmissions", "printed"), [(4, 2630.0), (15, 4142.5)])
def test_the_papers_own_sum(transmissions: int, printed: float) -> None:
    row = measure(named("paper, as printed"), transmissions)
    assert row.total == pytest.approx(printed)
    assert row.equation == pytest.approx(row.total)  # the text says 2.6 to 4.2 kbit/s


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("transmissions", [2, 9, 16])
def test_bytes_agree_with_the_equation(schedule: str, transmissions: int) -> None:
    row = measure(Setting("x", "", schedule), transmissions)
    assert set(row.parts) == set(PARTS)
    assert row.parts["tokens"] == pytest.approx(transmissions * 11 * 12.5)
    assert row.total - row.parts["contents"] == pytest.approx(row.equation)
    assert 0 < row.parts["contents"] < row.packet_rate * (36 + 8)  # at most 36 bits of contents, 7 of padding
    on_wire = row.payload + row.parts["rtp"] + row.parts["tag"]
    assert on_wire == pytest.approx(8 * row.wire_bytes / (CHUNKS / 12.5))


def test_what_a_call_adds() -> None:
    pytest.importorskip("pylibsrtp")
    call, plain = measure(named("call, IPv4"), 8), measure(named("split, IPv4"), 8)
    assert call.parts["tag"] == pytest.approx(12.5 * 80)
    assert call.parts["report"] == pytest.approx(12.5 * 8)
    assert call.parts["feedback"] > 8 * (28 + 8 + 10)
    assert plain.parts["tag"] == plain.parts["report"] == plain.parts["feedback"] == 0
    assert measure(named("split, IPv6"), 8).total == pytest.approx(plain.total + 12.5 * 8 * 20)


def test_it_is_written_and_drawn_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["experiment", "overhead", "--out", str(tmp_path), "--transmissions", "3", "--codebooks", "4"]
    assert main(arguments) == 0
    assert "satellite 320 ms, ROHC" in capsys.readouterr().out
    text = (tmp_path / "results.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    assert {row["codebooks"] for row in rows} == {4}
    assert (tmp_path / "overhead.svg").is_file()
    assert main(arguments) == 0
    assert (tmp_path / "results.jsonl").read_text() == text


def test_wrong_numbers(tmp_path: Path) -> None:
    assert main(["experiment", "overhead", "--out", str(tmp_path), "--transmissions", "40"]) == 2
    assert main(["experiment", "overhead", "--out", str(tmp_path), "--transmissions", "x"]) == 2
    with pytest.raises(InputError):
        measure(Setting("x", "", "nonsense"), 4)
