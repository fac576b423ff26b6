"""An edge as a gRPC server: near edge for the talks of its devices, far edge for those of its peer.

Every talk has queues of bounded length and a state of its own. When a device or an edge dies, its own talk ends
with a sentence on every machine that took part; other talks don't notice. A device that falls silent loses its place
after some time, and at once if another one needs it.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any

from semaphone.errors import InputError, SemaphoneError
from semaphone.translation.edge import FarEdge, FarState, NearEdge
from semaphone.translation.models.base import TranslationModel
from semaphone.translation.radio import Radio, check_widths
from semaphone.translation.wire import talk_pb2 as pb
from semaphone.translation.wire.messages import (
    LONGEST_MESSAGE,
    burst_message,
    phrase_message,
    read_burst,
    read_upload,
)
from semaphone.translation.wire.requests import TICK, Requests
from semaphone.translation.wire.security import Security, import_grpc

SERVICE = "semaphone.talk.v1.Edge"
OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", LONGEST_MESSAGE),
    ("grpc.max_send_message_length", LONGEST_MESSAGE),
    ("grpc.so_reuseport", 0),  # a second edge on the same port is a mistake, not a helper
    # Who does not answer a ping is gone, even if nobody has closed the connection.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
]
QUIET = 10.0  # s without a message, after which a device gives way to another one
_END = object()


@dataclass(frozen=True)
class EdgeConfig:
    """Settings of an edge."""

    listen: str = "127.0.0.1:7000"  # HOST:PORT; port 0 takes a free one
    peer: str = ""  # HOST:PORT of the far edge, for talks of this edge's own devices
    most_talks: int = 8  # at the same time, near and far together
    queue_length: int = 32  # bursts or phrases that may wait in a talk
    patience: float = 30.0  # s to wait for a listener, for a full queue, or for the opening of a talk
    silence: float = 45.0  # s to wait for a device; segments last 30 s at the most, and silent ones are sent, too
    most_per_client: int = 0  # talks of the devices of one address; 0: half of all, but all on this machine
    security: Security = field(default_factory=Security)

    def __post_init__(self) -> None:
        if not 1 <= self.most_talks <= 256 or not 1 <= self.queue_length <= 4096 or not 0 < self.patience <= 3600:
            raise InputError("An edge takes 1 to 256 talks, queues of 1 to 4096, and patience up to an hour.")
        if not 0 < self.silence <= 3600 or not 0 <= self.most_per_client <= 256:
            raise InputError("An edge waits up to an hour for a device, and takes up to 256 talks of one address.")


def said_by_edge(code: Any) -> bool:
    """Whether a status comes with a sentence of an edge; others come from a broken connection."""
    return str(code.name) in ("ABORTED", "INVALID_ARGUMENT", "UNAUTHENTICATED", "RESOURCE_EXHAUSTED", "NOT_FOUND")


class _FarTalk:
    """A talk at the far edge: phrases on their way to the listener."""

    def __init__(self, length: int) -> None:
        self.phrases: queue.Queue[Any] = queue.Queue(length)
        self.listener = threading.Event()  # a listener has come
        self.gone = threading.Event()  # ... and has left before the end
        self.opened = threading.Event()  # the near edge has opened the talk
        self.complete = threading.Event()  # ... and all of it has come
        self.error = ""


class Edge:
    """The service; `model_for(open)` gives the model of a talk, `radio` the code and the simulated channel."""

    def __init__(self, config: EdgeConfig, model_for: Callable[[Any], TranslationModel], radio: Radio) -> None:
        if radio.code is not None and not hasattr(radio.code, "decode"):
            raise InputError("The digital code is a bound, not a waveform: it cannot cross between processes.")
        self.config, self._model_for, self._radio = config, model_for, radio
        self._talks: dict[str, _FarTalk] = {}
        self._lock = threading.Lock()
        self._running = self._listening = self._early = 0  # talks, listeners, and those of no talk yet
        self._clients: Counter[str] = Counter()  # talks of devices, by address
        self._speaking: dict[Requests, str] = {}  # with their addresses
        self._server: Any = None
        self.port = 0

    # ---- life ----

    def start(self) -> int:
        """Listens; returns the port."""
        grpc = import_grpc()
        credentials = self.config.security.server_credentials(self.config.listen)
        pool = futures.ThreadPoolExecutor(3 * self.config.most_talks + 4)
        self._server = grpc.server(pool, options=OPTIONS, maximum_concurrent_rpcs=3 * self.config.most_talks + 4)
        self._server.add_generic_rpc_handlers((self._handlers(grpc),))
        try:
            if credentials is None:
                self.port = self._server.add_insecure_port(self.config.listen)
            else:
                self.port = self._server.add_secure_port(self.config.listen, credentials)
        except RuntimeError:
            raise InputError(f"{self.config.listen} cannot be listened on; is another program there?") from None
        self._server.start()
        return int(self.port)

    def wait(self) -> None:
        """Runs until stopped."""
        self._server.wait_for_termination()

    def stop(self) -> None:
        """Ends all talks and the server."""
        if self._server is not None:
            self._server.stop(grace=0.5).wait()

    def _handlers(self, grpc: Any) -> Any:
        def reply(message: Any) -> bytes:
            return bytes(message.SerializeToString())

        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Speak": grpc.stream_unary_rpc_method_handler(self.speak, pb.SpeakRequest.FromString, reply),
                "Carry": grpc.stream_unary_rpc_method_handler(self.carry, pb.CarryRequest.FromString, reply),
                "Listen": grpc.unary_stream_rpc_method_handler(self.listen, pb.ListenRequest.FromString, reply),
            },
        )

    # ---- near edge ----

    def speak(self, requests: Iterator[Any], context: Any) -> Any:
        """Uploads of a device → bursts to the far edge."""
        self._authenticate(context)
        client = self._client(context)
        self._admit(context, client)
        waited = Requests(requests, context, self.config.patience, self.config.silence)
        with self._lock:
            self._speaking[waited] = client
        try:
            return self._speak(waited)
        except SemaphoneError as error:
            return self._abort(context, "INVALID_ARGUMENT", str(error))
        finally:
            waited.close()
            with self._lock:
                del self._speaking[waited]
            self._leave(client)

    def _speak(self, requests: Iterator[Any]) -> Any:
        opening = self._opening(requests)
        if not self.config.peer:
            raise InputError("This edge has no far edge; start it with --peer.")
        model = self._model_for(opening)
        check_widths(model.info, self._radio)
        near = NearEdge(model, self._radio)
        state, segments = near.start(opening.seed), 0
        with _Carrier(self.config, opening) as carrier:
            ended = False
            for request in requests:
                if request.WhichOneof("part") != "upload":
                    raise InputError("After its opening, a device sends uploads only.")
                upload = read_upload(request.upload)
                with _translating(f"Segment {upload.index} of talk {opening.talk}"):
                    airs, state = near.step(upload, state)
                segments += 1
                for air in airs:
                    carrier.put(pb.CarryRequest(burst=burst_message(air)))
                ended = ended or upload.last
            if not ended:
                carrier.hang_up()
                raise InputError(f"The speaking device of talk {opening.talk} went away.")
            carrier.put(pb.CarryRequest(burst=pb.Burst(talk_ends=True)))
            carrier.finish()
        return pb.Receipt(segments=segments, symbols=state.radio.symbols)

    # ---- far edge ----

    def carry(self, requests: Iterator[Any], context: Any) -> Any:
        """Bursts of the near edge → phrases for the listener."""
        self._authenticate(context)
        self._admit(context)
        waited = Requests(requests, context, self.config.patience, None)  # a pause has no bursts, however long it is
        talk = None
        try:
            opening = self._opening(waited)
            talk = self._open(opening.talk)
            return self._carry(opening, talk, waited)
        except SemaphoneError as error:
            if talk is not None:
                talk.error = str(error)  # kept for a listener who is still to come
            return self._abort(context, "ABORTED", str(error))
        finally:
            waited.close()
            self._leave()

    def _carry(self, opening: Any, talk: _FarTalk, requests: Iterator[Any]) -> Any:
        model = self._model_for(opening)
        check_widths(model.info, self._radio)
        far, state = FarEdge(model, self._radio), FarState()
        per_row = 0 if self._radio.code is None else self._radio.code.symbols_per_row
        for bursts, request in enumerate(requests):
            if request.WhichOneof("part") != "burst":
                raise InputError("After its opening, a near edge sends bursts only.")
            if request.burst.talk_ends:
                self._hand(opening.talk, talk, _END)
                talk.complete.set()
                return pb.Receipt(segments=bursts)
            air = read_burst(request.burst, model.info.row_width, per_row)
            with _translating(f"A part of talk {opening.talk}"):
                phrases, state = far.step(air, state)
            for phrase in phrases:
                self._hand(opening.talk, talk, phrase_message(phrase))
        raise InputError(f"The speaking side of talk {opening.talk} went away.")

    def _hand(self, name: str, talk: _FarTalk, item: Any) -> None:
        """Puts something into the listener's queue; it waits while that is full and the listener lives."""
        waited = 0.0
        while True:
            if talk.gone.is_set():
                raise InputError(f"The listening device of talk {name} went away.")
            try:
                talk.phrases.put(item, timeout=TICK)
            except queue.Full:
                waited += TICK
                if waited > self.config.patience:
                    raise InputError(f"Nobody takes the phrases of talk {name}.") from None
            else:
                return

    # ---- listener ----

    def listen(self, request: Any, context: Any) -> Iterator[Any]:
        """Phrases of a talk as they become certain."""
        self._authenticate(context)
        try:
            talk, early = self._find(request.talk)
        except InputError as error:
            self._abort(context, "RESOURCE_EXHAUSTED", str(error))
            return
        finished = False
        try:
            waited = 0.0
            while context.is_active():
                early = early and not self._has_begun(talk)
                try:
                    item = talk.phrases.get(timeout=TICK)
                except queue.Empty:
                    waited += TICK
                    if talk.error:
                        self._abort(context, "ABORTED", talk.error)
                    if not talk.opened.is_set() and waited > self.config.patience:
                        self._abort(context, "NOT_FOUND", f"Nobody opened talk {request.talk}.")
                    continue
                if item is _END:
                    finished = True
                    return
                yield item
        finally:
            if not finished:
                talk.gone.set()
            self._forget(request.talk, talk, early)

    # ---- keeping order ----

    def _abort(self, context: Any, code: str, sentence: str) -> Any:
        context.abort(getattr(import_grpc().StatusCode, code), sentence)
        return None

    def _authenticate(self, context: Any) -> None:
        if not self.config.security.allows(context.invocation_metadata()):
            self._abort(context, "UNAUTHENTICATED", "The token is missing or wrong.")

    def _client(self, context: Any) -> str:
        """The address of a device, without its port."""
        return str(context.peer()).rpartition(":")[0]

    def _admit(self, context: Any, client: str = "") -> None:
        """Takes a place. A device (of the address `client`) that is silent gives way to one that is not."""
        end = time.monotonic() + (10 if client else 5) * TICK  # the place of a talk that is ending is soon free
        while full := self._take(client):
            if time.monotonic() > end or (client and not self._displace(client if "address" in full else "")):
                self._abort(context, "RESOURCE_EXHAUSTED", full)
            time.sleep(TICK)

    def _take(self, client: str) -> str:
        """Nothing, or a sentence if there is no place."""
        config = self.config
        local = client.endswith(("127.0.0.1", "::1]", "::1%5D"))
        most = config.most_per_client or (config.most_talks if local else max(config.most_talks // 2, 1))
        with self._lock:
            if self._running >= config.most_talks:
                return f"This edge already has {config.most_talks} talks."
            if client and self._clients[client] >= most:
                return f"This edge already has {most} talks of this address."
            self._running += 1
            if client:
                self._clients[client] += 1
        return ""

    def _displace(self, client: str) -> bool:
        """Ends the talk of the device (of an address) that is silent for longest; False if all speak."""
        with self._lock:
            candidates = [requests for requests, one in self._speaking.items() if client in ("", one)]
        longest = max(candidates, key=lambda requests: requests.quiet_for, default=None)
        if longest is None or longest.quiet_for < QUIET:
            return False
        longest.displace()
        return True

    def _leave(self, client: str = "") -> None:
        with self._lock:
            self._running -= 1
            if client:
                self._clients[client] -= 1
                self._clients += Counter()  # forgets those without talks

    def _opening(self, requests: Iterator[Any]) -> Any:
        for first in requests:
            if first.WhichOneof("part") == "open" and 0 < len(first.open.talk) <= 128:
                return first.open
            break
        raise InputError("A talk starts with an opening that names it in 1 to 128 characters.")

    def _open(self, name: str) -> _FarTalk:
        with self._lock:
            before = self._talks.get(name)
            if before is not None and before.error and not before.listener.is_set():
                del self._talks[name]  # it broke and nobody came to hear of it: the name is free again
            self._make_room(name)
            talk = self._talks.setdefault(name, _FarTalk(self.config.queue_length))
            if talk.opened.is_set():
                raise InputError(f"Talk {name} is already going on.")
            talk.opened.set()
        return talk

    def _make_room(self, name: str) -> None:
        """Bounds the talks that wait for one of their sides; those that are over go first."""
        if name in self._talks or len(self._talks) < 4 * self.config.most_talks:
            return
        for other, talk in list(self._talks.items()):
            if (talk.error or talk.complete.is_set()) and not talk.listener.is_set():
                del self._talks[other]
        if len(self._talks) >= 4 * self.config.most_talks:
            raise InputError("Too many talks wait for their other side.")

    def _find(self, name: str) -> tuple[_FarTalk, bool]:
        """A talk to listen to, and whether it is still to begin: there are places for few of those."""
        with self._lock:
            early = name not in self._talks or not self._talks[name].opened.is_set()
            if self._listening >= 2 * self.config.most_talks or (early and self._early >= self.config.most_talks):
                raise InputError("Too many devices listen, or wait for a talk to begin.")
            self._make_room(name)
            talk = self._talks.setdefault(name, _FarTalk(self.config.queue_length))
            if talk.listener.is_set():
                raise InputError(f"Talk {name} has a listener already.")
            talk.listener.set()
            self._listening += 1
            self._early += early
        return talk, early

    def _has_begun(self, talk: _FarTalk) -> bool:
        """Has it begun since it was waited for? Its listener makes room for another one that waits."""
        if not talk.opened.is_set():
            return False
        with self._lock:
            self._early -= 1
        return True

    def _forget(self, name: str, talk: _FarTalk, early: bool) -> None:
        with self._lock:
            self._listening -= 1
            self._early -= early
            if self._talks.get(name) is talk:
                del self._talks[name]


@contextlib.contextmanager
def _translating(what: str) -> Iterator[None]:
    """A model that cannot do with what it gets ends one talk, with a sentence."""
    try:
        yield
    except SemaphoneError:
        raise
    except Exception as error:
        logging.getLogger(__name__).warning("%s: %s: %s", what, type(error).__name__, error)
        raise InputError(f"{what} cannot be translated; are its segments too long?") from error


class _Carrier:
    """The stream from a near edge to its far edge, fed from a bounded queue."""

    def __init__(self, config: EdgeConfig, opening: Any) -> None:
        self._config, self._opening = config, opening
        self._waiting: queue.Queue[Any] = queue.Queue(config.queue_length)
        self._grpc = import_grpc()

    def __enter__(self) -> _Carrier:
        security = self._config.security
        self._channel = security.connect(self._config.peer, OPTIONS)
        method = self._channel.stream_unary(
            f"/{SERVICE}/Carry", lambda m: bytes(m.SerializeToString()), pb.Receipt.FromString
        )
        self._call = method.future(self._stream(), metadata=security.metadata())
        self.put(pb.CarryRequest(open=self._opening))
        return self

    def __exit__(self, *_: object) -> None:
        self._call.cancel()
        self._channel.close()

    def _stream(self) -> Iterator[Any]:
        while True:
            item = self._waiting.get()
            if item is _END:
                return
            yield item

    def put(self, message: Any) -> None:
        """Queues a message; InputError if the far edge has ended the talk or takes nothing for too long."""
        waited = 0.0
        while True:
            if self._call_is_over():
                raise InputError(self._reason())
            try:
                self._waiting.put(message, timeout=TICK)
            except queue.Full:
                waited += TICK
                if waited > self._config.patience:
                    raise InputError("The far edge does not keep up with the talk.") from None
            else:
                return

    def finish(self) -> None:
        """Waits until the far edge has taken everything."""
        self._waiting.put(_END)
        try:
            self._call.result()
        except self._grpc.RpcError:
            raise InputError(self._reason()) from None
        except self._grpc.FutureCancelledError:
            raise InputError("The talk was cancelled.") from None

    def hang_up(self) -> None:
        """Ends the stream without an end of the talk: the far edge tells the listener."""
        self._waiting.put(_END)
        with contextlib.suppress(self._grpc.RpcError, self._grpc.FutureTimeoutError, self._grpc.FutureCancelledError):
            self._call.result(timeout=self._config.patience)

    def _call_is_over(self) -> bool:
        return bool(hasattr(self, "_call") and self._call.done())

    def _reason(self) -> str:
        if said_by_edge(self._call.code()):
            return str(self._call.details())
        return f"The far edge at {self._config.peer} cannot be reached or went away."
