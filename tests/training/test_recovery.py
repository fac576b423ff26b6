"""Training of the recovery model on tokens that follow a simple rule."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from semaphone.errors import InputError

pytest.importorskip("transformers")

from semaphone.recovery.base import TokenStatus
from semaphone.recovery.rq_config import RQTransformerConfig
from semaphone.recovery.rq_state import ABSENT, GUESSED, HEARD
from semaphone.recovery.rq_transformer import RQTransformer
from semaphone.recovery.rq_weights import load
from semaphone.training.recovery import Losses, RecoveryTrainer, RecoveryTraining, TimeLeft, draw, train_recovery
from semaphone.training.recovery_dev import Weather, entropies, evaluate, last_received
from semaphone.training.survival import Survival
from semaphone.training.tokens import TokenSet, TokenUtterance, token_set

N, K, CODEC = 4, 32, "ab" * 32
MODEL = RQTransformerConfig(
    num_codebooks=N,
    codebook_size=K,
    codec=CODEC,
    width=32,
    layers=2,
    heads=2,
    ffn=64,
    depth_width=16,
    depth_layers=1,
    depth_heads=2,
    depth_ffn=32,
    token_width=8,
    text_size=5,
    window=16,
)
MOSHI = replace(MODEL, token_width=0, acoustic_delay=1, sees_received=False, sees_coming=False)
C = RecoveryTraining(
    batch=6,
    crop=20,
    rate=4e-3,
    warmup=5,
    steps=100,
    dropout=0.0,
    rows=80,
    every=50,
    dev_every=50,
    bf16=False,
    model=MODEL,
)
BOTH = pytest.mark.parametrize("model", [MODEL, MOSHI], ids=["nano", "moshi"])


def ramps(count: int = 30, seed: int = 0, text: bool = False) -> TokenSet:
    """Tokens that climb by one a chunk, all codebooks from the same start: a lost one follows from any other."""
    rng = np.random.default_rng(seed)
    found = []
    for n in range(count):
        length = int(rng.integers(15, 40))
        line = (rng.integers(0, K) + np.arange(length)) % K
        tokens = ((line + 3 * np.arange(N)[:, None]) % K).astype(np.int16)
        words = (line % 5).astype(np.int32) if text else None
        found.append(TokenUtterance(tokens, words, f"u{n}"))
    return token_set(CODEC, K, found)


def test_a_batch_is_what_the_receiver_knows():
    c = replace(C, batch=60)
    batch = draw(ramps(text=True), c, np.random.default_rng(1))
    missing = batch.status != TokenStatus.RECEIVED
    assert (batch.target <= missing).all()
    clean = batch.clean.expand_as(missing)
    assert 0.1 < batch.clean.float().mean() < 0.4
    assert torch.equal(batch.past[clean], batch.tokens[clean])
    gone = batch.target & ~clean
    assert (batch.past[gone] == K).all()
    assert torch.equal(batch.past[~missing], batch.tokens[~missing])
    assert (batch.guess <= gone).all()
    assert 0.35 < batch.guess[gone].float().mean() < 0.65
    padded = (batch.text == 0).all(1).float().mean()
    assert 0.3 < padded < 0.7
    foreseen = batch.coming[:, :-1] == TokenStatus.RECEIVED
    assert foreseen.any()
    assert (batch.status[:, 1:][foreseen] == TokenStatus.RECEIVED).all()
    assert (batch.text_target == -100).any()  # short utterances end before the crop


def test_the_past_holds_own_guesses():
    model = RQTransformer(MODEL)
    losses = Losses(model, C)
    batch = draw(ramps(), C, np.random.default_rng(1))
    past = losses._with_guesses(batch, batch.tokens, batch.status, batch.past, batch.guess, batch.text)
    assert (past[batch.guess] < K).all()
    assert torch.equal(past[~batch.guess], batch.past[~batch.guess])
    heard = losses._heard(batch.status, past, batch.clean)
    assert (heard[batch.guess] == GUESSED).all()
    assert (heard[past == K] == ABSENT).all()
    assert (heard[batch.status == TokenStatus.RECEIVED] == HEARD).all()


@BOTH
def test_the_loss_is_equation_19(model):
    """Against the plain formula on the model's whole-sequence logits, with nothing lost in the past."""
    c = replace(C, model=model, survival=Survival(lossy=0.0), rows=1000)
    torch.manual_seed(0)
    net = RQTransformer(model)
    batch = draw(ramps(text=True), c, np.random.default_rng(2))
    found = Losses(net, c)(batch, np.random.default_rng(0))
    heard = torch.full_like(batch.tokens, HEARD)
    logits, text = net(batch.tokens, batch.status, batch.tokens, heard, batch.text, batch.coming)
    entropy = torch.nn.functional.cross_entropy(logits.flatten(0, 2), batch.tokens.flatten(), reduction="none")
    weight = batch.target * torch.tensor([10.0, 1, 1, 1])
    expected = (entropy.view(weight.shape) * weight).sum() / weight.sum()
    words = torch.nn.functional.cross_entropy(text.flatten(0, 1), batch.text_target.flatten())
    torch.testing.assert_close(found["text"], words)
    torch.testing.assert_close(found["loss"], expected + words)


