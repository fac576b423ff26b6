"""Experiments of translation: pages stand alone, and curves are read as they should be."""

from __future__ import annotations

import argparse

import numpy as np
import pytest
import torch

from semaphone.commands.experiment import EXPERIMENTS, register
from semaphone.errors import InputError
from semaphone.experiments import (
    channel_code,
    segment_length,
    translation_latency,
    translation_quality,
    translation_search,
)
from semaphone.experiments.page import Curve, draw, save, table, write_page
from semaphone.training.channel_code import RowCache
from semaphone.translation.channel_code import ChannelCode, ChannelCodeConfig, fit_basis, fit_memory


def test_page_stands_alone(tmp_path):
    svg = save(draw([Curve("x<y", [0, 1], [1, 2])], "t", "x", "y"), tmp_path, "f")
    write_page(tmp_path / "index.html", "A & B", [svg, table(["n"], [[0.123], ["<b>"]])])
    text = (tmp_path / "index.html").read_text()
    assert "A &amp; B" in text
    assert "&lt;b&gt;" in text
    assert "0.12" in text
    assert "http-equiv" not in text
    assert "<img" not in text
    assert (tmp_path / "f.svg").is_file()
    assert (tmp_path / "f.png").stat().st_size > 1000


def test_snr_range_and_share():
    assert translation_quality.snr_range("-11:3:19") == [-11, -8, -5, -2, 1, 4, 7, 10, 13, 16, 19]
    for bad in ("1:2", "a:b:c", "5:1:1", "nan:1:2"):
        with pytest.raises(InputError):
            translation_quality.snr_range(bad)
    assert translation_quality.snr_at_share([0, 2, 4], [0.0, 90.0, 100.0]) == pytest.approx(3.0)


def test_latency_figures_from_lines():
    segments = [{"start": i * 0.75, "end": (i + 1) * 0.75, "compute": 0.2, "speech": 0.5} for i in range(4)]
    lines = [{"system": "fixed", "snr": "4", "talk": 0, "segments": segments, "cpu_segments": segments}]
    shown = translation_latency.figures(lines, "fixed")
    assert shown["average_latency_s"] == pytest.approx(0.2)
    assert shown["mean_segment_s"] == pytest.approx(0.75)
    assert (
        translation_latency.figures([{"system": "cascade", "delay": 9.0, "seconds": 8.0, "cpu": 0.5}], "cascade")[
            "average_latency_s"
        ]
        == 9.0
    )


def test_rows_of_the_channel_code_and_its_rivals(tmp_path):
    """On rows that resemble each other, as many symbols as they have components."""
    generator = torch.Generator().manual_seed(0)
    drive = torch.randn(804, 16, generator=generator)
    rows = torch.stack([drive[k : 800 + k] for k in range(5)]).sum(0) * torch.linspace(2.0, 0.1, 16)
    components = ((rows - rows.mean(0)) @ fit_basis(rows).forward).view(10, 80, 16)
    config = ChannelCodeConfig(row_width=16, symbols=8, hidden=8, far=0, block=8)
    code = ChannelCode(config, fit_basis(rows), fit_memory(components, 8)).eval()
    cache = RowCache(rows.half().numpy(), np.array([400, 400]))
    found = {
        system: [channel_code.row_error(code, cache, system, "rayleigh", snr, 8, 1) for snr in (-5.0, 13.0)]
        for system in channel_code.SYSTEMS
    }
    assert all(0 < high < low < 1 for low, high in found.values())
    assert found["trained"] == found["its linear part"]  # not trained yet
    assert found["its linear part"][0] < found["analogue"][0]


def test_every_experiment_has_its_parts():
    for module in (translation_quality, translation_latency, translation_search, segment_length, channel_code):
        parser = argparse.ArgumentParser()
        module.add_arguments(parser)
        assert callable(module.run)
    parser = argparse.ArgumentParser()
    register(parser.add_subparsers())
    assert set(EXPERIMENTS) >= {"translation-quality", "translation-latency", "translation-search", "segment-length"}
    args = parser.parse_args(["experiment", "segment-length", "--data", "x"])
    assert args.rest == ["--data", "x"]


def test_codes_are_compared_sentence_by_sentence():
    pytest.importorskip("sacrebleu")
    lines = []
    for i in range(8):
        for snr, ours in ((1.0, "the train leaves at noon"), (7.0, "no")):
            place = {"part": "noise", "fading": "awgn", "snr": snr, "file": f"{i}.wav"}
            reference = f"the train leaves at noon from platform {i}"
            lines.append({**place, "system": "trained", "text": ours, "reference": reference})
            lines.append({**place, "system": "analogue", "text": "the train", "reference": reference})
    found = dict(translation_quality.differences(lines, "trained", "analogue", "awgn"))
    assert found[1.0].low > 0
    assert found[7.0].high < 0
    assert translation_quality.differences(lines, "trained", "digital", "awgn") == []


def test_beams_are_compared_where_both_have_been(tmp_path, capsys):
    pytest.importorskip("sacrebleu")
    segments = [{"start": 0.75 * i, "end": 0.75 * (i + 1), "compute": 0.2, "speech": 0.5} for i in range(3)]
    lines = []
    for i in range(8):
        reference = f"the train leaves at noon from platform {i}"
        for beam, text in ((1, "the train"), (5, "the train leaves at noon")):
            line = {"context": "left", "snr": "inf", "beam": beam, "file": f"{i}.wav", "text": text}
            lines.append({**line, "reference": reference, "segments": segments, "cpu_segments": segments})
    lines.pop()  # the last recording has no beam of 5 yet
    greedy, wide = ([line for line in lines if line["beam"] == beam] for beam in (1, 5))
    assert translation_search.figures(wide)["chrF"] > translation_search.figures(greedy)["chrF"]
    assert translation_search.figures(wide)["listener_lag_p50_s"] == pytest.approx(0.95)
    assert translation_search.difference(wide, greedy).startswith("+")
    translation_search.draw_results(lines, tmp_path)
    assert (tmp_path / "index.html").is_file()
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_beams_are_checked():
    assert translation_search.parse_beams("5,1,2") == [1, 2, 5]
    for bad in ("5", "1", "1,many", "0,1"):
        with pytest.raises(InputError):
            translation_search.parse_beams(bad)
