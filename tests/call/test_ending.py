from __future__ import annotations

import asyncio
import os
import signal

import pytest

from semaphone.call.ending import Ending


@pytest.fixture(autouse=True)
def _handlers_come_back():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_ends_and_more_change_nothing(number) -> None:
    calls: list[str] = []

    async def scenario() -> None:
        over = asyncio.get_running_loop().create_future()

        def end() -> None:
            calls.append("end")
            over.set_result(None)

        ending.calls(end)
        for one in (number, number, signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), one)
        await asyncio.wait_for(over, 5)

    with Ending() as ending:
        asyncio.run(scenario())
        os.kill(os.getpid(), number)
    os.kill(os.getpid(), number)  # until the process ends, nothing is interrupted
    assert calls == ["end"]


def test_a_signal_that_comes_early_counts() -> None:
    calls: list[str] = []

    async def scenario() -> None:
        ending.calls(lambda: calls.append("end"))

    with Ending() as ending:
        os.kill(os.getpid(), signal.SIGTERM)
        asyncio.run(scenario())
    assert calls == ["end"]


def test_without_a_signal_all_is_as_before() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    before = signal.getsignal(signal.SIGINT)
    with Ending():
        assert signal.getsignal(signal.SIGINT) is not before
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # nohup
    assert signal.getsignal(signal.SIGINT) is before
