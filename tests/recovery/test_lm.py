"""Recovery by the language model: what is used, what fades, what comes back."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch

from semaphone.errors import InputError

pytest.importorskip("transformers")

from semaphone.recovery.base import Recovered, TokenStatus
from semaphone.recovery.lm import Fade, LmRecovery, LmSettings
from semaphone.recovery.rq_config import RQTransformerConfig
from semaphone.recovery.rq_transformer import RQTransformer
from semaphone.recovery.sampling import Sampling

N, K = 5, 40
NANO = RQTransformerConfig(
    num_codebooks=N,
    codebook_size=K,
    width=32,
    layers=2,
    heads=2,
    ffn=48,
    depth_width=16,
    depth_heads=2,
    depth_ffn=32,
    token_width=8,
    text_size=7,
    window=6,
)
MOSHI = replace(NANO, token_width=0, acoustic_delay=1, sees_received=False, sees_coming=False)
RECEIVED, LOST, UNSENT, UNKNOWN = (int(s) for s in TokenStatus)


def recovery(settings: LmSettings | None = None, config: RQTransformerConfig = NANO) -> LmRecovery:
    torch.manual_seed(0)
    return LmRecovery(RQTransformer(config), settings)


def chunk(*status: int, batch: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = torch.randint(0, K, (batch, N), generator=torch.Generator().manual_seed(sum(status)))
    return tokens, torch.tensor(status).expand(batch, N)


def play(lm: LmRecovery, chunks: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[list[Recovered], Any]:
    state, out = None, []
    for tokens, status in chunks:
        recovered, state = lm.step(tokens, status, state)
        out.append(recovered)
    return out, state


GOOD, GONE = (RECEIVED,) * N, (LOST,) * N


def test_received_tokens_come_out_untouched_with_weight_1():
    tokens, status = chunk(RECEIVED, LOST, RECEIVED, LOST, UNSENT, batch=3)
    out, _ = play(recovery(LmSettings(confidence=0.5)), [(tokens, status)])
    received = status == RECEIVED
    assert torch.equal(out[0].tokens[received], tokens[received])
    assert (out[0].weight[received] == 1).all()
    assert (out[0].weight[~received] < 1).all()
    assert (out[0].gain == 1).all()


def test_unsent_tokens_are_predicted_or_left_out():
    chunks = [chunk(RECEIVED, RECEIVED, LOST, UNSENT, UNSENT)]
    on, _ = play(recovery(LmSettings(predict_unsent=True, confidence=0.0)), chunks)
    off, _ = play(recovery(LmSettings(predict_unsent=False, confidence=0.0)), chunks)
    assert on[0].weight.tolist() == [[1, 1, 1, 1, 1]]
    assert off[0].weight.tolist() == [[1, 1, 1, 0, 0]]


def test_lost_tokens_deeper_than_asked_stay_out():
    received = (RECEIVED, LOST, RECEIVED, LOST, RECEIVED)
    (out,), state = play(recovery(LmSettings(deepest=2, confidence=0.0)), [chunk(*received)])
    assert out.weight[0].tolist() == [1, 1, 1, 0, 1]
    assert torch.isfinite(state.model.past).all()


def test_unknown_tokens_beyond_those_sent_lately_count_as_unsent():
    lm = recovery(LmSettings(predict_unsent=False, imagined=N))
    chunks = [chunk(RECEIVED, RECEIVED, RECEIVED, UNSENT, UNSENT), chunk(*(UNKNOWN,) * N), chunk(*(UNKNOWN,) * N)]
    out, _ = play(lm, chunks)
    assert (out[1].weight > 0).tolist() == [[True, True, True, False, False]]
    assert (out[2].weight > 0).tolist() == [[True, True, True, False, False]]


def test_long_losses_fade_and_speech_returns_smoothly():
    chunks = [chunk(*GOOD)] * 3 + [chunk(*GONE)] * 20 + [chunk(*GOOD)] * 3
    out, _ = play(recovery(LmSettings(confidence=0.0)), chunks)
    gain = [float(r.gain) for r in out]
    assert gain[:6] == [1.0] * 6  # the first lost chunks at full loudness
    assert gain[6] < 1.0
    assert all(a >= b for a, b in itertools.pairwise(gain[6:23]))
    assert gain[22] == 0.0
    assert gain[23:] == [0.5, 1.0, 1.0]


def test_without_entries_guesses_count_in_full_only_where_nothing_arrived():
    chunks = [chunk(*GOOD), chunk(*GONE), chunk(RECEIVED, LOST, RECEIVED, LOST, UNSENT), chunk(*GONE)]
    (_, gone, some, again), _ = play(recovery(LmSettings(confidence=0.5)), chunks)
    assert gone.weight.tolist() == again.weight.tolist() == [[1.0, 0.0, 0.0, 0.0, 0.0]]
    assert some.weight[0, [0, 2]].tolist() == [1.0, 1.0]
    assert ((some.weight[0, [1, 3]] > 0) & (some.weight[0, [1, 3]] < 1)).all()
    (_, softly, *_), _ = play(recovery(LmSettings(confidence=0.5, invented=0.25, imagined=3)), chunks)
    assert softly.weight.tolist() == [[0.25, 0.25, 0.25, 0.0, 0.0]]
    (_, fully, *_), _ = play(recovery(LmSettings(confidence=0.5, imagined=N)), chunks)
    assert fully.weight.tolist() == [[1.0] * N]


def test_the_expected_entry_stands_for_a_guess():
    """With the codec's entries known: weight 0 and the mean of the bets; where nothing arrived, of the first token."""
    lm = recovery()
    points = torch.randn(N, K, 3, generator=torch.Generator().manual_seed(4))
    lm.model.points = points
    tokens, status = chunk(RECEIVED, LOST, RECEIVED, LOST, UNSENT)
    wanted = (status == LOST).nonzero()[:, 1].tolist()
    step = lm.model.step(tokens, status, predict=status == LOST)
    (some, gone), _ = play(lm, [(tokens, status), chunk(*GONE)])
    assert some.weight.tolist() == [[1.0, 0.0, 1.0, 0.0, 0.0]]
    assert some.entries is not None
    expected = torch.zeros(1, N, 3)
    for k in wanted:
        expected[0, k] = torch.softmax(step.logits[0, k], -1) @ points[k]
    torch.testing.assert_close(some.entries, expected)
    assert gone.weight.tolist() == [[0.0] * N]
    assert gone.entries is not None
    assert gone.entries[0, 0].abs().sum() > 0
    assert not gone.entries[0, 1:].any()


