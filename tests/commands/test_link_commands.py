"""transmit, encode, decode and models as a person would call them, with good input and bad."""

import gc
import io
import json

import numpy as np
import pytest
import soundfile
import torch
from tests.codec.tiny import tiny_codec, tiny_model

from semaphone.cli import main
from semaphone.codec.nano_weights import save_nano
from semaphone.codec.registry import load_codec
from semaphone.commands import _link
from semaphone.controller.adaptive import ControllerConfig, ControllerModel, save
from semaphone.packet.sph import SphReader
from semaphone.packet.sph_header import serialize_header


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_nano(tiny_model(), path, {})
    return str(path)


@pytest.fixture(scope="module")
def controller(tmp_path_factory):
    """Weights at random: whatever such a network says, rates have to be right."""
    info = tiny_codec().info
    path = tmp_path_factory.mktemp("controller") / "controller.safetensors"
    torch.manual_seed(2)
    save(ControllerModel(ControllerConfig(info.latent_dim, info.num_codebooks, info.fingerprint)), path)
    return str(path)


@pytest.fixture
def wav(tmp_path, rng):
    path = tmp_path / "in put.wav"
    soundfile.write(path, 0.1 * rng.standard_normal(20_000), 16000)
    return str(path)


def fails(capsys, arguments):
    """Runs a command that must end with exit code 2 and one sentence; gives the sentence."""
    capsys.readouterr()
    code: object
    try:
        code = main(arguments)
    except SystemExit as stop:  # argparse
        code = stop.code
    text = capsys.readouterr().err
    assert code == 2, text
    assert "Traceback" not in text
    return text


def test_transmit_writes_speech_report_and_picture(tmp_path, wav, weights, capsys):
    out, report, plot = tmp_path / "out.wav", tmp_path / "report.json", tmp_path / "link.png"
    arguments = ["transmit", wav, str(out), "--codec", weights, "--channel", "gilbert-elliott:loss=0.2,burst=240ms"]
    arguments += ["--controller", "fixed", "--codebooks", "8", "--copies", "4", "--recovery", "hold", "--seed", "7"]
    arguments += ["--schedule", "split", "--spacing", "80ms"]
    assert main([*arguments, "--report", str(report), "--plot", str(plot)]) == 0
    assert soundfile.info(out).frames == 20_000
    found = json.loads(report.read_text())
    assert found["controller"] == "fixed, 8 codebooks, 4 copies"
    assert found["seed"] == 7
    assert found["packets_sent"] == 16
    assert found["latency_ms"]["context"]["p50"] == 240
    assert set(found["latency_ms"]) >= {"context", "lookahead", "encoder", "recovery", "decoder", "total"}
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert "of payload" in capsys.readouterr().out


def test_transmit_without_loss_is_encode_and_decode(tmp_path, wav, weights):
    direct, stored, back = tmp_path / "a.wav", tmp_path / "b.sph", tmp_path / "c.wav"
    for schedule in ("sliding", "split", "block", "bundle:320ms", "history"):
        options = ["--codec", weights, "--schedule", schedule]
        assert main(["transmit", wav, str(direct), *options]) == 0
        assert main(["encode", wav, str(stored), *options]) == 0
        assert main(["decode", str(stored), str(back), "--codec", weights]) == 0
        assert direct.read_bytes() == back.read_bytes()


@pytest.mark.parametrize(
    ("options", "controller", "context"),
    [
        (["--codebooks", "8"], "fixed, history of 8, 8, 8, 8 codebooks", 320),
        (["--horizon", "80ms"], "fixed, 8 codebooks, 8 copies", 160),
        (["--codebooks", "6", "--copies", "2", "--horizon", "2"], "fixed, history of 6, 2, 2 codebooks", 240),
        (["--history", "8x2,4x2", "--wait", "100ms"], "fixed, history of 8, 8, 4, 4 codebooks", 160),
        (["--history", "8,0,8", "--wait", "0ms", "--constant-rate"], "fixed, history of 8, 0, 8 codebooks", 80),
        (["--controller", "budget", "--bitrate", "1000"], "budget, 11 transmissions", 160),
    ],
)
def test_transmit_with_a_history(tmp_path, wav, weights, options, controller, context):
    out, report = tmp_path / "out.wav", tmp_path / "report.json"
    arguments = ["transmit", wav, str(out), "--codec", weights, "--recovery", "hold", "--schedule", "history"]
    assert main([*arguments, "--channel", "uniform:0.3", "--report", str(report), *options]) == 0
    found = json.loads(report.read_text())
    assert (found["controller"], found["schedule"]) == (controller, "history")
    assert found["latency_ms"]["context"]["p50"] == context
    assert 0 <= found["chunk_loss_rate"] <= found["token_loss_rate"] < 1


