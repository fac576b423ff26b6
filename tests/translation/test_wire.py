"""Devices and edges over gRPC: the single command's result, many talks, deaths, tokens, addresses, forged messages."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
from tests.translation.fake import WIDTH, FakeModel, voice
from tests.translation.test_chain import PlainSymbols

from semaphone.channel.fading import FadingChannel
from semaphone.errors import InputError
from semaphone.translation.chain import Chain
from semaphone.translation.device import SpeakingDevice
from semaphone.translation.radio import Radio
from semaphone.translation.segmenter import Segmenter, SegmenterConfig

pytest.importorskip("grpc")

from semaphone.translation.wire import service
from semaphone.translation.wire import talk_pb2 as pb
from semaphone.translation.wire.client import listen, opening, speak
from semaphone.translation.wire.messages import burst_message, read_burst, read_upload
from semaphone.translation.wire.security import Security, is_loopback, split_address
from semaphone.translation.wire.service import Edge, EdgeConfig

SEGMENTS = SegmenterConfig(mode="fixed", speech=0.0)
PLAIN = Security()
RADIO = Radio(PlainSymbols(), FadingChannel("rayleigh", 12.0))


def an_edge(peer: str = "", radio: Radio = RADIO, **settings: Any) -> Edge:
    edge = Edge(EdgeConfig("127.0.0.1:0", peer, patience=5.0, **settings), lambda _: FakeModel(), radio)
    edge.start()
    return edge


@pytest.fixture
def edges():
    far = an_edge()
    near = an_edge(f"127.0.0.1:{far.port}")
    yield f"127.0.0.1:{near.port}", f"127.0.0.1:{far.port}", near, far
    near.stop()
    far.stop()


def device() -> SpeakingDevice:
    return SpeakingDevice(FakeModel(), Segmenter(SEGMENTS))


def first_message(talk: str, seed: int = 0) -> Any:
    return opening(talk, "fra", "eng", "fake", seed, "left", "none")


def wait_for(condition: Any, seconds: float = 10.0) -> None:
    """Looks until something is true."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)


class Listener(threading.Thread):
    """Listens to a talk and keeps what came, or the error."""

    def __init__(self, address: str, talk: str) -> None:
        super().__init__(daemon=True)
        self.address, self.talk = address, talk
        self.texts: list[str] = []
        self.error = ""
        self.start()

    def run(self) -> None:
        try:
            for phrase in listen(self.address, PLAIN, self.talk):
                self.texts.append(phrase.text)
        except InputError as error:
            self.error = str(error)


def test_processes_give_the_single_commands_result(edges, rng):
    near, far, _, _ = edges
    x = voice(2.6, rng)
    alone = Chain(FakeModel(), RADIO, SEGMENTS).run([x], seed=7)
    listener = Listener(far, "a")
    receipt = speak(near, PLAIN, first_message("a", seed=7), device(), np.array_split(x, 9))
    listener.join(10)
    assert "".join(listener.texts) == "".join(step.text.strip() for step in alone.steps)
    assert receipt.symbols == sum(step.symbols for step in alone.steps)
    assert receipt.segments == len(alone.steps)


def test_talks_do_not_mix(edges):
    near, far, _, _ = edges
    inputs = {f"talk {i}": voice(1.5 + 0.1 * i, np.random.default_rng(i)) for i in range(4)}
    listeners = {name: Listener(far, name) for name in inputs}
    speakers = [
        threading.Thread(target=speak, args=(near, PLAIN, first_message(name), device(), [x]))
        for name, x in inputs.items()
    ]
    for thread in speakers:
        thread.start()
    for thread in [*speakers, *listeners.values()]:
        thread.join(20)
    for name, x in inputs.items():
        alone = Chain(FakeModel(), RADIO, SEGMENTS).run([x])
        assert "".join(listeners[name].texts) == "".join(step.text.strip() for step in alone.steps)


