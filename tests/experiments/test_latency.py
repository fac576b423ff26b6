from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tests.codec.tiny import tiny_codec, tiny_model

from semaphone.cli import main
from semaphone.codec.nano_weights import save_nano
from semaphone.controller.base import FixedController
from semaphone.errors import InputError
from semaphone.experiments.talk import PAUSE, read_talk
from semaphone.experiments.timing import COMPUTING, Timed, time_baseline, time_link
from semaphone.packet.format import PacketFormat
from semaphone.recovery.hold import HoldRecovery


@pytest.fixture
def speech(rng: np.random.Generator) -> np.ndarray:
    return (0.1 * rng.standard_normal(32_000)).astype(np.float32)


def test_parts_add_up() -> None:
    waiting, computing = {"block": [0.16], "lookahead": [0.02]}, {"encoder": [0.01, 0.03], "decoder": [0.02, 0.02]}
    row = Timed(waiting, computing, 0.32, 2000.0, 16_000, 0.08, 1.0).row()
    assert row["context_ms"] == {"p50": 180.0, "p99": 180.0}
    assert row["coder_ms"]["p50"] == 40.0
    assert row["total_ms"]["p50"] == 220.0
    assert row["real_time_factor"] == 0.25
    assert row["count"] == 2


@pytest.mark.parametrize(
    ("schedule", "block", "copies"),
    [("sliding", 80, 80), ("split", 160, 0), ("block", 160, 160), ("bundle:80ms", 80, 80)],
)
def test_waiting_follows_from_the_schedule(speech: np.ndarray, schedule: str, block: float, copies: float) -> None:
    codec = tiny_codec()
    form = PacketFormat.named(schedule, 16, 32)
    row = time_link(speech, codec, FixedController(4, 2), form, HoldRecovery(), 0.2, 1).row()
    assert row["parts_ms"]["block"]["p50"] == pytest.approx(block)
    assert row["parts_ms"]["copies"]["p50"] == pytest.approx(copies)
    assert row["parts_ms"]["lookahead"]["p50"] == pytest.approx(20)
    assert set(row["parts_ms"]) > set(COMPUTING)
    assert row["parts_ms"]["encoder"]["p50"] > 0
    assert row["payload_bps"] > 6 * 5 * 12.5
    assert 0 < row["lost_tokens"] < 4  # of those that were sent


def test_a_talk_can_be_too_short(speech: np.ndarray) -> None:
    form = PacketFormat.named("bundle:320ms", 16, 32)
    with pytest.raises(InputError, match="too short"):
        time_link(speech[:9000], tiny_codec(), FixedController(4, 2), form, HoldRecovery(), 0.0, 1)


def test_a_baseline_waits_for_its_copy(speech: np.ndarray) -> None:
    pytest.importorskip("opuslib_next")
    from semaphone.baselines.opus import Opus

    row = time_baseline(speech, Opus(8000, 20, expected_loss=0.1)).row()
    waiting = {name: row["parts_ms"][name]["p50"] for name in ("block", "copies", "lookahead")}
    assert waiting == pytest.approx({"block": 20, "copies": 20, "lookahead": 6.5})


def test_a_talk_is_of_one_speaker(tmp_path: Path) -> None:
    for name, samples in (("a/x.wav", 8_000), ("b/x.wav", 30_000)):
        (tmp_path / name).parent.mkdir()
        soundfile.write(tmp_path / name, np.full(samples, 0.1 if name[0] == "a" else 0.2), 16_000)
    talk = read_talk(tmp_path, 2.5)
    assert len(talk) == 40_000
    assert talk[:30_000] == pytest.approx(0.2, abs=1e-3)
    assert not talk[30_000 : 30_000 + round(PAUSE * 16_000)].any()
    assert talk[-1] == pytest.approx(0.1, abs=1e-3)
    assert len(read_talk(tmp_path / "b" / "x.wav", 60)) == 30_000
    with pytest.raises(InputError, match="less than a second"):
        read_talk(tmp_path / "a" / "x.wav", 60)


def test_what_is_timed_stays(tmp_path: Path, speech: np.ndarray, capsys: pytest.CaptureFixture[str]) -> None:
    save_nano(tiny_model(), tmp_path / "tiny.safetensors", {})
    soundfile.write(tmp_path / "talk.wav", speech, 16_000)
    arguments = ["experiment", "latency", "--data", str(tmp_path / "talk.wav"), "--out", str(tmp_path / "out")]
    arguments += ["--codec", str(tmp_path / "tiny.safetensors"), "--recovery", "hold", "--rivals", ""]
    assert main([*arguments, "--schedules", "split"]) == 0
    text = (tmp_path / "out" / "results.jsonl").read_text()
    assert main([*arguments, "--schedules", "split,bundle:160ms"]) == 0
    longer = (tmp_path / "out" / "results.jsonl").read_text()
    assert longer.startswith(text)
    assert [json.loads(line)["setting"].split(",")[0] for line in longer.splitlines()] == ["split", "bundle:160ms"]
    assert "LargeSC, A100" in capsys.readouterr().out
    assert (tmp_path / "out" / "latency.png").is_file()
    assert main([*arguments, "--loss", "2"]) == 2
