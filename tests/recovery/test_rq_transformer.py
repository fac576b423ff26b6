"""The recovery model on tiny random configurations, both sizes through the same code."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from semaphone.errors import InputError

pytest.importorskip("transformers")

from semaphone.recovery.base import TokenStatus
from semaphone.recovery.rq_config import RQTransformerConfig
from semaphone.recovery.rq_state import ABSENT, GUESSED, HEARD
from semaphone.recovery.rq_transformer import RQTransformer
from semaphone.recovery.rq_weights import load, save
from semaphone.recovery.sampling import Sampling
from semaphone.training.recovery_start import start_from_model

N, K = 5, 40
NANO = RQTransformerConfig(
    num_codebooks=N,
    codebook_size=K,
    codec="c" * 64,
    width=32,
    layers=2,
    heads=2,
    ffn=48,
    depth_width=16,
    depth_layers=2,
    depth_heads=2,
    depth_ffn=32,
    token_width=8,
    text_size=7,
    window=6,
)
MOSHI = replace(
    NANO, token_width=0, acoustic_delay=1, sees_received=False, sees_coming=False, text_pad=3, other=(3, 1, 4, 1, 5)
)
BOTH = pytest.mark.parametrize("config", [NANO, MOSHI], ids=["nano", "moshi"])
RECEIVED, LOST, UNSENT, UNKNOWN = (int(s) for s in TokenStatus)


def build(config: RQTransformerConfig, seed: int = 0) -> RQTransformer:
    torch.manual_seed(seed)
    model = RQTransformer(config).eval()
    with torch.no_grad():  # heads are small at first: make the logits differ
        model.depth_decoder.lm_heads.weight.mul_(50)
    return model


def chunks(steps: int, batch: int = 3, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, K, (batch, steps, N), generator=torch.Generator().manual_seed(seed))


def weather(steps: int, batch: int = 3, rate: float = 0.4, seed: int = 2) -> torch.Tensor:
    draw = torch.rand(batch, steps, N, generator=torch.Generator().manual_seed(seed))
    return torch.where(draw < rate, LOST, RECEIVED)


def run(model: RQTransformer, tokens: torch.Tensor, status: torch.Tensor, **options: Any) -> list[Any]:
    state, steps = None, []
    for n in range(tokens.shape[1]):
        step = model.step(tokens[:, n], status[:, n], state, **options)
        state = step.state
        steps.append(step)
    return steps


def test_step_by_step_equals_whole_sequence_nano():
    """With losses: the whole sequence remembers what the steps guessed."""
    model = build(NANO)
    tokens, status = chunks(15), weather(15)
    steps = run(model, tokens, status, all_logits=True)
    made = torch.stack([s.tokens for s in steps], 1)
    heard = torch.where(status == RECEIVED, HEARD, GUESSED)
    whole, _ = model(made, status, made, heard)
    torch.testing.assert_close(torch.stack([s.logits for s in steps], 1), whole, atol=1e-4, rtol=1e-4)
    assert (made != tokens).any()


def foreseen(status: torch.Tensor, seed: int = 5) -> torch.Tensor:
    """Of the chunk after each: some of what will arrive of it, or nothing."""
    later = torch.cat([status[:, 1:], torch.full_like(status[:, :1], LOST)], 1)
    draw = torch.rand(status.shape, generator=torch.Generator().manual_seed(seed))
    return torch.where(draw < 0.5, later, LOST).masked_fill(draw[..., :1] < 0.3, UNKNOWN)


def with_foresight(seed: int = 0) -> RQTransformer:
    model = build(NANO, seed)
    assert model.foresee is not None
    torch.nn.init.normal_(model.foresee.weight, std=0.3, generator=torch.Generator().manual_seed(seed))
    return model


def test_step_by_step_equals_whole_sequence_with_the_next_chunk_in_sight():
    model = with_foresight()
    tokens, status = chunks(15), weather(15)
    coming = foreseen(status)
    later = torch.cat([tokens[:, 1:], tokens[:, :1]], 1)
    state, steps = None, []
    for n in range(15):
        step = model.step(tokens[:, n], status[:, n], state, all_logits=True, coming=(later[:, n], coming[:, n]))
        state = step.state
        steps.append(step)
    made = torch.stack([s.tokens for s in steps], 1)
    assert torch.equal(made[status == RECEIVED], tokens[status == RECEIVED])
    heard = torch.where(status == RECEIVED, HEARD, GUESSED)
    whole, _ = model(made, status, made, heard, coming=coming)
    torch.testing.assert_close(torch.stack([s.logits for s in steps], 1), whole, atol=1e-4, rtol=1e-4)
    blind, _ = model(made, status, made, heard)
    assert (whole - blind).abs().max() > 0.1


def test_only_what_has_arrived_of_the_next_chunk_is_seen():
    model = with_foresight()
    tokens, status = chunks(2), weather(2)
    blind = model.step(tokens[:, 0], status[:, 0], all_logits=True).logits
    for unseen in (LOST, UNKNOWN, UNSENT):
        coming = (tokens[:, 1], torch.full_like(status[:, 1], unseen))
        assert torch.equal(model.step(tokens[:, 0], status[:, 0], all_logits=True, coming=coming).logits, blind)
    some = torch.full_like(status[:, 1], LOST)
    some[:, 0] = RECEIVED
    other = tokens[:, 1].clone()
    other[:, 1:] = (other[:, 1:] + 1) % K
    first, second = (
        model.step(tokens[:, 0], status[:, 0], all_logits=True, coming=(t, some)).logits for t in (tokens[:, 1], other)
    )
    assert torch.equal(first, second)
    assert (first - blind).abs().max() > 0.01


def test_files_of_before_there_was_foresight_are_read(tmp_path):
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    blind = build(replace(NANO, sees_coming=False))
    save(blind, tmp_path / "new.safetensors", "float32")
    with safe_open(str(tmp_path / "new.safetensors"), "pt") as file:
        facts = dict(file.metadata())
    config = json.loads(facts["config"])
    del config["sees_coming"]
    save_file(
        load_file(tmp_path / "new.safetensors"), tmp_path / "old.safetensors", facts | {"config": json.dumps(config)}
    )
    assert load(tmp_path / "old.safetensors", NANO.codec).config == blind.config


def test_a_fresh_model_with_foresight_is_the_one_without():
    """What was trained without it can begin anew with it."""
    blind = build(replace(NANO, sees_coming=False))
    model = RQTransformer(NANO).eval()
    start_from_model(model, blind)
    tokens, status = chunks(9), weather(9)
    assert torch.equal(model(tokens, status, coming=foreseen(status))[0], blind(tokens, status)[0])
    with pytest.raises(InputError, match="other sizes"):
        start_from_model(RQTransformer(replace(NANO, codec="d" * 64)), blind)
    with pytest.raises(InputError, match="other sizes"):
        start_from_model(build(replace(NANO, sees_coming=False)), model)


def test_step_by_step_equals_whole_sequence_moshi():
    model = build(MOSHI)
    tokens, status = chunks(15), weather(15)
    steps = run(model, tokens, status, all_logits=True, look_ahead=False)
    made = torch.stack([s.tokens for s in steps[1:]], 1)  # one chunk late
    whole, _ = model(made)
    stepped = torch.stack([s.logits for s in steps[1:]], 1)
    # The last chunk's acoustic tokens share a time step with a semantic token that `made` ends before.
    torch.testing.assert_close(stepped[:, :-1], whole[:, :-1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(stepped[:, -1, 0], whole[:, -1, 0], atol=1e-4, rtol=1e-4)


def test_whole_sequence_equals_transformers():
    """Nothing lost: the driven layers give what transformers' Moshi gives, temporal and depth transformer both."""
    import transformers

    torch.manual_seed(0)
    inner = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 32, "sliding_window": N}
    sizes: dict[str, Any] = {
        "vocab_size": 7,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "audio_vocab_size": K,
        "ffn_dim": 48,
        "num_codebooks": N,
        "depth_decoder_config": inner,
        "audio_encoder_config": TINY_MIMI,
    }
    theirs: Any = transformers.MoshiForConditionalGeneration(transformers.MoshiConfig(**sizes)).eval()
    with torch.no_grad():
        theirs.depth_decoder.lm_heads.weight.mul_(0.1)
    theirs = theirs.double()
    model = RQTransformer.from_moshi(theirs, "f" * 64, (3, 1, 4, 1, 5))
    tokens = chunks(9, batch=2)
    logits, text = model(tokens)

    first = torch.full((2, 1, N), K)
    steps = torch.cat([first, model.delayed(tokens, K)], 1)  # V_0 .. V_10
    silence = torch.tensor([3, 1, 4, 1, 5]).expand(2, 9, N)
    other = torch.cat([first, model.delayed(silence, K)], 1)
    pad = torch.full((2, 11), 3)
    pad[:, 0] = 7
    codes = torch.cat([steps, other], 2).transpose(1, 2)[:, :, :10]
    embedded = theirs.decoder.model.embed_tokens(pad[:, :10])
    embedded = embedded + sum(theirs.embed_tokens[k](codes[:, k]) for k in range(2 * N))
    a = theirs.decoder(inputs_embeds=embedded)
    torch.testing.assert_close(text, a.logits[:, :9], atol=1e-4, rtol=1e-4)
    ids = torch.cat([pad[:, 1:11, None], steps[:, 1:, :-1]], 2).flatten(0, 1)
    context = a.last_hidden_state.flatten(0, 1)[:, None].expand(-1, N, -1)
    out = theirs.depth_decoder(input_ids=ids, last_hidden_state=context).logits.view(2, 10, N, K)
    torch.testing.assert_close(logits, model.undelayed(out), atol=1e-4, rtol=1e-4)