def test_a_speaker_that_dies_ends_its_own_talk_only(edges, rng):
    near, far, _, _ = edges
    dying, living = Listener(far, "dying"), Listener(far, "living")

    def breaks():
        yield voice(1.6, rng)
        wait_for(lambda: dying.texts)
        raise RuntimeError("the device lost its power")

    with pytest.raises(InputError):
        speak(near, PLAIN, first_message("dying"), device(), breaks())
    dying.join(10)
    assert "went away" in dying.error
    speak(near, PLAIN, first_message("living"), device(), [voice(1.6, rng)])
    living.join(10)
    assert living.error == ""
    assert len(living.texts) == 3


def test_a_far_edge_that_dies_is_named(edges, rng):
    near, far, _, server = edges
    listener = Listener(far, "x")

    def blocks():
        yield voice(1.6, rng)
        server.stop()
        for _ in range(40):
            time.sleep(0.05)
            yield voice(0.8, rng)

    with pytest.raises(InputError, match="went away"):
        speak(near, PLAIN, first_message("x"), device(), blocks())
    listener.join(10)
    assert listener.error


def test_a_near_edge_that_dies_is_named(edges, rng):
    near, far, server, _ = edges
    listener = Listener(far, "y")

    def blocks():
        yield voice(1.6, rng)
        server.stop()
        for _ in range(40):
            time.sleep(0.05)
            yield voice(0.8, rng)

    with pytest.raises(InputError):
        speak(near, PLAIN, first_message("y"), device(), blocks())
    listener.join(10)
    assert "went away" in listener.error


def test_a_listener_that_dies_ends_the_talk(edges, rng):
    near, far, _, _ = edges
    phrases = listen(far, PLAIN, "z")

    def blocks():
        for i in range(60):
            yield voice(0.8, rng)
            if i == 2:
                next(phrases)
                phrases.close()
            time.sleep(0.02)

    with pytest.raises(InputError, match="listening device of talk z went away"):
        speak(near, PLAIN, first_message("z"), device(), blocks())


def test_nobody_listens(rng):
    far = an_edge(queue_length=1)
    far.config.__dict__["patience"] = 0.5
    near = an_edge(f"127.0.0.1:{far.port}")
    try:
        with pytest.raises(InputError, match="Nobody takes the phrases"):
            speak(f"127.0.0.1:{near.port}", PLAIN, first_message("q"), device(), [voice(4.0, rng)])
    finally:
        near.stop()
        far.stop()


def test_token(tmp_path, rng):
    (tmp_path / "token").write_text("a long and secret word\n")
    (tmp_path / "other").write_text("another long secret word\n")
    (tmp_path / "short").write_text("abc")
    edge = an_edge(security=Security(token_file=str(tmp_path / "token")))
    address = f"127.0.0.1:{edge.port}"
    try:
        for wrong in (PLAIN, Security(token_file=str(tmp_path / "other"))):
            with pytest.raises(InputError, match="token is missing or wrong"):
                list(listen(address, wrong, "t"))
        with pytest.raises(InputError, match="no far edge"):
            speak(address, Security(token_file=str(tmp_path / "token")), first_message("t"), device(), [])
        with pytest.raises(InputError, match="16 characters"):
            list(listen(address, Security(token_file=str(tmp_path / "short")), "t"))
    finally:
        edge.stop()


def test_beyond_this_machine_only_with_tls_and_token():
    with pytest.raises(InputError, match="needs --tls-cert"):
        Edge(EdgeConfig("0.0.0.0:0"), lambda _: FakeModel(), Radio()).start()
    with pytest.raises(InputError, match="needs --tls-ca"):
        list(listen("192.0.2.1:7000", PLAIN, "t"))


def test_addresses():
    assert split_address("[::1]:7000") == ("::1", 7000)
    assert is_loopback("localhost:1")
    assert not is_loopback("0.0.0.0:1")
    for bad in ("nowhere", "host:", ":7000", "h:99999"):
        with pytest.raises(InputError, match="HOST:PORT"):
            split_address(bad)


def test_an_edge_that_is_not_there():
    with pytest.raises(InputError, match="cannot be reached"):
        list(listen("127.0.0.1:9", PLAIN, "t"))