@pytest.mark.parametrize("schedule", ["sliding", "split", "bundle:160ms", "history"])
def test_a_real_recording_meets_its_bit_rate(tmp_path, weights, controller, shared_data, schedule):
    longest = max((shared_data / "speech" / "test").rglob("*.*"), key=lambda file: file.stat().st_size)
    out, report = tmp_path / "out.wav", tmp_path / "report.json"
    arguments = ["transmit", str(longest), str(out), "--codec", weights, "--controller", controller]
    arguments += ["--schedule", schedule, "--channel", "uniform:0.1", "--report", str(report), "--bitrate", "900"]
    assert main(arguments) == 0
    found = json.loads(report.read_text())
    assert found["seconds"] > 10
    assert found["payload_bps"] == pytest.approx(900, rel=0.03)
    assert found["controller"] == "adaptive, 900 bit/s"
    assert found["schedule"] == schedule
    assert found["feedback_bps"] == 8 * (6.25 if schedule == "bundle:160ms" else 12.5)


def test_packets_of_one_size(tmp_path, wav, weights, controller):
    for options in (["--controller", controller, "--bitrate", "800"], ["--controller", "fixed"]):
        stored, back = tmp_path / "a.sph", tmp_path / "a.wav"
        assert main(["encode", wav, str(stored), "--codec", weights, *options, "--constant-rate"]) == 0
        with SphReader(stored) as reader:
            assert len({len(record.payload) for record in reader}) == 1
            assert reader.header.format.constant_size > 0
        assert main(["decode", str(stored), str(back), "--codec", weights]) == 0
        assert soundfile.info(back).frames == 20_000


def test_pauses_are_left_out_of_files(tmp_path, weights, rng, capsys):
    said = np.concatenate([0.1 * rng.standard_normal(16000), np.zeros(64000), 0.1 * rng.standard_normal(16000)])
    soundfile.write(tmp_path / "in.wav", said, 16000)
    sizes = []
    for option in ("--dtx", "--no-dtx"):
        stored, back = tmp_path / "a.sph", tmp_path / "a.wav"
        assert main(["encode", str(tmp_path / "in.wav"), str(stored), "--codec", weights, option]) == 0
        assert main(["decode", str(stored), str(back), "--codec", weights]) == 0
        assert soundfile.info(back).frames == len(said)
        sizes.append(stored.stat().st_size)
    assert sizes[0] < 0.6 * sizes[1]