TINY_MIMI = {
    "sampling_rate": 1600,
    "hidden_size": 16,
    "num_filters": 4,
    "upsampling_ratios": [4, 2],
    "codebook_size": 64,
    "codebook_dim": 8,
    "vector_quantization_hidden_dimension": 8,
    "num_quantizers": 6,
    "upsample_groups": 16,
    "num_hidden_layers": 1,
    "intermediate_size": 32,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}


@BOTH
@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_received_tokens_come_out_untouched(config, rate):
    model = build(config)
    tokens, status = chunks(12), weather(12, rate=rate)
    for n, step in enumerate(run(model, tokens, status)):
        received = status[:, n] == RECEIVED
        assert torch.equal(step.tokens[received], tokens[:, n][received])
        assert torch.equal(step.guessed, ~received)
        assert (step.probability[received] == 1).all()
        chance = step.logits.softmax(-1).gather(-1, step.tokens[..., None])[..., 0]
        if not config.acoustic_delay:
            torch.testing.assert_close(step.probability[~received], chance[~received])
        assert not step.absent.any()


@BOTH
def test_deeper_received_tokens_are_forced(config):
    """Changing a received token behind a lost one changes what is guessed after it, whatever lies between."""
    model = build(config)
    tokens = chunks(1, batch=40)
    status = torch.tensor([LOST, LOST, RECEIVED, LOST, LOST]).expand(40, 1, N)
    other = tokens.clone()
    other[:, 0, 2] = (tokens[:, 0, 2] + 7) % K
    one, two = run(model, tokens, status)[0], run(model, other, status)[0]
    assert (one.tokens[:, 3:] != two.tokens[:, 3:]).any()
    changed = (one.tokens[:, :2] != two.tokens[:, :2]).any()
    assert changed == config.sees_received  # only nano sees survivors deeper than the lost token