def test_too_many_talks(rng):
    far = an_edge()
    near = an_edge(f"127.0.0.1:{far.port}", most_talks=1)
    address, started = f"127.0.0.1:{near.port}", threading.Event()

    def slow():
        yield voice(0.8, rng)
        started.set()
        time.sleep(1.0)

    Listener(f"127.0.0.1:{far.port}", "one")
    thread = threading.Thread(target=speak, args=(address, PLAIN, first_message("one"), device(), slow()))
    thread.start()
    started.wait(5)
    time.sleep(0.2)
    try:
        with pytest.raises(InputError, match="already has 1 talks"):
            speak(address, PLAIN, first_message("two"), device(), [voice(0.8, rng)])
    finally:
        thread.join(10)
        near.stop()
        far.stop()


class Frozen:
    """Devices that open a talk, or not even that, and say no more."""

    def __init__(self, address: str, count: int, opens: bool = True) -> None:
        import grpc

        self.over = threading.Event()
        self.channel = grpc.insecure_channel(address)
        method = self.channel.stream_unary(
            "/semaphone.talk.v1.Edge/Speak", lambda m: bytes(m.SerializeToString()), pb.Receipt.FromString
        )
        self.calls = [method.future(self.requests(i, opens)) for i in range(count)]

    def requests(self, number: int, opens: bool):
        if opens:
            yield pb.SpeakRequest(open=first_message(f"frozen {number}"))
        self.over.wait(60)

    def close(self) -> None:
        self.over.set()
        for call in self.calls:
            call.cancel()
        self.channel.close()


@pytest.mark.parametrize("opens", [True, False])
def test_devices_that_freeze_give_way(edges, rng, monkeypatch, opens):
    near, far, server, _ = edges
    monkeypatch.setattr(service, "QUIET", 0.5)
    frozen = Frozen(near, server.config.most_talks, opens)
    try:
        wait_for(lambda: server._running == server.config.most_talks)
        time.sleep(0.6)
        listener = Listener(far, "alive")
        speak(near, PLAIN, first_message("alive"), device(), [voice(1.6, rng)])
        listener.join(10)
        assert len(listener.texts) == 3
        wait_for(lambda: any(call.done() for call in frozen.calls))
        ended = next(call for call in frozen.calls if call.done())
        assert "somebody else needed the place" in ended.details()
    finally:
        frozen.close()


@pytest.mark.parametrize(("opens", "limit"), [(True, "silence"), (False, "patience")])
def test_devices_that_freeze_lose_their_places_after_some_time(edges, opens, limit):
    near, _, server, _ = edges
    server.config.__dict__[limit] = 0.6
    frozen = Frozen(near, 3, opens)
    try:
        wait_for(lambda: server._running == 3, 2)
        wait_for(lambda: all(call.done() for call in frozen.calls))
        assert {call.details() for call in frozen.calls} == {"Nothing came for 0.6 s."}
        wait_for(lambda: server._running == 0)
        assert (server._running, dict(server._clients)) == (0, {})
    finally:
        frozen.close()


def test_one_address_has_some_talks_only(edges, rng):
    near, _, server, _ = edges
    server.config.__dict__["most_per_client"] = 2
    frozen = Frozen(near, 2)
    try:
        wait_for(lambda: server._running == 2)
        with pytest.raises(InputError, match="already has 2 talks of this address"):
            speak(near, PLAIN, first_message("third"), device(), [voice(0.8, rng)])
    finally:
        frozen.close()


def test_listeners_that_wait_block_nobody(edges, rng):
    near, far, _, server = edges
    waiting = [Listener(far, f"never {i}") for i in range(40)]
    wait_for(lambda: sum(bool(one.error) for one in waiting) == 32)
    assert {one.error for one in waiting if one.error} == {"Too many devices listen, or wait for a talk to begin."}

    def blocks():
        yield voice(1.6, rng)
        wait_for(lambda: "alive" in server._talks)
        heard.append(Listener(far, "alive"))
        yield voice(0.8, rng)

    heard: list[Listener] = []
    speak(near, PLAIN, first_message("alive"), device(), blocks())
    heard[0].join(10)
    assert len(heard[0].texts) == 4
    assert heard[0].error == ""


def test_talks_that_nobody_heard_make_room(edges, rng):
    near, _, _, server = edges
    for i in range(4 * server.config.most_talks + 2):
        speak(near, PLAIN, first_message(f"talk {i}"), device(), [voice(0.8, rng)])
    assert len(server._talks) <= 4 * server.config.most_talks


