from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.codec.tiny import TINY
from tests.training.teacher import variables

from semaphone.audio import AudioWriter
from semaphone.codec.nano import fingerprint
from semaphone.errors import InputError
from semaphone.training.adversarial import AdversarialTrainer, AdversarialTraining, draw_losses
from semaphone.training.batches import Store, draw, mu_law, telephone
from semaphone.training.codec import STATE, WEIGHTS, CodecTrainer, CodecTraining, train_codec
from semaphone.training.data import CHUNK, HOP, group_weights, open_corpus, prepare_corpus
from semaphone.training.hearing import HeardLoss
from semaphone.training.sources import find_recordings

SETTINGS = CodecTraining(
    batch=3,
    crop=8,
    rate=3e-3,
    warmup=5,
    steps=60,
    settle_on=5,
    every=10,
    bf16=False,
    model=replace(TINY, semantic_dim=512),
)


def quiet(*_):
    pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    for group, files in (("a", 2), ("b", 1)):
        (root / group).mkdir()
        for i in range(files):
            time = np.arange(40_000 + 999 * i) / 16000
            wave = 0.3 * np.sin(2 * np.pi * (120 + 60 * i) * time) * (time % 1 < 0.7)
            with AudioWriter(root / group / f"{i}.wav", 16000) as out:
                out.write((wave + 0.01 * rng.standard_normal(len(time))).astype(np.float32))
    (root / "broken.wav").write_text("not audio")
    return root


@pytest.fixture(scope="module")
def corpus(folder, tmp_path_factory):
    return prepare_corpus(folder, tmp_path_factory.mktemp("cache"), None, quiet, workers=1)


