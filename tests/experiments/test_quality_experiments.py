"""The experiments on quality from the command line, with a tiny codec, and what they conclude."""

from __future__ import annotations

import argparse
from argparse import Namespace
from typing import Any

import pytest
from tests.codec.tiny import tiny_codec, tiny_model
from tests.experiments.fake import Muted, write_recordings

from semaphone.cli import main
from semaphone.codec.nano_weights import save_nano
from semaphone.controller.adaptive import ControllerConfig, ControllerModel
from semaphone.controller.adaptive import save as save_controller
from semaphone.controller.base import Mask
from semaphone.experiments import adaptive, link_systems, recovery, redundancy
from semaphone.experiments.options import Weather
from semaphone.experiments.pictures import Line, Panel, picture
from semaphone.experiments.study import Corpus, Measured, Study, within


@pytest.fixture
def common(tmp_path, rng):
    weights = tmp_path / "tiny.safetensors"
    save_nano(tiny_model(), weights, {})
    write_recordings(tmp_path / "speech", rng, 2)
    return ["--data", str(tmp_path / "speech"), "--out", str(tmp_path / "out"), "--codec", str(weights)]


def test_packet_loss_leaves_rows_figures_and_a_page_with_players(common, tmp_path, capsys):
    arguments = ["experiment", "packet-loss", *common, "--losses", "0,0.3", "--metrics", "plcmos", "--rivals", ""]
    assert main(arguments) == 0
    assert len((tmp_path / "out" / "results.jsonl").read_text().splitlines()) == 2 * 2 * 2
    page = (tmp_path / "out" / "index.html").read_bytes()
    assert page.count(b"<audio") == 8
    assert b"data:audio/mpeg;base64," in page
    assert (tmp_path / "out" / "fig-5ab.png").is_file()
    assert not (tmp_path / "out" / "fig-6.png").exists()  # nothing to show in it
    assert "nano 1.51 kbit/s" not in capsys.readouterr().out  # tiny tokens have 5 bits
    # Burst losses go on from the same rows where nothing is lost.
    again = ["experiment", "burst-loss", *common, "--losses", "0", "--metrics", "plcmos", "--rivals", ""]
    rows = (tmp_path / "out" / "results.jsonl").read_bytes()
    assert main(again) == 0
    assert (tmp_path / "out" / "results.jsonl").read_bytes() == rows


def test_redundancy_shows_what_it_costs(common, tmp_path, capsys):
    arguments = ["experiment", "redundancy", *common, "--losses", "0,0.4", "--bursts", "240ms", "--recovery", "hold"]
    arguments += ["--history", "8x1/8x3/8,4/17", "--metrics", "plcmos", "--rivals", "", "--channel", "uniform:0.2"]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    # Two histories of equal lengths, one that falls, sliding and two parities; four weathers, two recordings.
    assert len((tmp_path / "out" / "results.jsonl").read_text().splitlines()) == 6 * 4 * 2
    assert "Not beaten by a cheaper one, 40% in bursts of 240ms" in out
    assert "20%, uniform:0.2" in out
    assert (tmp_path / "out" / "cost-uniform.png").is_file()
    assert (tmp_path / "out" / "cost-bursts-240ms.png").is_file()
    assert main([*arguments[:2], *common, "--history", "8;1"]) == 2
    assert main([*arguments[:2], *common, "--history", "17", "--rivals", ""]) == 2
    assert "None of these histories fits" in capsys.readouterr().err


def test_histories_of_redundancy_reach_from_none_to_eight_packets(common):
    parser = argparse.ArgumentParser()
    redundancy.add_arguments(parser)
    args = parser.parse_args([*common[:2], *common[4:], "--rivals", ""])
    found: list[Any] = list(redundancy.systems_of(args, "hold"))
    assert len({(system.name, system.family) for system in found}) == len(found)
    horizons = {system.horizon for system in found if "history" in system.family}
    assert horizons == set(range(9))
    waits = [system.wait for system in found if "earlier" in system.family]
    assert waits == [0.0, 0.08, 0.16]
    assert {weather.burst for weather in redundancy.weathers_of(args)} == {"120ms", "240ms", "480ms"}


def test_twice_gives_the_same_page(common, tmp_path):
    arguments = ["experiment", "ablation", *common, "--limit", "1", "--losses", "0.3", "--metrics", "plcmos"]
    pages = []
    for name in ("one", "two"):
        arguments[arguments.index("--out") + 1] = str(tmp_path / name)
        assert main(arguments) == 0
        pages.append([(tmp_path / name / file).read_bytes() for file in ("index.html", "fig-7.svg", "results.jsonl")])
    assert pages[0] == pages[1]


