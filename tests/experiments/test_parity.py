"""XOR parity as a rival of repeated tokens."""

from __future__ import annotations

import numpy as np
import pytest
from tests.codec.tiny import tiny_model

from semaphone.channel.erasure import parse_channel
from semaphone.codec.nano_weights import save_nano
from semaphone.controller.registry import ControllerSpec
from semaphone.experiments.parity import ParitySystem, recovered
from semaphone.experiments.systems import LinkSystem


def known(arrived: str, parities, chunks: int) -> list[bool]:
    horizon = max(age for ages in parities for age in ages)
    return [here for here, _ in recovered([c == "1" for c in arrived], parities, chunks, horizon)]


def test_a_parity_gives_back_a_chunk_of_which_it_knows_the_others() -> None:
    assert known("1011" + "11", ((1, 2),), 4) == [True, True, True, True]
    assert known("1001" + "11", ((1, 2),), 4) == [True, False, True, True]  # too late: packet 4 gives 2, and it 1
    assert known("1001" + "00", ((1, 2),), 4) == [True, False, False, True]
    assert known("0111", ((1,),), 3) == [True, True, True]
    assert known("0011", ((1,),), 3) == [False, True, True]
    assert known("1000011", ((1, 2), (1, 3)), 4) == [True, False, True, True]
    assert known("1000111", ((1, 2), (1, 3)), 4) == [True, False, True, True]  # packet 5 gives 1, too, after it was due
    assert known("1001100", ((1, 2), (1, 3)), 4) == [True, True, True, True]


def test_parities_of_one_chunk_are_copies(tmp_path) -> None:
    """The same chunks are lost as with a history, and the same is heard."""
    save_nano(tiny_model(), tmp_path / "tiny.safetensors", {})
    path = str(tmp_path / "tiny.safetensors")
    speech = (0.1 * np.random.default_rng(0).standard_normal(40_000)).astype(np.float32)
    channel = parse_channel("uniform:0.4")
    spec = ControllerSpec("fixed", history=(8, 8, 8))
    history = LinkSystem("a", "a", path, "hold", spec, schedule="history", horizon=2)
    parity = ParitySystem("b", "b", path, "hold", 8, ((1,), (2,)))
    ours, theirs = history.send(speech, channel, 3), parity.send(speech, channel, 3)
    np.testing.assert_allclose(ours.speech, theirs.speech, atol=1e-4)
    assert ours.chunk_loss == theirs.chunk_loss
    assert ours.chunk_loss
    assert ours.delay_ms == theirs.delay_ms == 260
    assert (ours.packets_sent, ours.packets_lost) == (theirs.packets_sent, theirs.packets_lost)
    assert theirs.payload_bps == pytest.approx(ours.payload_bps, rel=0.06)
    assert parity.identity(channel) != ParitySystem("b", "b", path, "hold", 8, ((1,), (3,))).identity(channel)