def test_a_folder_becomes_a_cache(corpus, folder, tmp_path):
    assert [r.file for r in corpus.recordings] == ["a/0.wav", "a/1.wav", "b/0.wav"]
    assert all(r.start % CHUNK == r.length % CHUNK == 0 for r in corpus.recordings)
    assert len(corpus.f0) == len(corpus.audio) // HOP
    first = corpus.f0[: corpus.recordings[0].length // HOP].astype(np.float32)
    assert np.median(first[first > 0]) == pytest.approx(120, rel=0.02)
    assert 0.5 < (first > 0).mean() < 0.9
    with pytest.raises(InputError, match="not a folder"):
        find_recordings(folder / "nothing")
    with pytest.raises(InputError, match="No recordings"):
        find_recordings(tmp_path)
    with pytest.raises(InputError, match="not a corpus cache"):
        open_corpus(tmp_path)


def test_a_folder_without_recordings_leaves_nothing_behind(tmp_path):
    with pytest.raises(InputError, match="not a folder"):
        prepare_corpus(tmp_path / "nowhere", tmp_path / "out" / "cache", None, lambda stage, done, total: None)
    assert not (tmp_path / "out").exists()


def test_groups_are_balanced(corpus):
    weights = group_weights(corpus, {"a": 0.25, "b": 0.75})
    assert weights[2] == pytest.approx(0.75)
    assert group_weights(corpus).sum() == pytest.approx(1)
    with pytest.raises(InputError, match="share"):
        group_weights(corpus, {"c": 1.0})


def test_batches_keep_pitch_and_speech_together(corpus):
    batch = draw(Store(corpus, torch.device("cpu")), SETTINGS, group_weights(corpus), np.random.default_rng(1))
    assert batch.speech.shape == (3, 8 * CHUNK)
    assert batch.f0.shape == (3, 64)
    level = batch.speech.reshape(3, 64, HOP).square().mean(2)
    assert level[batch.f0 > 0].median() > 20 * level[batch.f0 == 0].median()


def test_the_loss_falls_and_a_run_resumes_where_it_was(corpus, tmp_path):
    whole = CodecTrainer(SETTINGS, corpus, tmp_path / "whole")
    rows = [whole.advance() for _ in range(40)]
    assert np.mean([r["mel"] for r in rows[-8:]]) < 0.8 * np.mean([r["mel"] for r in rows[:8]])
    train_codec(CodecTrainer(SETTINGS, corpus, tmp_path / "parts"), 25, quiet)
    again = CodecTrainer(SETTINGS, corpus, tmp_path / "parts")
    assert again.step == 25
    for _ in range(15):
        last = again.advance()
    assert {k: float(v) for k, v in last.items()} == pytest.approx({k: float(v) for k, v in rows[-1].items()}, rel=1e-3)


def test_stage_two_leaves_the_tokens_alone(corpus, tmp_path):
    first = CodecTrainer(SETTINGS, corpus, tmp_path / "one")
    train_codec(first, 10, quiet)
    settings = AdversarialTraining(
        batch=2, crop=8, channels=2, alone=1, warmup=2, every=5, bf16=False, model=SETTINGS.model
    )
    second = AdversarialTrainer(settings, corpus, tmp_path / "two", tmp_path / "one" / STATE)
    before = {k: v.clone() for k, v in second.model.state_dict().items()}
    train_codec(second, 5, quiet)
    after = second.model.state_dict()
    for name, value in before.items():
        if not name.startswith("decoder"):
            assert torch.equal(value, after[name]), name
    assert not torch.equal(before["decoder.head.weight"], after["decoder.head.weight"])
    assert (tmp_path / "two" / WEIGHTS).is_file()
    resumed = AdversarialTrainer(settings, corpus, tmp_path / "two", tmp_path / "one" / STATE)
    assert resumed.step == 5
    assert resumed.advance()["judged"] > 0


def test_stage_two_goes_on_with_fewer_blocks(corpus, tmp_path):
    deep = replace(SETTINGS.model, decoder_blocks=(2, 1, 1, 3))
    first = CodecTrainer(replace(SETTINGS, model=deep), corpus, tmp_path / "one")
    first.save()
    small = AdversarialTraining(batch=2, crop=8, channels=2, alone=0, warmup=2, every=5, bf16=False, model=deep)
    second = AdversarialTrainer(small, corpus, tmp_path / "two", tmp_path / "one" / STATE)
    train_codec(second, 2, quiet)
    few = replace(deep, decoder_blocks=(1, 1, 1, 2))
    fewer = replace(small, model=few, heard=1.0, judge_rate=1e-5)
    heard = HeardLoss(variables())
    third = AdversarialTrainer(fewer, corpus, tmp_path / "three", tmp_path / "two" / STATE, heard)
    judge = "judges.0.judge.bias"
    assert torch.equal(third.judges.state_dict()[judge], second.judges.state_dict()[judge])
    assert [group["lr"] for group in third.judge_optimiser.param_groups] == [1e-5]
    assert fingerprint(third.model) == fingerprint(second.model)
    assert third.advance()["heard"] > 0
    with pytest.raises(InputError, match="another shape"):
        AdversarialTrainer(replace(small, model=few), corpus, tmp_path / "two", tmp_path / "one" / STATE)
    with pytest.raises(ValueError, match="needs somebody"):
        AdversarialTrainer(fewer, corpus, tmp_path / "four", tmp_path / "two" / STATE)


def test_the_tokens_can_learn_from_what_a_recogniser_hears(corpus, tmp_path):
    shape = replace(SETTINGS.model, semantic_dim=8)  # as wide as the recogniser here
    first = CodecTrainer(replace(SETTINGS, range_batches=1, model=shape), corpus, tmp_path / "one")
    train_codec(first, 5, quiet)
    settings = AdversarialTraining(
        batch=3, crop=8, channels=2, alone=0, warmup=2, every=5, bf16=False, model=shape,
        move=True, heard=1.0, judged_crops=2, judged_chunks=4, telephone=0.3, half_depth=0.3, range_batches=0,
    )  # fmt: skip
    start = tmp_path / "one" / WEIGHTS
    second = AdversarialTrainer(settings, corpus, tmp_path / "two", start, HeardLoss(variables()))
    before = fingerprint(second.averaged())
    for k in range(shape.num_codebooks):
        book = second.model.quantizer.book(k)
        assert torch.equal(book.total, book.entries)
    rows = [second.advance() for _ in range(10)]
    assert set(rows[-1]) >= {"heard", "taught", "commitment", "mel", "fool", "match", "judged"}
    assert all(torch.isfinite(value) for row in rows for value in row.values())
    assert fingerprint(second.averaged()) != before
    assert not torch.equal(second.model.encoder.last.weight, first.model.encoder.last.weight)


def test_losses_come_in_bursts_and_leave_prefixes():
    settings = AdversarialTraining(lost=0.5, lost_most=0.3, burst=3.0)
    depth = torch.full((400,), 16)
    arrived = draw_losses(settings, depth, 60, np.random.default_rng(5))
    lossy = (arrived < 16).any(1)
    assert lossy.float().mean() == pytest.approx(0.5, abs=0.08)
    lost = arrived[lossy] < 16
    assert 0.1 < lost.float().mean() < 0.3
    assert (arrived[lossy][lost] == 0).float().mean() == pytest.approx(0.72, abs=0.05)
    runs = lost[:, 1:].float().mean(), (lost[:, 1:] & ~lost[:, :-1]).float().mean()
    assert 2.0 < runs[0] / runs[1] < 5.0
    assert (draw_losses(replace(settings, lost=0.0), depth, 60, np.random.default_rng(5)) == 16).all()


def test_a_telephone_keeps_its_band():
    noise = torch.randn(8, 16_000, generator=torch.Generator().manual_seed(0)) * 0.1
    narrow = telephone(noise, np.random.default_rng(1), 1.0)
    power = torch.fft.rfft(narrow).abs().square().mean(0)
    inside, low, high = power[500:2900].mean(), power[:50].mean(), power[4500:].mean()
    assert low < 1e-3 * inside
    assert high < 1e-3 * inside
    assert torch.equal(telephone(noise, np.random.default_rng(1), 0.0), noise)


def test_mu_law_is_finer_where_speech_is_quiet():
    x = torch.linspace(-1, 1, 200_001)
    error = (mu_law(x) - x).abs()
    assert error.max() < 0.025
    assert error[x.abs() < 0.01].max() < 5e-4
    assert len(mu_law(x).unique()) == 255


def test_what_is_no_checkpoint_starts_nothing(corpus, tmp_path):
    settings = AdversarialTraining(channels=2, model=SETTINGS.model)
    words, other = tmp_path / "words.pt", tmp_path / "other.pt"
    words.write_text("words")
    torch.save({"net": torch.zeros(1)}, other)
    for start in (words, other, tmp_path / "none.pt"):
        with pytest.raises(InputError, match="no checkpoint"):
            AdversarialTrainer(settings, corpus, tmp_path / "out", start)


@pytest.mark.parametrize("wrong", [{"batch": 0}, {"range_batches": -1}, {"seed": -1}])
def test_impossible_settings(wrong):
    with pytest.raises(ValueError, match="positive"):
        CodecTraining(**wrong)
