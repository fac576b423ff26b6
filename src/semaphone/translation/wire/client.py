"""A device's side of a talk: one speaks, the other listens."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semaphone.errors import InputError, SemaphoneError
from semaphone.translation.device import SpeakingDevice
from semaphone.translation.models.base import Phrase
from semaphone.translation.wire import talk_pb2 as pb
from semaphone.translation.wire.messages import read_phrase, upload_message
from semaphone.translation.wire.security import Security, import_grpc
from semaphone.translation.wire.service import OPTIONS, SERVICE, said_by_edge


def opening(talk: str, source: str, target: str, model: str, seed: int, context: str, compressor: str) -> Any:
    """The first message of a talk."""
    return pb.Open(
        talk=talk, source=source, target=target, model=model, seed=seed, context=context, compressor=compressor
    )


def _sentence(address: str, error: Any) -> InputError:
    if said_by_edge(error.code()):
        return InputError(error.details())
    return InputError(f"The edge at {address} cannot be reached or went away.")


def speak(
    address: str, security: Security, first: Any, device: SpeakingDevice, blocks: Iterable[NDArray[np.float32]]
) -> Any:
    """Sends 16 kHz speech to the near edge; returns its receipt. InputError when the talk breaks."""
    grpc = import_grpc()

    failed: list[SemaphoneError] = []

    def requests() -> Iterator[Any]:
        yield pb.SpeakRequest(open=first)
        try:
            yield from spoken()
        except SemaphoneError as error:  # grpc would only say that the stream broke
            failed.append(error)
            raise

    def spoken() -> Iterator[Any]:
        state = device.start()
        for block in blocks:
            uploads, state = device.step(block, state)
            for upload in uploads:
                yield pb.SpeakRequest(upload=upload_message(upload))
        uploads, state = device.finish(state)
        for upload in uploads:
            yield pb.SpeakRequest(upload=upload_message(upload))

    with security.connect(address, OPTIONS) as channel:
        method = channel.stream_unary(
            f"/{SERVICE}/Speak", lambda m: bytes(m.SerializeToString()), pb.Receipt.FromString
        )
        try:
            return method(requests(), metadata=security.metadata())
        except grpc.RpcError as error:
            raise failed[0] if failed else _sentence(address, error) from None


def listen(address: str, security: Security, talk: str) -> Generator[Phrase, None, None]:
    """Phrases of a talk as the far edge gives them. InputError when the talk breaks."""
    grpc = import_grpc()
    with security.connect(address, OPTIONS) as channel:
        method = channel.unary_stream(
            f"/{SERVICE}/Listen", lambda m: bytes(m.SerializeToString()), pb.Phrase.FromString
        )
        try:
            for message in method(pb.ListenRequest(talk=talk), metadata=security.metadata()):
                yield read_phrase(message)
        except grpc.RpcError as error:
            raise _sentence(address, error) from None
