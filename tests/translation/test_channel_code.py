"""The learned channel code: its basis, its linear start, power, files, and that training lowers the error."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
import torch

from semaphone.baselines.symbols import AnalogueCode, DigitalCode, gaussian_quantisers, spend_bits
from semaphone.channel.fading import FadingChannel
from semaphone.errors import InputError
from semaphone.training.channel_code import CodeTraining, RowCache, errors, train_code
from semaphone.translation.channel_code import (
    ChannelCode,
    ChannelCodeConfig,
    fit_basis,
    fit_memory,
    read_code,
    save_code,
)
from semaphone.translation.radio import Radio, RepeatedCode, TrainedCode, make_radio, parse_snr

WIDTH = 16
SMALL = ChannelCodeConfig(row_width=WIDTH, symbols=8, hidden=32, context=1, far=4, block=8)


def some_rows(count: int, seed: int = 0) -> torch.Tensor:
    """Rows with strong and weak directions, smooth in time."""
    generator = torch.Generator().manual_seed(seed)
    drive = torch.randn(count + 4, WIDTH, generator=generator)
    smooth = torch.stack([drive[k : count + k] for k in range(5)]).sum(0) / 5**0.5
    mix = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(9))
    return smooth @ (mix * torch.linspace(2.0, 0.1, WIDTH)[:, None]) + 1.0


@pytest.fixture
def code() -> ChannelCode:
    torch.manual_seed(0)
    return ChannelCode(SMALL, fit_basis(some_rows(2000))).eval()


def test_basis_goes_there_and_back(code):
    rows = some_rows(50, 1)
    components = code.components(rows)
    torch.testing.assert_close(code.rows(components), rows, atol=1e-3, rtol=1e-3)
    assert components.var(0).mean() == pytest.approx(1.0, abs=0.5)
    assert bool((code.variance.diff() <= 1e-6).all())
    assert float(code.variance.sum()) == pytest.approx(1.0, abs=1e-4)


def test_metric_decides_what_matters():
    rows = torch.randn(4000, 4, generator=torch.Generator().manual_seed(0))
    basis = fit_basis(rows, torch.diag(torch.tensor([9.0, 1.0, 1.0, 1.0])))
    strongest = basis.forward[:, 0].abs()
    assert int(strongest.argmax()) == 0
    assert float(basis.variance[0]) == pytest.approx(0.75, abs=0.05)


def test_memory_is_the_correlation_of_rows_apart(code):
    components = code.components(some_rows(4000, 1)).view(40, 100, WIDTH)
    memory = fit_memory(components, 8)
    # Five draws in a row are added up in `some_rows`, so that rows share 4, 3, 2, 1 and none of them.
    expected = torch.tensor([1.0, 0.8, 0.6, 0.4, 0.2, 0.0, 0.0, 0.0])
    torch.testing.assert_close(memory.mean(1), expected, atol=0.1, rtol=0)


def test_symbols_have_a_mean_power_of_one(code):
    with torch.no_grad():
        symbols, scale = code.encode(some_rows(40, 2)[None], torch.tensor([1.0]))
    assert symbols.shape == (1, 40, 8)
    assert float(symbols.abs().square().mean()) == pytest.approx(1.0, abs=1e-5)
    assert scale.shape == (1,)


def test_a_clean_channel_gives_the_rows_back(code):
    rows = some_rows(30, 3)[None]
    snr = torch.tensor([60.0])
    with torch.no_grad():
        symbols, scale = code.encode(rows, snr)
        out = code.decode(symbols, torch.ones_like(symbols), snr, scale)
    assert float((out - rows).square().mean() / rows.var()) < 0.02


def test_training_beats_the_linear_code(tmp_path):
    rows = some_rows(6000, 4)
    cache = RowCache(rows.half().numpy(), torch.tensor([1500] * 4).numpy())
    settings = CodeTraining(steps=150, batch=8, length=16, rate=3e-3)
    said: list[str] = []
    trained = train_code(cache, SMALL, settings, None, tmp_path, said.append)
    start = ChannelCode(SMALL, fit_basis(rows)).eval()
    with torch.no_grad():
        assert errors(trained, cache, "awgn", -5.0) < 0.99 * errors(start, cache, "awgn", -5.0)
        assert errors(trained, cache, "rayleigh", 1.0) < 0.99 * errors(start, cache, "rayleigh", 1.0)
    again: list[str] = []
    train_code(cache, SMALL, settings, None, tmp_path, again.append)
    assert again == ["going on from step 150"]


def test_table_1_as_printed_is_one_matrix():
    torch.manual_seed(1)
    printed = ChannelCode(ChannelCodeConfig(WIDTH, 8, 32, 0, 0, activation="none", linear=False)).eval()
    a, b = some_rows(5, 5)[None], some_rows(5, 6)[None]
    snr = torch.tensor([1.0])

    def encoded(rows: torch.Tensor) -> torch.Tensor:
        symbols, scale = printed.encode(rows, snr)
        return symbols / scale

    middle = encoded((a + b) / 2)
    torch.testing.assert_close(middle, (encoded(a) + encoded(b)) / 2, atol=1e-4, rtol=1e-4)
    symbols, scale = printed.encode(a, snr)
    assert (printed.decode(symbols, torch.ones_like(symbols), snr, scale) < 0).any()  # signs are not lost


def test_file_goes_there_and_back(code, tmp_path):
    save_code(code, tmp_path / "code.safetensors", {"note": "x"})
    again = read_code(tmp_path / "code.safetensors")
    rows = some_rows(6, 7)[None]
    torch.testing.assert_close(
        again.encode(rows, torch.tensor([1.0]))[0], code.encode(rows, torch.tensor([1.0]))[0], atol=1e-3, rtol=1e-3
    )
    (tmp_path / "bad").write_bytes(b"nonsense that is no safetensors file")
    for name in ("bad", "missing"):
        with pytest.raises(InputError, match="channel code"):
            read_code(tmp_path / name)


def test_a_code_of_another_version_is_refused(code, tmp_path):
    from safetensors.torch import load_file, save_file

    save_code(code, tmp_path / "code.safetensors", {})
    tensors = load_file(tmp_path / "code.safetensors")
    del tensors["memory"]
    meta = {"config": json.dumps(asdict(code.config))}
    save_file(tensors, tmp_path / "old.safetensors", meta)
    with pytest.raises(InputError, match="other tensors"):
        read_code(tmp_path / "old.safetensors")


def test_trained_code_over_the_radio(code, tmp_path, rng):
    save_code(code, tmp_path / "code.safetensors", {})
    radio = Radio(TrainedCode(str(tmp_path / "code.safetensors")), FadingChannel("rayleigh", 10.0, 16, pilots=1))
    rows = some_rows(20, 8).numpy()
    arrived, state = radio.carry(rows, radio.start(3))
    again, _ = radio.carry(rows, radio.start(3))
    assert (arrived == again).all()
    assert state.rows == 20
    assert state.symbols == 20 * 8 + 10  # one pilot for each 16 symbols


@pytest.mark.parametrize("largest", [0.0, 1e6])
def test_the_wildest_burst_that_an_edge_lets_in_decodes_to_numbers(code, largest):
    symbols = torch.full((1, 5, 8), largest, dtype=torch.complex64)
    for snr in (-80.0, 80.0):
        with torch.no_grad():
            rows = code.decode(symbols, symbols, torch.tensor([snr]), torch.tensor([largest]))
        assert bool(rows.isfinite().all())


def test_rivals_improve_with_the_snr(code):
    rows = some_rows(300, 9).numpy()
    for rival in (AnalogueCode(code=code), DigitalCode(code=code)):
        found = []
        for snr in (-11.0, 4.0, 19.0):
            arrived, state = Radio(rival, FadingChannel("awgn", snr)).carry(rows, Radio().start(0))
            found.append(float(((arrived - rows) ** 2).mean()))
            assert state.symbols == 300 * 8
        assert found[0] > found[1] > found[2]


def test_the_linear_part_is_better_than_the_analogue_rival(code):
    """It knows the SNR and that rows resemble each other."""
    rows = some_rows(3200, 10)
    components = code.components(rows).view(40, 80, WIDTH)
    linear = ChannelCode(SMALL, fit_basis(some_rows(2000)), fit_memory(components, 8)).eval()
    for snr in (-8.0, 1.0):
        channel = FadingChannel("rayleigh", snr)
        theirs, _ = Radio(AnalogueCode(code=code), channel).carry(rows.numpy(), Radio().start(2))
        with torch.no_grad():
            symbols, scale = linear.encode(rows[None], torch.tensor([snr]), dense=False)
            received = channel(symbols[0].numpy(), Radio().start(2).generator)
            arrived, gains = torch.from_numpy(received.symbols)[None], torch.from_numpy(received.gains)[None]
            ours = linear.estimate(arrived, gains, torch.tensor([snr]), scale, dense=False)
        truth = code.components(rows)[None]
        rival = linear.error(code.components(torch.from_numpy(theirs))[None], truth)
        assert float(linear.error(ours, truth)) < 0.9 * float(rival)


def test_sending_four_times_is_worth_6_db(code):
    rows = some_rows(400, 11).numpy()
    inner = AnalogueCode(code=code)
    error = {}
    for times, snr in ((1, 6.0206), (4, 0.0)):
        radio = Radio(RepeatedCode(inner, times), FadingChannel("awgn", snr))
        arrived, state = radio.carry(rows, radio.start(0))
        error[times] = float(((arrived - rows) ** 2).mean())
        assert state.symbols == 400 * 8 * times
    assert error[4] == pytest.approx(error[1], rel=0.1)
    faded = Radio(RepeatedCode(inner, 4), FadingChannel("rayleigh", 0.0))
    single = Radio(inner, FadingChannel("rayleigh", 6.0206))
    with_diversity = ((faded.carry(rows, faded.start(0))[0] - rows) ** 2).mean()
    assert with_diversity < ((single.carry(rows, single.start(0))[0] - rows) ** 2).mean()
    with pytest.raises(InputError, match="1 to 64 times"):
        RepeatedCode(inner, 0)


def test_digital_bits_are_the_capacity(code):
    digital = DigitalCode(code=code)
    assert digital.bits_per_row(FadingChannel("awgn", 0.0)) == 8
    assert digital.bits_per_row(FadingChannel("awgn", -40.0)) == 0
    assert spend_bits(code.variance.numpy(), 8).sum() == 8
    # Max's quantiser of two levels sits at ±0.7979.
    assert gaussian_quantisers()[1].tolist() == pytest.approx([-0.7979, 0.7979], abs=1e-3)


@pytest.mark.parametrize("text", ["nan", "loud", ""])
def test_an_snr_must_be_a_number(text):
    with pytest.raises(InputError, match="SNR must be a number"):
        parse_snr(text)


def test_unknown_code_is_named():
    with pytest.raises(InputError, match="one of trained"):
        make_radio("turbo", FadingChannel())


@pytest.mark.parametrize("bad", [{"symbols": 0}, {"context": 99}, {"activation": "tanh"}, {"block": 0}, {"far": 513}])
def test_wrong_shapes_are_refused(bad):
    with pytest.raises(InputError):
        ChannelCodeConfig(**bad)


@pytest.mark.parametrize("bad", [{"fading": ("fog",)}, {"lowest": 5.0, "highest": 1.0}, {"steps": 0}])
def test_wrong_training_is_refused(bad):
    with pytest.raises(InputError):
        CodeTraining(**bad)