@BOTH
def test_the_depth_pass_stops_after_the_deepest_token_to_predict(config, monkeypatch):
    model = build(config)
    from semaphone.recovery import depth

    steps, heads = [0], []
    step, logits = depth.Stepper.step, depth.Stepper.logits

    def watched_step(self: Any, before: torch.Tensor | None) -> torch.Tensor:
        steps[0] += 1
        return step(self, before)

    def watched_logits(self: Any, hidden: torch.Tensor) -> torch.Tensor:
        heads.append(steps[0] - 1)
        return logits(self, hidden)

    monkeypatch.setattr(depth.Stepper, "step", watched_step)
    monkeypatch.setattr(depth.Stepper, "logits", watched_logits)
    tokens = chunks(1, batch=2)
    status = torch.full((2, 1, N), RECEIVED)
    status[0, 0, 1] = status[1, 0, 3] = LOST
    run(model, tokens, status)
    assert steps == [4]
    assert heads == ([0, 1, 3] if config.acoustic_delay else [1, 3])  # the guess of the coming semantic token first
    run(model, tokens, torch.zeros_like(status))
    assert steps == [4]


@BOTH
def test_logits_do_not_depend_on_which_are_asked_for(config):
    model = build(config)
    tokens, status = chunks(8), weather(8)
    few, all_ = run(model, tokens, status), run(model, tokens, status, all_logits=True)
    for a, b, n in zip(few, all_, range(8), strict=True):
        assert torch.equal(a.tokens, b.tokens)
        needed = (status[:, n] != RECEIVED).any(0)
        torch.testing.assert_close(a.logits[:, needed], b.logits[:, needed], atol=1e-4, rtol=1e-4)


