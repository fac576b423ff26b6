from __future__ import annotations

import threading
import time

import pytest
import torch
from tests.codec.tiny import tiny_codec

from semaphone.computing import OneCore


@pytest.fixture(autouse=True)
def _two_threads():
    """What an embedding program has set."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.set_flush_denormal(False)
    yield
    torch.set_num_threads(before)


def denormal() -> float:
    return float((torch.tensor([1e-310], dtype=torch.float64) * 0.5)[0])


def test_settings_hold_inside_and_are_set_back() -> None:
    assert denormal() > 0
    with OneCore():
        assert (torch.get_num_threads(), denormal()) == (1, 0.0)
        with OneCore():
            assert (torch.get_num_threads(), denormal()) == (1, 0.0)
        assert (torch.get_num_threads(), denormal()) == (1, 0.0)
    assert torch.get_num_threads() == 2
    assert denormal() > 0
    with OneCore(streams=4):  # there several threads pay
        assert (torch.get_num_threads(), denormal()) == (2, 0.0)
    assert denormal() > 0


def test_an_error_inside_changes_nothing() -> None:
    with pytest.raises(KeyError), OneCore():
        raise KeyError
    assert torch.get_num_threads() == 2
    assert denormal() > 0


def test_a_process_that_flushes_goes_on_to_do_so() -> None:
    torch.set_flush_denormal(True)
    torch.set_num_threads(1)
    with OneCore():
        pass
    assert (torch.get_num_threads(), denormal()) == (1, 0.0)


def test_computations_in_several_threads_leave_what_was_set() -> None:
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with OneCore():
            entered.set()
            leave.wait(60)

    thread = threading.Thread(target=other)
    with OneCore():
        thread.start()
        entered.wait(60)
    leave.set()
    thread.join()
    with OneCore():
        pass
    assert torch.get_num_threads() == 2


def test_the_codec_computes_so_wherever_it_is_called_from() -> None:
    codec = tiny_codec()
    seen = []
    for name in ("encoder", "decoder"):
        part = getattr(codec.model, name)
        part.register_forward_pre_hook(lambda *_: seen.append((torch.get_num_threads(), denormal())))
    encoded = codec.encode(torch.zeros(1, 1280))
    codec.decode(encoded.tokens)
    assert seen == [(1, 0.0)] * 2
    assert torch.get_num_threads() == 2
    assert denormal() > 0


def test_silence_takes_no_longer_than_noise() -> None:
    """What denormal numbers and waiting threads cost where nobody had set anything: 3 to 80 times as much."""
    codec = tiny_codec()

    def seconds(speech: torch.Tensor) -> float:
        state, began = None, time.perf_counter()
        for _ in range(40):
            encoded = codec.encode(speech, state)
            state = encoded.state
        return time.perf_counter() - began

    noise, silence = 0.1 * torch.randn(1, 1280), torch.zeros(1, 1280)
    seconds(noise)
    assert min(seconds(silence) for _ in range(3)) < 3 * min(seconds(noise) for _ in range(3))
