"""An edge as a gRPC server: near edge for the talks of its devices, far edge for those of its peer.

Every talk has queues of bounded length and a state of its own. When a device or an edge dies, its own talk ends
with a sentence on every machine that took part; other talks don't notice.
"""

from __future__ import annotations

import contextlib
import queue
import threading
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
from semaphone.translation.wire.security import Security, import_grpc

SERVICE = "semaphone.talk.v1.Edge"
OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", LONGEST_MESSAGE),
    ("grpc.max_send_message_length", LONGEST_MESSAGE),
    ("grpc.so_reuseport", 0),  # a second edge on the same port is a mistake, not a helper
]
_TICK = 0.2  # s between looks at whether the other side still lives
_END = object()


@dataclass(frozen=True)
class EdgeConfig:
    """Settings of an edge."""

    listen: str = "127.0.0.1:7000"  # HOST:PORT; port 0 takes a free one
    peer: str = ""  # HOST:PORT of the far edge, for talks of this edge's own devices
    most_talks: int = 8  # at the same time, near and far together
    queue_length: int = 32  # bursts or phrases that may wait in a talk
    patience: float = 30.0  # s to wait for a listener, or for a full queue
    security: Security = field(default_factory=Security)

    def __post_init__(self) -> None:
        if not 1 <= self.most_talks <= 256 or not 1 <= self.queue_length <= 4096 or not 0 < self.patience <= 3600:
            raise InputError("An edge takes 1 to 256 talks, queues of 1 to 4096, and patience up to an hour.")


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
        self.error = ""


class Edge:
    """The service; `model_for(open)` gives the model of a talk, `radio` the code and the simulated channel."""

    def __init__(self, config: EdgeConfig, model_for: Callable[[Any], TranslationModel], radio: Radio) -> None:
        if radio.code is not None and not hasattr(radio.code, "decode"):
            raise InputError("The digital code is a bound, not a waveform: it cannot cross between processes.")
        self.config, self._model_for, self._radio = config, model_for, radio
        self._talks: dict[str, _FarTalk] = {}
        self._lock = threading.Lock()
        self._running = 0
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
        self._admit(context)
        try:
            return self._speak(requests, context)
        except SemaphoneError as error:
            return self._abort(context, "INVALID_ARGUMENT", str(error))
        finally:
            self._leave()

    def _speak(self, requests: Iterator[Any], context: Any) -> Any:
        opening = self._opening(requests, context, "open")
        if not self.config.peer:
            raise InputError("This edge has no far edge; start it with --peer.")
        model = self._model_for(opening)
        check_widths(model.info, self._radio)
        near = NearEdge(model, self._radio)
        state, segments = near.start(opening.seed), 0
        with _Carrier(self.config, opening) as carrier:
            ended = False
            for request in self._alive(requests, context):
                if request.WhichOneof("part") != "upload":
                    raise InputError("After its opening, a device sends uploads only.")
                upload = read_upload(request.upload)
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
        self._admit(context)
        talk = None
        try:
            opening = self._opening(requests, context, "open")
            talk = self._open(opening.talk)
            return self._carry(opening, talk, self._alive(requests, context))
        except SemaphoneError as error:
            if talk is not None:
                talk.error = str(error)  # kept for a listener who is still to come
            return self._abort(context, "ABORTED", str(error))
        finally:
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
                return pb.Receipt(segments=bursts)
            air = read_burst(request.burst, model.info.row_width, per_row)
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
                talk.phrases.put(item, timeout=_TICK)
            except queue.Full:
                waited += _TICK
                if waited > self.config.patience:
                    raise InputError(f"Nobody takes the phrases of talk {name}.") from None
            else:
                return

    # ---- listener ----

    def listen(self, request: Any, context: Any) -> Iterator[Any]:
        """Phrases of a talk as they become certain."""
        self._admit(context, counts=False)
        try:
            talk = self._find(request.talk)
        except InputError as error:
            self._abort(context, "RESOURCE_EXHAUSTED", str(error))
            return
        finished = False
        try:
            waited = 0.0
            while context.is_active():
                try:
                    item = talk.phrases.get(timeout=_TICK)
                except queue.Empty:
                    waited += _TICK
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
            self._forget(request.talk, talk)

    # ---- keeping order ----

    def _abort(self, context: Any, code: str, sentence: str) -> Any:
        context.abort(getattr(import_grpc().StatusCode, code), sentence)
        return None

    def _admit(self, context: Any, counts: bool = True) -> None:
        if not self.config.security.allows(context.invocation_metadata()):
            self._abort(context, "UNAUTHENTICATED", "The token is missing or wrong.")
        if not counts:
            return
        with self._lock:
            if self._running >= self.config.most_talks:
                full = True
            else:
                full = False
                self._running += 1
        if full:
            self._abort(context, "RESOURCE_EXHAUSTED", f"This edge already has {self.config.most_talks} talks.")

    def _leave(self) -> None:
        with self._lock:
            self._running -= 1

    def _opening(self, requests: Iterator[Any], context: Any, part: str) -> Any:
        for first in self._alive(requests, context):
            if first.WhichOneof("part") == part and 0 < len(first.open.talk) <= 128:
                return first.open
            break
        raise InputError("A talk starts with an opening that names it in 1 to 128 characters.")

    def _alive(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        """Requests until the stream ends; a broken stream ends it too (grpc raises without a type of its own)."""
        try:
            yield from requests
        except Exception:  # the caller tells a broken stream from a finished one by what is missing
            if context.is_active():
                raise

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
        """Bounds the talks that wait for one of their sides; broken ones go first."""
        if name in self._talks or len(self._talks) < 4 * self.config.most_talks:
            return
        for other, talk in list(self._talks.items()):
            if talk.error and not talk.listener.is_set():
                del self._talks[other]
        if len(self._talks) >= 4 * self.config.most_talks:
            raise InputError("Too many talks wait for their other side.")

    def _find(self, name: str) -> _FarTalk:
        with self._lock:
            self._make_room(name)
            talk = self._talks.setdefault(name, _FarTalk(self.config.queue_length))
            if talk.listener.is_set():
                raise InputError(f"Talk {name} has a listener already.")
            talk.listener.set()
        return talk

    def _forget(self, name: str, talk: _FarTalk) -> None:
        with self._lock:
            if self._talks.get(name) is talk:
                del self._talks[name]


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
                self._waiting.put(message, timeout=_TICK)
            except queue.Full:
                waited += _TICK
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