@BOTH
def test_ragged_streams_share_a_batch(config):
    model = build(config)
    tokens, status = chunks(14), weather(14)
    who = torch.rand(30, 3, generator=torch.Generator().manual_seed(5)) < torch.tensor([0.9, 0.5, 0.4])
    who[:4, 2] = False
    done, state = [0, 0, 0], None
    out: list[list[torch.Tensor]] = [[], [], []]
    for row in who:
        stepping = row & (torch.tensor(done) < 14)
        at = torch.tensor(done).clamp(max=13)
        rows = torch.arange(3)
        step = model.step(tokens[rows, at], status[rows, at], state, stepping=stepping)
        state = step.state
        for b in range(3):
            if stepping[b]:
                out[b].append(step.tokens[b])
                done[b] += 1
    assert min(done) > 7
    for b, n in enumerate(done):
        alone = run(model, tokens[b : b + 1, :n], status[b : b + 1, :n])
        assert torch.equal(torch.stack(out[b]), torch.cat([s.tokens for s in alone]))


@BOTH
def test_a_place_in_the_batch_can_be_given_to_a_new_stream(config):
    model = build(config)
    state = run(model, chunks(9, seed=7), weather(9, seed=7))[-1].state
    state = model.restart(state, torch.tensor([False, True, False]))
    tokens, status = chunks(5), weather(5)
    fresh = run(model, tokens, status)
    for n in range(5):
        step = model.step(tokens[:, n], status[:, n], state)
        state = step.state
        assert torch.equal(step.tokens[1], fresh[n].tokens[1])


@BOTH
def test_memory_is_bounded(config):
    model = build(config)
    steps = run(model, chunks(40, batch=1), weather(40, batch=1))
    sizes = [sum(k.numel() for k in s.state.window.keys) for s in steps]
    assert len(set(sizes[10:])) == 1
    assert steps[-1].state.window.keys[0].shape[2] == config.window - 1
    assert int(steps[-1].state.window.position) == 40 + config.acoustic_delay


@BOTH
def test_far_history_is_forgotten(config):
    """What lies further back than layers * window steps has no influence: a stream of an hour is like a short one."""
    model = build(config)
    tokens, status = chunks(30, batch=1), weather(30, batch=1, rate=0.0)
    other = tokens.clone()
    other[:, :10] = chunks(10, batch=1, seed=9)
    a, b = (run(model, t, status, all_logits=True)[-1].logits for t in (tokens, other))
    torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_look_ahead_gives_the_chunk_at_once_and_keeps_what_was_received():
    model = build(MOSHI)
    tokens, status = chunks(10), weather(10)
    now, late = run(model, tokens, status), run(model, tokens, status, look_ahead=False)
    assert late[0].absent.all()
    for n in range(9):
        # the semantic token is decided when its chunk arrives; the model's memory is the same in both ways
        assert torch.equal(now[n].tokens[:, 0], late[n + 1].tokens[:, 0])
        assert torch.equal(now[n].state.past, late[n].state.past)


@BOTH
def test_tokens_not_to_be_predicted_are_absent(config):
    model = build(config)
    tokens, status = chunks(4), weather(4, rate=0.0)
    status[:, :, 3:] = UNSENT
    for step in run(model, tokens, status, predict=torch.zeros(3, N, dtype=torch.bool)):
        assert step.absent[:, 3:].all()
        assert not step.tokens[:, 3:].any()
        assert not step.absent[:, :3].any()


def test_sampling_is_seeded_and_independent_of_the_batch():
    model = build(NANO)
    tokens, status = chunks(6), weather(6, rate=0.8)

    def drawn(sampling: Sampling, rows: slice = slice(None)) -> torch.Tensor:
        return torch.stack([s.tokens for s in run(model, tokens[rows], status[rows], sampling=sampling)], 1)

    hot = Sampling(temperature=1.0, seed=3)
    assert torch.equal(drawn(hot), drawn(hot))
    assert torch.equal(drawn(hot)[1:2], drawn(hot, slice(1, 2)))
    assert not torch.equal(drawn(hot), drawn(Sampling(temperature=1.0, seed=4)))
    assert torch.equal(drawn(Sampling()), drawn(Sampling(temperature=5.0, top_k=1)))


def test_draws_follow_the_distribution():
    logits = torch.tensor([[1.0, 0.0, -1.0, 3.0]]).expand(4000, -1)
    token = Sampling(temperature=1.0, seed=1).choose(logits, torch.arange(4000), 2)
    share = torch.bincount(token, minlength=4) / 4000
    torch.testing.assert_close(share, logits[0].softmax(-1), atol=0.03, rtol=0)
    few = Sampling(temperature=1.0, top_k=2, seed=1).choose(logits, torch.arange(4000), 2)
    assert set(few.tolist()) == {0, 3}