class Choosy(FakeModel):
    """Cannot do with long segments, and says so with an error of its own."""

    def extract(self, upload: Any, state: Any) -> Any:
        if upload.end - upload.start > 16_000:
            raise ValueError("expected an input with shape (1, 80, 3000)")
        return super().extract(upload, state)


def test_what_a_model_cannot_do_with_is_a_sentence(rng):
    far = an_edge()
    near = Edge(EdgeConfig("127.0.0.1:0", f"127.0.0.1:{far.port}", patience=5.0), lambda _: Choosy(), RADIO)
    address = f"127.0.0.1:{near.start()}"
    try:
        long = SpeakingDevice(FakeModel(), Segmenter(SegmenterConfig(mode="fixed", first=30.0, speech=0.0)))
        with pytest.raises(InputError, match="Segment 0 of talk long cannot be translated"):
            speak(address, PLAIN, first_message("long"), long, [voice(31.0, rng)])
        listener = Listener(f"127.0.0.1:{far.port}", "short")
        speak(address, PLAIN, first_message("short"), device(), [voice(0.8, rng)])
        listener.join(10)
        assert len(listener.texts) == 2
    finally:
        near.stop()
        far.stop()


def test_what_a_device_cannot_read_is_said(edges):
    def damaged():
        yield np.zeros(100, np.float32)
        raise InputError("talk.wav is damaged after 0.1 s.")

    with pytest.raises(InputError, match=r"talk\.wav is damaged"):
        speak(edges[0], PLAIN, first_message("damaged"), device(), damaged())


def test_a_broken_name_can_be_used_again(edges, rng):
    near, far, _, server = edges

    def breaks():
        yield voice(0.8, rng)
        wait_for(lambda: "again" in server._talks)
        raise RuntimeError("the device lost its power")

    with pytest.raises(InputError):
        speak(near, PLAIN, first_message("again"), device(), breaks())
    wait_for(lambda: server._talks["again"].error)
    speak(near, PLAIN, first_message("again"), device(), [voice(0.8, rng)])
    assert len(list(listen(far, PLAIN, "again"))) == 2


@pytest.mark.parametrize(
    "message",
    [
        pb.Burst(rows=2, plain=True, symbols=b"123"),
        pb.Burst(rows=2, symbols=b"x" * 16, gains=b"x" * 16),
        pb.Burst(rows=9999, plain=True),
        pb.Burst(rows=1, plain=True, symbols=np.full(WIDTH, np.nan, "<f4").tobytes()),
        pb.Burst(rows=0, plain=True, scale=float("inf")),
        pb.Burst(rows=0, plain=True, snr_db=1e9),
        pb.Burst(rows=0),
        pb.Burst(rows=1, symbols=bytes(4 * WIDTH), gains=np.full(WIDTH, np.nan, "<f4").tobytes()),
        pb.Burst(rows=1, symbols=np.full(WIDTH, 1e30, "<f4").tobytes(), gains=bytes(4 * WIDTH)),
    ],
)
def test_forged_bursts_are_refused(message):
    with pytest.raises(InputError):
        read_burst(message, WIDTH, WIDTH // 2)


def test_forged_uploads_are_refused():
    for message in (
        pb.Upload(start=5, end=1),
        pb.Upload(silent=True, payload=b"x"),
        pb.Upload(start=5, end=2**63),
        pb.Upload(start=5, end=6 + 30 * 16_000),
    ):
        with pytest.raises(InputError):
            read_upload(message)


def test_bursts_go_there_and_back(rng):
    from semaphone.translation.edge import NearEdge

    near = NearEdge(FakeModel(), RADIO)
    uploads, _ = device().step(voice(0.8, rng), device().start())
    airs, _ = near.step(uploads[0], near.start(1))
    again = read_burst(pb.Burst.FromString(burst_message(airs[0]).SerializeToString()), WIDTH, WIDTH // 2)
    assert again.scale == airs[0].scale
    assert again.received is not None
    assert airs[0].received is not None
    assert np.array_equal(again.received.symbols, airs[0].received.symbols)
    assert again.header_bits == 60
