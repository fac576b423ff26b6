import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.codec.tiny import tiny_codec

from semaphone.controller.adaptive import load
from semaphone.controller.masks import hard_mask
from semaphone.errors import InputError

pytest.importorskip("transformers")

from semaphone.recovery.rq_config import RQTransformerConfig
from semaphone.recovery.rq_transformer import RQTransformer
from semaphone.training import controller_start
from semaphone.training.controller import (
    ControllerTrainer,
    ControllerTraining,
    Losses,
    Parts,
    arrival,
    arrived,
    draw,
    drawn_losses,
    sends,
    spending,
    train_controller,
)
from semaphone.training.data import CHUNK, Corpus, Recording
from semaphone.training.latents import corpus_latents
from semaphone.training.tokens import corpus_tokens

CODEC = tiny_codec()
SMALL = RQTransformerConfig(
    num_codebooks=16,
    codebook_size=32,
    codec=CODEC.info.fingerprint,
    width=16,
    layers=1,
    heads=2,
    ffn=16,
    depth_width=8,
    depth_layers=1,
    depth_heads=2,
    depth_ffn=16,
    token_width=4,
)
C = ControllerTraining(
    start=0, budgets=(0.0, 0.0), batch=4, crop=10, window=4, heard=2, steps=6, every=3, dev_every=3, warmup=2
)


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    rng = np.random.default_rng(5)
    lengths, recordings, start = [14, 9, 25], [], 0
    for i, n in enumerate(lengths):
        recordings.append(Recording(f"{i}.wav", "", start, n * CHUNK))
        start += n * CHUNK
    audio = (3000 * rng.standard_normal(start)).astype(np.int16)
    return Corpus(tuple(recordings), audio, np.empty(0, np.float16), None)