def test_silence_without_end_costs_nothing_and_leaves_a_clean_memory(monkeypatch):
    from semaphone.recovery import depth

    lm = recovery()
    state = None
    passes: list[int] = []
    real = depth.Stepper.step

    def watched(self: Any, before: torch.Tensor | None) -> torch.Tensor:
        passes.append(1)
        return real(self, before)

    monkeypatch.setattr(depth.Stepper, "step", watched)
    for n in range(150):
        before = len(passes)
        recovered, state = lm.step(*chunk(*GONE), state)
        assert bool(torch.isfinite(recovered.weight).all())
        if n > 20:
            assert len(passes) == before
            assert float(recovered.gain) == 0.0
            assert not recovered.weight.any()
    assert state is not None
    assert (state.model.past == K).all()
    recovered, _ = lm.step(*chunk(*GOOD), state)
    assert float(recovered.gain) == 0.5


def test_nothing_but_a_first_chunk_lost():
    out, _ = play(recovery(), [chunk(*GONE)])
    assert float(out[0].gain) == 1.0
    assert out[0].tokens.shape == (1, N)


def test_a_chunk_that_the_sender_left_out_is_not_a_loss():
    out, state = play(recovery(), [chunk(*(UNSENT,) * N)] * 12)
    assert all(float(r.gain) == 1.0 for r in out)
    assert int(state.lost) == 0


def test_a_delay_gives_the_chunk_before():
    lm = recovery(LmSettings(delay=1), MOSHI)
    assert lm.delay == 1
    chunks = [chunk(RECEIVED, RECEIVED, LOST, LOST, RECEIVED), chunk(*GOOD), chunk(*GOOD)]
    out, _ = play(lm, chunks)
    assert float(out[0].gain) == 0.0
    assert not out[0].weight.any()
    received = chunks[0][1] == RECEIVED
    assert torch.equal(out[1].tokens[received], chunks[0][0][received])
    assert torch.equal(out[2].tokens, chunks[1][0])
    assert recovery(config=MOSHI).delay == 0


def test_ragged_streams_share_a_batch():
    lm = recovery(LmSettings(sampling=Sampling(temperature=1.0, seed=5)))
    a, b = chunk(*GONE), chunk(RECEIVED, LOST, RECEIVED, LOST, LOST)
    alone, _ = play(lm, [a, a, a, b])
    state = None
    tokens, status = torch.cat([a[0], b[0]]), torch.cat([a[1], b[1]])
    for _ in range(3):
        _, state = lm.step(tokens, status, state, stepping=torch.tensor([True, False]))
    assert state is not None
    assert state.lost.tolist() == [3, 0]
    both, state = lm.step(torch.cat([b[0], b[0]]), torch.cat([b[1], b[1]]), state)
    assert torch.equal(both.tokens[0], alone[3].tokens[0])
    assert torch.equal(both.tokens[1], play(lm, [b])[0][0].tokens[0])
    state = lm.restart(state, torch.tensor([True, False]))
    assert state.model.window.position.tolist() == [0, 1]


def test_refuses_what_makes_no_sense():
    with pytest.raises(InputError, match="codebook"):
        LmSettings(deepest=0)
    with pytest.raises(InputError, match="codebook"):
        LmSettings(imagined=0)
    with pytest.raises(InputError, match="needs no delay"):
        recovery(LmSettings(delay=1))
    with pytest.raises(InputError, match="0 or 1"):
        LmSettings(delay=2)
    with pytest.raises(InputError, match="confidence"):
        LmSettings(confidence=-1)
    with pytest.raises(InputError, match="weight of 0 to 1"):
        LmSettings(invented=1.5)
    with pytest.raises(InputError, match="fade"):
        Fade(fall=0)
    with pytest.raises(InputError, match="fade"):
        Fade(rise=0)
    with pytest.raises(InputError, match="temperature"):
        Sampling(temperature=-1)
    with pytest.raises(InputError, match="top_k"):
        Sampling(top_k=-1)