@pytest.mark.parametrize("samples", [5, 100, 1280])
@pytest.mark.parametrize("rate", [8000, 44100, 48000])
def test_short_recordings_of_any_rate(tmp_path, weights, samples, rate):
    source, out = tmp_path / "in.flac", tmp_path / "out.flac"
    soundfile.write(source, np.full((samples, 2), 0.99), rate)
    assert main(["transmit", str(source), str(out), "--codec", weights, "--channel", "uniform:1.0"]) == 0
    assert abs(soundfile.info(out).frames - samples * 16000 / rate) <= 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--channel", "uniform:1.5"], "1.5"),
        (["--channel", "fog"], "fog"),
        (["--codec", "opus"], "Unknown codec 'opus'"),
        (["--codebooks", "17"], "1 to 16 codebooks"),
        (["--codebooks", "0"], "1 to 16 codebooks"),
        (["--codebooks", "4", "--copies", "5"], "copies"),
        (["--copies", "-1"], "whole number"),
        (["--schedule", "later"], "later"),
        (["--plot", "picture.gif"], ".png"),
        (["--recovery", "magic"], "magic"),
        (["--controller", "wise"], "Unknown controller 'wise'"),
        (["--controller", "missing.safetensors"], "no weights for the adaptive controller"),
        (["--controller", "fixed", "--bitrate", "900"], "no rate"),
        (["--controller", "budget", "--codebooks", "4"], "decides about codebooks"),
        (["--constant-rate", "--dtx"], "do not go together"),
        (["--level", "0"], "no rate above 0"),
        (["--spacing", "soon"], "A duration is written like"),
        (["--schedule", "split", "--spacing", "1s"], "lie 0 to 0.16 s apart"),
        (["--spacing", "80ms"], "A sliding schedule has no spacing"),
        (["--schedule", "block", "--spacing", "80ms"], "no spacing"),
        (["--history", "8,8"], "--history goes with --schedule history."),
        (["--horizon", "2"], "--horizon goes with --schedule history."),
        (["--schedule", "history", "--history", "8;4"], "A history is written like 8,8,4,4 or 8x2,4x2, not '8;4'."),
        (["--schedule", "history", "--history", "8x17"], "A history has 1 to 16 lengths, not 17."),
        (["--schedule", "history", "--history", "8x0"], "A history has 1 to 16 lengths, not 0."),
        (["--schedule", "history", "--history", "4,8"], "Only tokens that are sent can be copied"),
        (["--schedule", "history", "--history", "8,4", "--copies", "2"], "--history says it all"),
        (["--schedule", "history", "--horizon", "16"], "The horizon of a history is 0 to 15 packets, not 16."),
        (["--schedule", "history", "--horizon", "far"], "A duration is written like"),
        (
            ["--schedule", "history", "--controller", "budget", "--horizon", "2"],
            "Only the fixed controller has a horizon",
        ),
        (
            ["--schedule", "history", "--controller", "budget", "--constant-rate"],
            "A constant rate with a history takes the fixed controller, not budget.",
        ),
        (["--wait", "long"], "A duration is written like"),
        (["--feedback-delay", "late"], "A duration is written like"),
        (["--seed", "x"], "whole number"),
        (["--report", "/nowhere/report.json"], "cannot be written"),
    ],
)
def test_wrong_options(tmp_path, wav, weights, capsys, options, sentence):
    out = tmp_path / "out.wav"
    arguments = ["transmit", wav, str(out)]
    if "--codec" not in options:
        arguments += ["--codec", weights]
    assert sentence in fails(capsys, [*arguments, *options])
    if "--report" not in options:
        assert not out.exists()


def test_bad_recordings(tmp_path, weights, capsys):
    out = tmp_path / "out.wav"
    (tmp_path / "text.wav").write_text("this is no recording")
    (tmp_path / "empty.wav").write_bytes(b"")
    soundfile.write(tmp_path / "nan.wav", np.array([0.1, np.nan, 0.2] * 100), 16000, "FLOAT")
    for name in ("text.wav", "empty.wav", "nan.wav", "missing.wav", "."):
        assert fails(capsys, ["transmit", str(tmp_path / name), str(out), "--codec", weights])
        assert not out.exists()
        assert fails(capsys, ["encode", str(tmp_path / name), str(tmp_path / "out.sph"), "--codec", weights])
        assert not (tmp_path / "out.sph").exists()
    assert [f.name for f in tmp_path.iterdir() if f.name.endswith(".part")] == []


def test_input_and_output_must_differ(wav, weights, capsys):
    assert "named twice" in fails(capsys, ["transmit", wav, wav, "--codec", weights])


def test_damaged_files(tmp_path, wav, weights, capsys, rng):
    stored, out = tmp_path / "a.sph", tmp_path / "out.wav"
    assert main(["encode", wav, str(stored), "--codec", weights]) == 0
    assert main(["decode", str(stored), str(out), "--codec", weights]) == 0
    good, sound = stored.read_bytes(), soundfile.read(out)[0]
    out.unlink()
    broken = tmp_path / "broken.sph"
    with SphReader(stored) as reader:
        header = len(serialize_header(reader.header))
    for place in (*rng.integers(0, header, 5), *rng.integers(header, len(good) - 13, 15)):
        data = bytearray(good)
        data[place] ^= 1 << int(rng.integers(8))
        broken.write_bytes(bytes(data))
        arguments = ["decode", str(broken), str(out), "--codec", weights]
        if place < header:  # nobody can know what it is
            fails(capsys, arguments)
            assert not out.exists()
            continue
        assert main(arguments) == 0
        warning = capsys.readouterr().err
        assert warning == f"semaphone: warning: {broken} is damaged at 1 place; the packets there count as lost.\n"
        heard = soundfile.read(out)[0]
        assert len(heard) == len(sound) == 20_000
        if place > len(good) // 2 + header:
            assert (heard[:5000] == sound[:5000]).all()  # nothing moves
        out.unlink()


