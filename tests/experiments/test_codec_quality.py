import json

import numpy as np
import pytest
import soundfile
from tests.codec.tiny import tiny_model

from semaphone.cli import main
from semaphone.codec.nano_weights import save_nano
from semaphone.errors import InputError
from semaphone.experiments.corpus import load_corpus


@pytest.fixture
def folder(tmp_path, rng):
    root = tmp_path / "speech" / "dev"
    (root / "set").mkdir(parents=True)
    for i in range(3):
        time = np.arange(16_000) / 16_000
        soundfile.write(root / "set" / f"{i}.wav", 0.2 * np.sin(900 * time) + 0.01 * rng.standard_normal(16_000), 16000)
    (root.parent / "metadata.csv").write_text(
        "file,split,set,speaker,language,text\ndev/set/1.wav,dev,set,anna,en,HELLO\n", encoding="utf-8"
    )
    return root


def test_a_corpus_knows_what_its_table_says(folder):
    found = load_corpus(folder)
    assert [u.name for u in found] == ["set/0.wav", "set/1.wav", "set/2.wav"]
    assert (found[1].text, found[1].speaker, found[1].language) == ("HELLO", "anna", "en")
    assert found[0].text is None
    assert len(load_corpus(folder, 2)) == 2
    with pytest.raises(InputError, match="not a folder"):
        load_corpus(folder / "nothing")
    (folder / "empty").mkdir()
    with pytest.raises(InputError, match="No recordings"):
        load_corpus(folder / "empty")


def test_results_are_kept_and_drawn(folder, tmp_path, capsys, monkeypatch):
    weights = tmp_path / "tiny.safetensors"
    save_nano(tiny_model(), weights, {})
    (folder / "broken.wav").write_text("no recording")
    arguments = ["experiment", "codec-quality", "--data", str(folder), "--out", str(tmp_path / "out")]
    arguments += ["--codec", str(weights), "--systems", "nano", "--metrics", "stoi"]
    assert main(arguments) == 0
    lines = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    assert len(lines) == 12  # four numbers of codebooks, three recordings
    row = json.loads(lines[0])
    assert row["system"] == "nano 4"
    assert row["token_bps"] == 4 * 5 * 12.5
    assert row["scorers"].keys() == {"stoi"}
    assert (tmp_path / "out" / "codec-quality-stoi.png").is_file()
    assert "nano 16" in (tmp_path / "out" / "index.html").read_text()
    # The second time nothing is measured again.
    monkeypatch.setattr("semaphone.experiments.sweep.perform", lambda *_, **__: pytest.fail("measured again"))
    assert main(arguments) == 0
    assert main([*arguments, "--codebooks", "16,4"]) == 0
    assert (tmp_path / "out" / "results.jsonl").read_text().splitlines() == lines


def test_wrong_names(folder, tmp_path, capsys):
    arguments = ["experiment", "codec-quality", "--data", str(folder), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--metrics", "taste"]) == 2
    assert main([*arguments, "--systems", "mp3"]) == 2
    for wrong in ("0", "17", "4,,8", "many", ""):
        assert main([*arguments, "--systems", "nano", "--codebooks", wrong]) == 2