@BOTH
def test_the_loss_falls(model, tmp_path):
    c = replace(C, model=model)
    rows = []
    train_recovery(c, ramps(), tmp_path, until=100, report=lambda step, row: rows.append(row))
    assert rows[-1]["acoustic"] < 0.75 * np.log(K)
    assert rows[-1]["loss"] < 0.9 * rows[0]["loss"]


def test_a_run_that_was_interrupted_goes_on_as_if_it_had_not_been(tmp_path):
    c = replace(C, dropout=0.1, every=4)
    train_recovery(c, ramps(), tmp_path / "once", until=8)
    train_recovery(c, ramps(), tmp_path / "twice", until=4)
    train_recovery(c, ramps(), tmp_path / "twice", until=8)
    one, two = (load(tmp_path / run / "recovery.safetensors", CODEC).state_dict() for run in ("once", "twice"))
    for name, value in one.items():
        torch.testing.assert_close(value, two[name])
    steps = [json.loads(line)["step"] for line in (tmp_path / "twice" / "log.jsonl").read_text().splitlines()]
    assert steps == [4, 8]
    assert sorted(f.name for f in (tmp_path / "twice").iterdir()) == [
        "checkpoint.pt",
        "log.jsonl",
        "recovery.safetensors",
    ]


def test_workers_draw_the_same_batches_ahead(tmp_path):
    found = []
    for workers in (0, 1):
        trainer = RecoveryTrainer(C, ramps(), tmp_path / str(workers), workers=workers)
        found.append([float(trainer.advance()["loss"]) for _ in range(4)])
        trainer.close()
    assert found[0] == found[1]


def test_steps_that_the_time_has_set_stay_when_a_run_goes_on(tmp_path):
    told = []
    c = replace(C, every=1000)
    train_recovery(c, ramps(), tmp_path, report=lambda step, row: told.append((step, row)), time_left=TimeLeft(0.05))
    steps = next(row["steps"] for _, row in told if "steps" in row)
    assert told[-1][0] == steps
    assert steps > 60
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert json.loads(saved["config"])["steps"] == steps
    trainer = RecoveryTrainer(C, ramps(), tmp_path)
    assert (trainer.c.steps, trainer.step) == (steps, steps)
    train_recovery(C, ramps(), tmp_path, time_left=TimeLeft(10.0))  # nothing is left to do
    assert RecoveryTrainer(C, ramps(), tmp_path).step == steps


def test_a_deadline_saves_what_there_is(tmp_path):
    train_recovery(C, ramps(), tmp_path, time_left=TimeLeft(deadline=time.monotonic()))
    assert RecoveryTrainer(C, ramps(), tmp_path).step == 1


def test_other_tokens_and_other_checkpoints_are_refused(tmp_path):
    with pytest.raises(InputError, match="4 codebooks of 32 entries, the recovery model 5 of 32"):
        RecoveryTrainer(replace(C, model=replace(MODEL, num_codebooks=5)), ramps(), tmp_path)
    train_recovery(C, ramps(), tmp_path, until=1)
    with pytest.raises(InputError, match="another model or codec"):
        RecoveryTrainer(replace(C, model=replace(MODEL, codec="cd" * 32)), ramps(), tmp_path)


def test_dev_figures_know_the_rule_from_chance(tmp_path):
    """Repeating never helps on ramps, and every entry is as frequent as another."""
    tokens = ramps(40)
    train, dev = tokens.split(0.2)
    rows = []
    c = replace(C, steps=110, dev_every=110)
    train_recovery(c, train, tmp_path, dev, report=lambda step, row: rows.append(row))
    assert "dev" in rows[-1]
    for weather in rows[-1]["dev"].values():
        assert len(weather["model"]) == N
        assert weather["unigram_mean"] == pytest.approx(np.log(K), abs=0.2)
        assert weather["repeat_last_mean"] == pytest.approx(weather["unigram_mean"], abs=0.01)
        assert weather["model_mean"] < 0.85 * weather["unigram_mean"]
        assert max(weather["accuracy_repeat_last"]) == 0.0


@BOTH
def test_entropies_are_those_of_the_receivers_past(model):
    """Nothing lost: the same as teacher forcing on the tokens themselves."""
    torch.manual_seed(0)
    net = RQTransformer(model).eval()
    tokens = torch.randint(0, K, (2, 9, N))
    status = torch.zeros_like(tokens)
    entropy, _ = entropies(net, tokens, status)
    logits, _ = net(tokens, status)
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 2), tokens.flatten(), reduction="none")
    torch.testing.assert_close(entropy, expected.view(entropy.shape), atol=1e-4, rtol=1e-4)


def test_what_was_received_last():
    tokens = torch.arange(4).view(1, 4, 1)
    status = torch.tensor([0, 1, 0, 1]).view(1, 4, 1)
    assert last_received(tokens, status).flatten().tolist() == [-1, 0, 0, 2]


def test_evaluation_follows_the_weather():
    torch.manual_seed(0)
    tokens = ramps(8)
    found = evaluate(RQTransformer(MODEL), tokens, tokens, {"a": Weather(0.5), "b": Weather(0.1)}, chunks=16)
    assert found["a"]["lost"] > 2 * found["b"]["lost"]


def test_impossible_settings():
    with pytest.raises(InputError, match="at least 1"):
        replace(C, batch=0)
    with pytest.raises(InputError, match="between 0 and 1"):
        replace(C, gaps=2)
    with pytest.raises(InputError, match="more than 0 minutes"):
        TimeLeft(0)
