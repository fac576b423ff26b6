from __future__ import annotations

import asyncio

import numpy as np
from tests.call.ends import Ear, voice

from semaphone.call.jitter_buffer import Due, JitterBuffer, JitterConfig
from semaphone.call.listener import Listener
from semaphone.call.report import Delays


def play(offsets: list[float], **options) -> tuple[Listener, Ear]:
    """Plays blocks whose times lie so many s from now."""
    ear = Ear()

    async def scenario() -> Listener:
        loop = asyncio.get_running_loop()
        listener = Listener(voice(), ear, Delays())
        await listener.warm_up()
        buffer = JitterBuffer(JitterConfig(listener.voice.form, 16000), 7)
        now = loop.time()
        for i, offset in enumerate(offsets):
            values = {"samples": 2560, "silent": False, **options}
            await listener._play(buffer, Due(i, (None, None), now + offset - 0.02, now + offset, **values))
        listener.close()
        return listener

    return asyncio.run(scenario()), ear


def test_blocks_follow_one_another() -> None:
    listener, ear = play([100.0, 100.16, 100.32])
    assert [len(part) for part in ear.heard] == [1280] * 6  # chunk by chunk
    assert (listener.played, listener.too_late, listener.skipped) == (3, 0, 0)
    assert {"decoder", "decoder_wait", "playout"} == set(listener.delays.stages)
    assert ear.closed


def test_an_interruption_is_silence_of_the_same_length() -> None:
    _, ear = play([100.0, 101.16])
    assert [len(part) for part in ear.heard] == [1280, 1280, 16000, 1280, 1280]
    assert not ear.heard[2].any()


def test_what_goes_on_earlier_loses_its_beginning() -> None:
    _, ear = play([100.0, 100.06])
    assert [len(part) for part in ear.heard if len(part)] == [1280, 1280, 960]


def test_stretched_blocks_last_longer() -> None:
    listener, ear = play([100.0], samples=2720)
    assert [len(part) for part in ear.heard] == [1280, 1440]  # the second chunk takes it up
    assert listener.stretched == 1


def test_what_nobody_can_hear_any_more_is_not_decoded() -> None:
    listener, ear = play([-5.0, 100.0])
    assert (listener.skipped, listener.played) == (1, 1)
    assert [len(part) for part in ear.heard] == [1280, 1280]


def test_a_pause_is_comfort_noise() -> None:
    listener, ear = play([100.0], silent=True)
    assert listener.silent == 1
    assert [len(part) for part in ear.heard] == [2560]
    assert np.abs(ear.heard[0]).max() == 0  # nothing was heard yet that could be imitated


def test_a_far_side_that_begins_anew_keeps_its_fresh_state() -> None:
    async def scenario() -> None:
        listener = Listener(voice(), Ear(), Delays())
        due = Due(0, (None, None), 0.0, 100.0, samples=2560, silent=False)
        pieces = listener._render(due, 0, 2560)
        next(pieces)
        assert listener._state is not None
        listener.start(listener.voice.form, 8)
        assert [piece.samples for piece in pieces] == [1280]
        assert listener._state is None
        listener.close()

    asyncio.run(scenario())
