from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests.codec.tiny import tiny_model
from torch import nn

from semaphone.cli import main
from semaphone.codec.nano_weights import save_nano
from semaphone.experiments.complexity import Cost, counted, size, table_rows


def test_products_are_counted() -> None:
    assert counted(lambda: nn.Linear(8, 5)(torch.zeros(3, 8))) == 3 * 8 * 5
    assert counted(lambda: nn.Conv1d(4, 6, 3)(torch.zeros(1, 4, 12))) == 10 * 4 * 6 * 3
    assert counted(lambda: torch.cdist(torch.zeros(1, 30, 4), torch.zeros(1, 40, 4))) == 30 * 40 * 4
    assert counted(lambda: torch.fft.rfft(torch.zeros(2, 512))) == 2.5 * 2 * 512 * 9 / 2
    assert counted(lambda: torch.zeros(5) + 1) == 0
    heads = torch.zeros(1, 2, 7, 16)
    assert counted(lambda: nn.functional.scaled_dot_product_attention(heads, heads, heads)) == 2 * 2 * 7 * 7 * 16


def test_shared_parameters_count_once() -> None:
    layer = nn.Linear(3, 3, bias=False)
    assert size(nn.Sequential(layer, layer), None) == 9


def test_the_papers_figures_stand_beside_the_large_models_once() -> None:
    costs = [Cost("nano", "encoder", 10, 1e6, 12.5, "encoder")]
    costs += [Cost("large", name, 10, 1e9, 12.5, "encoder") for name in ("encoder", "quantiser")]
    rows = table_rows(costs)
    assert rows[0] == ("nano", "encoder", "0.000", "0.0010", "0.0002", "", "")
    assert [row[-1] for row in rows] == ["", "", "39.392", "", "7770.095"]
    assert rows[-1][3] == "2.0000"


@pytest.mark.slow
def test_a_codec_is_counted_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers")
    save_nano(tiny_model(), tmp_path / "tiny.safetensors", {})
    out = tmp_path / "out"
    arguments = ["experiment", "complexity", "--out", str(out), "--codec", str(tmp_path / "tiny.safetensors")]
    assert main([*arguments, "--no-large"]) == 0
    assert "depth transformer" in capsys.readouterr().out
    before = (out / "results.jsonl").read_text()
    rows = {row["module"]: row for row in map(json.loads, before.splitlines())}
    assert set(rows) == {
        "encoder",
        "quantiser",
        "decoder",
        "controller",
        "temporal transformer",
        "depth transformer",
    }
    assert rows["decoder"]["parameters"] == size(tiny_model().decoder)
    assert all(row["macs"] > 0 for row in rows.values())
    assert (out / "complexity.png").is_file()
    assert "depth transformer" in (out / "index.html").read_text()
    assert main([*arguments, "--no-large"]) == 0
    assert (out / "results.jsonl").read_text() == before