def test_a_file_cut_short_gives_what_is_there(tmp_path, wav, weights, capsys):
    stored, out = tmp_path / "a.sph", tmp_path / "out.wav"
    assert main(["encode", wav, str(stored), "--codec", weights]) == 0
    good = stored.read_bytes()
    for size in (len(good) - 1, len(good) - 100):
        stored.write_bytes(good[:size])
        assert main(["decode", str(stored), str(out), "--codec", weights]) == 0
        assert "is cut short" in capsys.readouterr().err
        assert soundfile.info(out).frames == 20_000
    out.unlink()
    for size in (0, 3, 30, 70):
        stored.write_bytes(good[:size])
        fails(capsys, ["decode", str(stored), str(out), "--codec", weights])
        assert not out.exists()


def test_one_wrong_bit_of_a_real_file(tmp_path, shared_data, capsys):
    file = shared_data / "trials" / "one-bit.sph"
    if not file.is_file():
        pytest.skip("no such file")
    with SphReader(file, mend=True) as reader:
        made_by = reader.header.fingerprint
    if made_by != load_codec("nano").info.fingerprint:  # by the first nano codec: its tokens mean nothing to this one
        assert main(["decode", str(file), str(tmp_path / "out.wav")]) == 2
        assert "their tokens mean nothing" in capsys.readouterr().err
        assert not (tmp_path / "out.wav").exists()
        return
    assert main(["decode", str(file), str(tmp_path / "out.wav")]) == 0
    assert "is damaged at 1 place" in capsys.readouterr().err
    assert soundfile.info(tmp_path / "out.wav").frames == 48_000


def test_a_recording_is_not_replaced_by_something_else(tmp_path, wav, weights, capsys):
    other = tmp_path / "b.wav"
    soundfile.write(other, np.zeros(100), 16000)
    nist = tmp_path / "speech.sph"
    soundfile.write(nist, np.zeros(100), 16000, format="NIST")
    hidden = tmp_path / "speech"
    soundfile.write(hidden, np.zeros(100), 16000, format="FLAC")
    before = {file: file.read_bytes() for file in (other, nist, hidden)}
    out = str(tmp_path / "out.wav")
    for arguments in (
        ["encode", wav, str(other)],
        ["encode", wav, str(nist)],
        ["encode", wav, str(hidden)],
        ["transmit", wav, out, "--report", str(other)],
        ["transmit", wav, out, "--report", str(hidden)],
        ["transmit", wav, out, "--plot", str(other)],
    ):
        fails(capsys, [*arguments, "--codec", weights])
    assert {file: file.read_bytes() for file in before} == before
    assert not (tmp_path / "out.wav").exists()


def test_targets_are_checked_before_the_work(tmp_path, wav, capsys):
    """No codec of this name is there: what is wrong with a target is found before it is looked for."""
    protected = tmp_path / "protected.json"
    protected.write_text("{}")
    protected.chmod(0o444)
    out, none = str(tmp_path / "out.wav"), ["--codec", "none.safetensors"]
    for options, sentence in (
        (["--report", "/nowhere/report.json"], "/nowhere/report.json cannot be written"),
        (["--plot", "/nowhere/plot.png"], "/nowhere/plot.png cannot be written"),
        (["--report", str(protected)], "is write-protected"),
        (["--report", str(tmp_path)], "is a folder"),
        (["--report", str(tmp_path / ".." / tmp_path.name / "out.json"), "--plot", "x.wav"], "should end in .png"),
    ):
        assert sentence in fails(capsys, ["transmit", wav, out, *options, *none])
    assert "cannot be written" in fails(capsys, ["encode", wav, "/nowhere/a.sph", *none])
    assert "cannot be written" in fails(capsys, ["decode", wav, "/nowhere/a.wav", *none])
    assert sorted(f.name for f in tmp_path.iterdir()) == ["in put.wav", "protected.json"]