@pytest.fixture(scope="module")
def material(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokens")
    tokens = corpus_tokens(CODEC, corpus, folder)
    return corpus_latents(CODEC, corpus, tokens, folder / CODEC.info.fingerprint[:16], lambda done, total: None)


@pytest.fixture(scope="module")
def parts() -> Parts:
    torch.manual_seed(3)
    return Parts(CODEC.info, RQTransformer(SMALL), CODEC.model)


def test_latents_lie_beside_their_tokens(material, corpus):
    for i, recording in enumerate(corpus.recordings):
        encoded = CODEC.encode(torch.from_numpy(corpus.speech(recording))[None])
        crop = material.crop(i, 2, 5)
        assert crop.tokens.tolist() == encoded.tokens[0, :, 2:7].T.tolist()
        np.testing.assert_allclose(crop.latents, encoded.latents[0, :, 2:7].T, rtol=1e-2, atol=1e-2)
        np.testing.assert_array_equal(crop.speech, corpus.speech(recording)[2 * CHUNK : 7 * CHUNK])
    assert not material.crop(1, 7, 5).latents[2:].any()


def test_arrival_is_that_of_the_link():
    masks = torch.tensor([[1.0, 1, 1, 0], [1.0, 0, 0, 0]])
    a, sent = arrival(masks, torch.tensor(0.2), torch.tensor(0.5))
    torch.testing.assert_close(a, torch.tensor([0.9, 0.8, 0.8, 0.0]))
    assert sent.tolist() == [1, 1, 1, 0]
    swapped, _ = arrival(masks.flip(0), torch.tensor(0.2), torch.tensor(0.5))
    assert torch.equal(a, swapped)


def test_draws_cover_what_was_asked_for(material):
    c = replace(C, batch=200, heard=0)
    batch = draw(material, c, np.random.default_rng(0))
    assert float((batch.p > 0).float().mean()) == pytest.approx(0.75, abs=0.1)
    assert float(batch.p.max()) <= 0.3
    assert bool((batch.r >= batch.p).all())
    assert 1 <= float(batch.rate.min()) < 3 < 14 < float(batch.rate.max()) <= 16


def test_a_run_begins_sensibly_but_a_resumed_one_goes_on(parts, material, tmp_path, monkeypatch):
    monkeypatch.setattr(controller_start, "TELL", 3)
    c = replace(C, start=7)
    told: list[str] = []
    first = ControllerTrainer(c, parts, material, tmp_path, lambda step, row: told.extend(row))
    assert told == ["beginning, 3", "beginning, 6"]
    first.advance()
    first.save()
    again = ControllerTrainer(c, parts, material, tmp_path, lambda step, row: told.extend(row))
    assert len(told) == 2
    assert all(torch.equal(a, b) for a, b in zip(first.net.parameters(), again.net.parameters(), strict=True))


@pytest.mark.parametrize("reconstruction", [0.0, 10.0])
def test_gradients_go_the_whole_way(parts, material, tmp_path, reconstruction):
    trainer = ControllerTrainer(replace(C, gamma=0.0, reconstruction=reconstruction), parts, material, tmp_path)
    found = trainer.losses(draw(material, trainer.c, np.random.default_rng(1)))
    assert ("mel" in found) == (reconstruction > 0)
    found["loss"].backward()
    for name, weight in trainer.net.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().sum() > 0, name
    assert all(weight.grad is None for weight in parts.recovery.parameters())


def test_without_loss_and_with_everything_sent_nothing_is_left_to_predict(parts, material, tmp_path):
    trainer = ControllerTrainer(replace(C, lossy=0.0), parts, material, tmp_path)
    with torch.no_grad():
        list(trainer.net.parameters())[-1].fill_(50.0)
    batch = draw(material, trainer.c, np.random.default_rng(1))
    batch.rate.fill_(17.0)
    with torch.no_grad():
        found = Losses(trainer.net, parts, trainer.c)(batch)
    assert float(found["entropy"]) == pytest.approx(0.0, abs=1e-5)
    assert float(found["transmissions"]) == 32
    assert float(found["copies"]) == 16


def test_weights_of_codebooks(parts, material, tmp_path):
    trainer = ControllerTrainer(replace(C, semantic=5.0, deeper=0.5), parts, material, tmp_path)
    assert trainer.losses._lambda[:4].tolist() == [5.0, 1.0, 0.5, 0.25]


def test_the_price_of_transmissions_is_felt(parts, material, tmp_path):
    sent = []
    for gamma in (0.0, 5.0):
        c = replace(C, gamma=gamma, steps=40, rate=0.02, reconstruction=0.0, every=100, dev_every=100)
        train_controller(c, parts, material, tmp_path / str(gamma))
        weights = load(tmp_path / str(gamma) / "nano-controller.safetensors")
        sent.append(sends(weights, material, parts.info)["p=0.1"]["L=16"][2])
    assert sent[0] > 1.5 * sent[1]


def test_runs_resume_and_repeat(parts, material, tmp_path):
    train_controller(C, parts, material, tmp_path / "a", material)
    train_controller(C, parts, material, tmp_path / "b", material, until=4)
    train_controller(C, parts, material, tmp_path / "b", material)
    first, second = (load(tmp_path / name / "nano-controller.safetensors", CODEC.info.fingerprint) for name in "ab")
    for name, value in first.state_dict().items():
        torch.testing.assert_close(second.state_dict()[name], value)
    rows = [json.loads(line) for line in (tmp_path / "a" / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["dev"]["p=0.2"]["L=8"][0] >= rows[-1]["dev"]["p=0.2"]["L=8"][1]
    assert any("entropy" in row for row in rows)


def test_moshis_delay(material, tmp_path):
    """The same for a model whose acoustic tokens come a time step later."""
    config = replace(SMALL, token_width=0, acoustic_delay=1, sees_received=False, sees_coming=False, text_pad=3)
    moshi = Parts(CODEC.info, RQTransformer(config), None)
    trainer = ControllerTrainer(replace(C, reconstruction=0.0), moshi, material, tmp_path)
    assert np.isfinite(trainer.advance()["loss"])


def test_what_does_not_fit(parts, material, tmp_path):
    other = replace(SMALL, codec="f" * 16)
    with pytest.raises(InputError, match="tokens of another codec"):
        ControllerTrainer(C, parts._replace(recovery=RQTransformer(other)), material, tmp_path)
    with pytest.raises(InputError, match="set reconstruction=0"):
        ControllerTrainer(C, parts._replace(codec=None), material, tmp_path)
    with pytest.raises(InputError, match="within its crop"):
        replace(C, window=20)
    with pytest.raises(InputError, match="not negative"):
        replace(C, gamma=-1.0)
    with pytest.raises(InputError, match="deeper at most 1"):
        replace(C, deeper=0.0)


def test_a_budget_is_spent_whatever_the_network_says():
    torch.manual_seed(2)
    importance = torch.rand(5, 40, 2, requires_grad=True)
    budget = torch.tensor([0.5, 2.0, 8.0, 20.0, 40.0])
    level = spending(importance, budget, 16)
    made = hard_mask(level.detach(), 16).sum((-2, -1)).mean(1)
    assert bool((made <= budget).all())
    assert bool((made[:4] > budget[:4] - 0.3).all())
    assert float(made[4]) == 32  # everything twice
    # More for all is more for none; more for one is less for the others.
    level[2].sum().backward()
    assert importance.grad is not None
    assert float((importance.grad[2] * importance[2]).sum().detach()) == pytest.approx(0.0, abs=1e-3)
    (one,) = torch.autograd.grad(spending(importance, budget, 16)[2, 3, 0], importance)
    assert float(one[2, 3, 0]) > 0 > float(one[2, 4, 1])


@pytest.mark.parametrize(("p", "r"), [(0.2, 0.2), (0.3, 0.9), (0.0, 0.5)])
def test_losses_are_those_of_packets(p, r):
    lost = drawn_losses(40_000, 4, p, r, np.random.default_rng(1))
    assert lost.shape == (40_000, 4, 2)
    assert lost[..., 0].mean() == pytest.approx(p, abs=0.01)
    assert lost.all(-1).mean() == pytest.approx(p * r, abs=0.01)
    # Tokens at even places and those at odd ones of the next chunk share a packet, and with it their fate.
    assert np.array_equal(lost[0::2, 0], lost[1::2, 1])
    assert np.array_equal(lost[:, 0], lost[:, 1, ::-1])


def test_what_arrives_is_whole_and_has_the_gradient_of_a():
    masks = torch.tensor([[[[1.0, 1, 1, 0], [1.0, 0, 0, 0]]]])
    lost = torch.tensor([[[[True, False], [False, True], [True, False], [False, False]]]])
    a = torch.full((1, 1, 4), 0.5, requires_grad=True)
    there = arrived(masks, a, lost)
    assert there.tolist() == [[[1.0, 1.0, 0.0, 0.0]]]
    there.sum().backward()
    assert a.grad is not None
    assert a.grad.tolist() == [[[1.0] * 4]]
