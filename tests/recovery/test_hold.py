import itertools

import torch

from semaphone.recovery.base import TokenStatus
from semaphone.recovery.hold import FADE, HoldRecovery, NoRecovery

R, L, U, X = TokenStatus.RECEIVED, TokenStatus.LOST, TokenStatus.UNSENT, TokenStatus.UNKNOWN


def run(recovery, statuses):
    """Three codebooks whose tokens count up with the chunks."""
    state, found = None, []
    for n, status in enumerate(statuses):
        tokens = torch.full((1, 3), n + 1)
        recovered, state = recovery.step(tokens, torch.tensor([[int(s) for s in status]]), state)
        found.append(recovered)
    return found


def test_received_tokens_come_out_untouched():
    for recovery in (HoldRecovery(), NoRecovery()):
        for recovered in run(recovery, [(R, R, R)] * 3):
            assert (recovered.weight == 1).all()
        assert recovered.tokens.tolist() == [[3, 3, 3]]


def test_hold_repeats_the_last_token_and_fades():
    found = run(HoldRecovery(), [(R, R, R), (R, L, R), (R, X, U)])
    assert found[1].tokens.tolist() == [[2, 1, 2]]
    torch.testing.assert_close(found[1].weight, torch.tensor([[1.0, FADE, 1.0]]))
    assert found[2].tokens[0, :2].tolist() == [3, 1]
    torch.testing.assert_close(found[2].weight, torch.tensor([[1.0, FADE**2, 0.0]]))


def test_none_leaves_them_out():
    assert run(NoRecovery(), [(R, L, U)])[0].weight.tolist() == [[1.0, 0.0, 0.0]]


def test_nothing_before_the_first_chunk():
    assert run(HoldRecovery(), [(X, X, X)])[0].weight.tolist() == [[0.0, 0.0, 0.0]]


def test_long_losses_fade_out_and_come_back():
    found = run(HoldRecovery(), [(R, R, R), *[(X, X, X)] * 12, (R, L, L)])
    gains = [float(chunk.gain) for chunk in found]
    assert gains[:3] == [1.0, 1.0, 1.0]
    assert all(b < a for a, b in itertools.pairwise(gains[2:13]))
    assert gains[12] < 0.01
    assert gains[13] == 1.0


def test_silence_that_was_not_sent_is_no_loss():
    assert [float(c.gain) for c in run(HoldRecovery(), [(U, U, U)] * 20)] == [1.0] * 20