def test_all_runs_what_can_be_run(common, tmp_path, capsys):
    arguments = ["experiment", "all", *common, "--quick", "--limit", "1", "--metrics", "plcmos", "--rivals", ""]
    assert main([*arguments, "--only", "ablation,generalisation,adaptive,cooking"]) == 0
    page = (tmp_path / "out" / "index.html").read_text()
    assert "it needs --other" in page
    assert "there is no such experiment" in page
    assert "no weights for the adaptive controller" in page
    assert 'href="ablation/index.html"' in page
    assert (tmp_path / "out" / "results.jsonl").is_file()


def test_all_goes_on_after_one_broke_off(common, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("semaphone.experiments.ablation.run", lambda _: 1 // 0)
    monkeypatch.setattr("semaphone.experiments.recovery.run", lambda _: 0)
    assert main(["experiment", "all", *common, "--only", "ablation,recovery"]) == 1
    page = (tmp_path / "out" / "index.html").read_text()
    assert "it broke off: ZeroDivisionError" in page
    assert "recovery: " in page


def test_what_is_wrong_is_one_sentence(common, tmp_path, capsys):
    assert main(["experiment", "adaptive", *common]) == 2
    assert main(["experiment", "adaptive", *common, "--transmissions", "7"]) == 2
    assert main(["experiment", "rate-distortion", *common, "--codebooks", "many"]) == 2
    assert main(["experiment", "recovery", *common, "--recoveries", "prayer"]) == 2
    assert main(["experiment", "recovery", *common, "--copies", "9"]) == 2
    assert main(["experiment", "packet-loss", *common, "--controllers", "remote"]) == 2
    arguments = ["experiment", "packet-loss", *common]
    arguments[arguments.index("--data") + 1] = str(tmp_path / "nowhere")
    assert main(arguments) == 2
    for line in capsys.readouterr().err.strip().splitlines():
        assert line.startswith("semaphone: ")
        assert line.endswith(".")


def measured(values, metrics=("plcmos", "wer", "phone_error_rate")):
    """Systems whose rows are given as {name: {loss: [(plcmos, errors of 10 words)]}}."""
    systems = [Muted(name, name, name) for name in values]
    weathers = [Weather("uniform", loss) for loss in next(iter(values.values()))]
    corpus = Corpus("speech", ())
    study = Study("x", "x", (), systems, weathers, [corpus], metrics, ())
    found = Measured(study)
    for system in systems:
        for weather in weathers:
            found.rows[system, weather.specification, "speech"] = [
                {"file": str(i), "draw": 0, "plcmos": p, "word_errors": e, "words": 10, "payload_bps": 1000.0}
                for i, (p, e) in enumerate(values[system.name][weather.loss])
            ]
    return found


def test_the_bar_of_recovery():
    good, bad = [(3.0, 1), (3.1, 1), (3.2, 1)], [(2.0, 4), (2.2, 5), (2.1, 3)]
    sentences = recovery.verdicts(measured({"lm": {0.1: good, 0.3: good}, "hold": {0.1: bad, 0.3: bad}}))
    assert len(sentences) == 3
    assert sentences[-1].endswith("the bar is met.")
    deaf = [(p, 4) for p, _ in good]
    sentences = recovery.verdicts(measured({"lm": {0.1: deaf, 0.3: deaf}, "hold": {0.1: deaf, 0.3: bad}}))
    assert "not met at 2 of 2 points" in sentences[-1]
    values = {"lm": {0.1: good, 0.3: good}, "hold": {0.1: bad, 0.3: bad}}
    for metrics, word, number in ((("plcmos",), "met", 1), (("wer",), "not judged", 0)):  # words count from 20 % on
        one, other, whole = recovery.verdicts(measured(values, metrics))
        assert f": {word}. " in one
        assert ": not judged. " in other
        assert f"the bar is met at {number} of 2 points; {2 - number} cannot be judged" in whole
    assert "nothing to compare" in recovery.verdicts(measured({"hold": {0.1: good}}))[0]


def test_the_bar_of_the_adaptive_controller():
    good, same, bad = [(3.0, 1), (3.1, 1)], [(2.98, 1), (3.09, 1)], [(2.0, 3), (2.1, 3)]
    values = {
        "adaptive": {0.0: same, 0.2: good},
        "fixed": {0.0: good, 0.2: bad},
        "full duplication": {0.0: bad, 0.2: bad},
    }
    assert adaptive.verdicts(measured(values))[-1].endswith("the bar is met.")
    values["adaptive"][0.0] = bad
    assert "not met at 1 of 2" in adaptive.verdicts(measured(values))[-1]


def test_contestants_have_one_payload(common):
    args = Namespace(
        transmissions=12,
        codec=common[-1],
        adaptive="adaptive",
        feedback="oracle",
        dtx=True,
        schedule="split",
        spacing="80ms",
        horizon=None,
        history=None,
        wait=None,
        ablations=True,
    )
    found: list[Any] = list(adaptive.contestants(args, "hold", Corpus("speech", ()), [Weather("uniform", 0.1)]))
    assert found[0].name == "adaptive"
    assert found[-1].name == "adaptive, without copies"
    assert not found[-1].protected
    assert found[-2].name == "full duplication"
    masks = [Mask(system.spec.codebooks, system.spec.copies) for system in found[1:-1]]
    assert {mask.transmissions for mask in masks} == {12}
    assert masks[-1] == Mask(6, 6)
    rates = [link_systems.payload_bps(args, mask) for mask in masks]
    assert max(rates) == pytest.approx(min(rates), rel=0.02)
    assert found[0].spec.bitrate == rates[-1]
    assert {system.spacing for system in found} == {0.08}
    assert tiny_codec().info.num_codebooks == 16


def test_figures_look_the_same_in_every_panel():
    lines = [Line("a", [0, 1], [1, 2], [0, 1], [2, 3]), Line("b", [0, 1], [2, 1], strong=True)]
    drawn = picture([Panel("p", "x", "y", lines), Panel("q", "x", "y", lines[1:]), Panel("r", "x", "y", [])])
    axes = [a for a in drawn.axes if a.get_visible()]
    assert len(axes) == 3
    assert axes[0].lines[1].get_color() == axes[1].lines[0].get_color()
    assert axes[0].get_title().startswith("(a)")
    assert len(drawn.legends[0].get_texts()) == 2


@pytest.mark.slow
def test_recovery_judges_the_first_against_the_others(common, tmp_path, capsys):
    pytest.importorskip("transformers")
    from semaphone.recovery.rq_config import RQTransformerConfig
    from semaphone.recovery.rq_transformer import RQTransformer
    from semaphone.recovery.rq_weights import save as save_model

    codec = tiny_codec().info
    small: dict[str, Any] = {
        "width": 32,
        "layers": 1,
        "heads": 2,
        "ffn": 32,
        "depth_width": 16,
        "depth_layers": 1,
        "depth_heads": 2,
    }
    sizes: dict[str, Any] = {
        "num_codebooks": codec.num_codebooks,
        "codebook_size": codec.codebook_size,
        "token_width": 8,
    }
    config = RQTransformerConfig(codec=codec.fingerprint, depth_ffn=16, text_size=7, window=6, **small, **sizes)
    save_model(RQTransformer(config), tmp_path / "guess.safetensors")
    arguments = ["experiment", "recovery", *common, "--metrics", "plcmos", "--limit", "1", "--losses", "0.1"]
    assert main([*arguments, "--recoveries", f"{tmp_path / 'guess.safetensors'},hold,none"]) == 0
    out = capsys.readouterr().out.replace("\n", " ")
    assert "guess against hold and none: the bar is" in out
    assert "10% in bursts of 240ms: " in out
    assert len((tmp_path / "out" / "results.jsonl").read_text().splitlines()) == 3 * 2


def test_the_adaptive_controller_is_judged_as_soon_as_there_are_weights(common, tmp_path, capsys):
    codec = tiny_codec().info
    model = ControllerModel(ControllerConfig(codec.latent_dim, codec.num_codebooks, codec.fingerprint))
    save_controller(model, tmp_path / "controller.safetensors")
    arguments = ["experiment", "adaptive", *common, "--adaptive", str(tmp_path / "controller.safetensors")]
    arguments += ["--metrics", "plcmos", "--limit", "1", "--losses", "0.3", "--transmissions", "4"]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "full duplication" in out
    assert "30% in bursts of 240ms: not met" in out.replace("\n", " ")  # words were not judged
    assert (tmp_path / "out" / "adaptive-bursts.svg").is_file()
    arguments[1] = "ablation"
    assert main([*arguments[:-2], "--controllers", "adaptive"]) == 0
    assert "adaptive" in (tmp_path / "out" / "results.jsonl").read_text()


def test_weather_that_is_not_asked_for_has_no_picture():
    kept = within(recovery.PICTURES, ("plcmos",), [Weather("bursts", 0.2)])
    assert [(picture.name, len(picture.panels)) for picture in kept] == [("recovery-bursts", 1)]
    assert len(within(recovery.PICTURES, ("plcmos",))) == 2