@pytest.mark.parametrize("storage", ["float32", "float16", "int8"])
def test_saved_and_loaded(tmp_path, storage):
    model = with_foresight()
    save(model, tmp_path / "m.safetensors", storage)
    assert [f.name for f in tmp_path.iterdir()] == ["m.safetensors"]
    again = load(tmp_path / "m.safetensors", NANO.codec)
    assert again.config == model.config
    worst = {"float32": 0.0, "float16": 2e-3, "int8": 2e-2}[storage]
    for name, value in model.state_dict().items():
        error = (again.state_dict()[name] - value).abs().max() / value.abs().max()
        assert error <= worst


def test_another_codec_is_refused(tmp_path):
    save(build(NANO), tmp_path / "m.safetensors")
    with pytest.raises(InputError, match="trained on the tokens of another codec"):
        load(tmp_path / "m.safetensors", "d" * 64)


def test_what_is_not_a_model_is_refused(tmp_path):
    from safetensors.torch import save_file

    with pytest.raises(InputError, match="cannot be read"):
        load(tmp_path / "absent")
    (tmp_path / "text").write_text("no")
    with pytest.raises(InputError, match="cannot be read"):
        load(tmp_path / "text")
    save_file({"a": torch.zeros(1)}, tmp_path / "other")
    with pytest.raises(InputError, match="not a recovery model"):
        load(tmp_path / "other")
    save_file({"a": torch.zeros(1)}, tmp_path / "bad", {"format": "semaphone recovery 1", "config": "{}"})
    with pytest.raises(InputError, match="configuration"):
        load(tmp_path / "bad")


@pytest.mark.parametrize(
    "wrong",
    [
        {"layers": 0},
        {"acoustic_delay": 2},
        {"acoustic_delay": 1},
        {"token_width": 0},
        {"other": (1, 2)},
    ],
)
def test_impossible_configurations(wrong):
    with pytest.raises(InputError):
        replace(NANO, **wrong)


def test_shapes_are_checked():
    model = build(NANO)
    with pytest.raises(ValueError, match=r"\[B, 5\]"):
        model.step(torch.zeros(1, 4, dtype=torch.long), torch.zeros(1, 4, dtype=torch.long))


def test_absent_is_what_is_remembered_before_the_beginning():
    state = build(NANO).fresh_state(2)
    assert (state.heard == ABSENT).all()
    assert (state.past == K).all()


@BOTH
def test_tokens_that_arrive_in_part(config):
    """With arrivals of one and zero it is the hard case; in between it is a mixture, with gradients."""
    model = build(config)
    tokens = chunks(9)
    status = torch.where(weather(9) == LOST, torch.tensor([LOST, LOST, LOST, UNSENT, UNSENT]), RECEIVED)
    text = torch.full_like(tokens[..., 0], config.text_pad)
    if config.acoustic_delay:
        text = torch.cat([text, text[:, :1]], 1)
    tokens, status = model.delayed(tokens, K), model.delayed(status, UNSENT)
    received = status == RECEIVED
    past, heard = torch.where(received, tokens, K), torch.where(received, HEARD, ABSENT)
    hard = model.contexts(tokens, status, past, heard, text)
    soft = model.mixed_contexts(tokens, received.float(), (status != UNSENT).float())
    for a, b in zip(soft, hard, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    share = torch.full(tokens.shape, 0.5).requires_grad_()
    sent = torch.ones(tokens.shape).requires_grad_()
    _, context = model.mixed_contexts(tokens, share, sent)
    context.square().sum().backward()
    assert share.grad is not None
    last = None if config.sees_received else -1  # what only the chunks after it would see
    assert (share.grad[:, :last] != 0)[tokens[:, :last] != K].all()
    assert config.sees_received == (sent.grad is not None)


def test_entries_of_the_codec_travel_with_the_weights(tmp_path):
    model = RQTransformer(NANO)
    assert load_after(model, tmp_path).points is None
    model.points = torch.randn(NANO.num_codebooks, NANO.codebook_size, 3)
    found = load_after(model, tmp_path).points
    assert found is not None
    assert torch.allclose(found, model.points, atol=0.03)
    model.points = torch.randn(2, 3, 3)
    with pytest.raises(InputError, match="entries"):
        load_after(model, tmp_path)


def load_after(model, folder):
    save(model, folder / "weights.safetensors")
    return load(folder / "weights.safetensors")