def test_one_file_in_several_spellings(tmp_path, wav, weights, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link.wav").symlink_to(wav)
    (tmp_path / "again.wav").hardlink_to(wav)
    before = (tmp_path / "in put.wav").read_bytes()
    for arguments in (
        ["transmit", "in put.wav", "./in put.wav"],
        ["transmit", wav, "link.wav"],
        ["transmit", wav, "again.wav"],
        ["transmit", wav, "out.wav", "--report", "./out.wav"],
        ["transmit", wav, "out.wav", "--report", "a", "--plot", f"../{tmp_path.name}/a"],
    ):
        assert "named twice" in fails(capsys, [*arguments, "--codec", weights])
    assert (tmp_path / "in put.wav").read_bytes() == before
    call = ["call", "--listen", ":1", "--plain", "--codec", weights]
    for more in (
        ["--in", "link.wav", "--out", "in put.wav"],
        ["--in", "none", "--out", "a.wav", "--report", "./a.wav"],
    ):
        assert "named twice" in fails(capsys, [*call, *more])
    assert "cannot be written" in fails(capsys, [*call, "--in", "none", "--out", "none", "--report", "/nowhere/r.json"])


def test_a_stream_of_another_kind_of_codec_loads_nothing(tmp_path, wav, weights, capsys, monkeypatch):
    stored = tmp_path / "a.sph"
    assert main(["encode", wav, str(stored), "--codec", weights]) == 0

    def load(spec):
        raise AssertionError(spec)

    monkeypatch.setattr("semaphone.codec.registry.load_codec", load)
    for spec in ("mimi", "mimi:somewhere"):
        text = fails(capsys, ["decode", str(stored), str(tmp_path / "out.wav"), "--codec", spec])
        assert "was made with the codec nano, not mimi" in text


def test_one_channel_is_taken(tmp_path, weights, capsys):
    source, out = tmp_path / "in.wav", tmp_path / "out.sph"
    left = 0.3 * np.sin(np.arange(8000) * 0.2)
    soundfile.write(source, np.stack([left, -left], 1), 16000)
    sizes = {}
    for mix in ("mean", "left", "right", "2"):
        assert main(["encode", str(source), str(out), "--codec", weights, "--mix", mix]) == 0
        assert ("cancel each other" in capsys.readouterr().err) == (mix == "mean")
        sizes[mix] = out.read_bytes()
    assert sizes["right"] == sizes["2"] != sizes["left"]
    assert "no channel 3" in fails(capsys, ["encode", str(source), str(out), "--codec", weights, "--mix", "3"])
    assert "--mix" in fails(capsys, ["encode", str(source), str(out), "--codec", weights, "--mix", "0"])


def test_the_rate_of_raw_samples(tmp_path, weights, capsys, monkeypatch):
    pcm = (3000 * np.sin(np.arange(8000) * 0.2)).astype("<i2").tobytes()
    for rate, frames in (("8000", 16_000), ("32000", 4000)):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(pcm)))
        arguments = ["transmit", "-", str(tmp_path / "out.wav"), "--codec", weights, "--stdin-rate", rate]
        assert main(arguments) == 0
        assert soundfile.info(tmp_path / "out.wav").frames == frames
    assert "goes with -" in fails(capsys, ["encode", str(tmp_path / "out.wav"), "a.sph", "--stdin-rate", "8000"])
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"ID3" + pcm)))
    assert "an MP3 recording" in fails(capsys, ["encode", "-", str(tmp_path / "a.sph"), "--codec", weights])
    assert not (tmp_path / "a.sph").exists()


def test_a_file_of_another_codec_is_refused(tmp_path, wav, weights, capsys):
    other = tmp_path / "other.safetensors"
    save_nano(tiny_model(9), other, {})
    stored = tmp_path / "a.sph"
    assert main(["encode", wav, str(stored), "--codec", weights]) == 0
    text = fails(capsys, ["decode", str(stored), str(tmp_path / "out.wav"), "--codec", str(other)])
    assert "mean nothing to each other" in text


def test_models_are_listed(capsys):
    assert main(["models", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"nano", "mimi"} <= {row["name"] for row in rows}
    # What lies in the package is known to be there.
    assert [row["here"] for row in rows if row["part"] in ("channel code", "compressor")] == ["yes", "yes"]
    assert main(["models"]) == 0


def test_settings_of_a_training(tmp_path, capsys):
    base = ["train", "codec", "--data", str(tmp_path / "none"), "--out", str(tmp_path / "run"), "--no-teacher"]
    assert "not a folder" in fails(capsys, base)
    assert "--start" in fails(capsys, [*base, "--stage", "2"])
    # What is wrong with the settings is said before the speech is looked at.
    assert "is not a checkpoint" in fails(capsys, [*base, "--stage", "2", "--start", str(tmp_path / "none.pt")])
    for wrong in ("1,2", "0,1,1,1", "a,b,c,d", ""):
        assert "four numbers of blocks" in fails(capsys, [*base, "--decoder-blocks", wrong])
    assert "no setting 'taste'" in fails(capsys, [*base, "--set", "taste=1"])


def test_what_is_loaded_is_not_collected_again():
    before = gc.get_freeze_count()
    try:
        _link.settle()
        assert gc.get_freeze_count() > before
    finally:
        gc.unfreeze()
