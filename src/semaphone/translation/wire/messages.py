"""Messages of `talk.proto` ⇄ the values that devices and edges work on; what comes from outside is checked here."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from semaphone.channel.fading import HIGHEST_SNR, Received
from semaphone.errors import InputError
from semaphone.translation.edge import Air
from semaphone.translation.models.base import Phrase, Upload
from semaphone.translation.wire import talk_pb2 as pb

LONGEST_SEGMENT = 30 * 16_000  # samples; see SegmenterConfig
LONGEST_PAYLOAD = 4_000_000  # bytes of one segment
MOST_ROWS = 4_096  # of one burst
_LARGEST = 1e6  # of a scale, a gain, a symbol or a row's number; beyond it single precision could overflow
LONGEST_MESSAGE = 64_000_000  # bytes; 4096 rows of 1024 symbols with their gains


def upload_message(upload: Upload) -> Any:
    """An upload as the device sends it."""
    return pb.Upload(
        index=upload.index,
        start=upload.start,
        end=upload.end,
        silent=upload.silent,
        last=upload.last,
        frames=upload.frames,
        payload=upload.payload,
    )


def read_upload(message: Any) -> Upload:
    """The upload in a message; InputError if it cannot be one."""
    length = message.end - message.start
    if not 0 <= length <= LONGEST_SEGMENT or len(message.payload) > LONGEST_PAYLOAD:
        raise InputError("An upload ends before it starts, or is longer than any segment.")
    if message.silent and message.payload:
        raise InputError("A silent upload holds features.")
    return Upload(
        message.index, message.start, message.end, message.silent, message.last, message.frames, message.payload
    )


def burst_message(air: Air) -> Any:
    """A burst as it travels from edge to edge."""
    message = pb.Burst(utterance=air.utterance, first=air.first, rows=air.count, last=air.last, scale=air.scale)
    if air.received is not None:
        message.snr_db, message.pilots = air.received.snr_db, air.received.pilots
        message.symbols = air.received.symbols.astype("<c8").tobytes()
        message.gains = air.received.gains.astype("<c8").tobytes()
    else:
        message.plain = True
        rows = air.rows if air.rows is not None else np.zeros((0, 1), np.float32)
        message.symbols = rows.astype("<f4").tobytes()
    return message


def read_burst(message: Any, row_width: int, symbols_per_row: int) -> Air:
    """The burst in a message; InputError if its sizes don't fit or its numbers cannot be."""
    count = message.rows
    if count > MOST_ROWS or not (abs(message.scale) <= _LARGEST and abs(message.snr_db) <= HIGHEST_SNR):
        raise InputError("A burst has too many rows, or a scale or SNR that cannot be.")
    facts = (message.utterance, message.first, count, message.last, message.scale)
    if message.plain:
        if len(message.symbols) != 4 * count * row_width:
            raise InputError(f"A burst of {count} rows holds {len(message.symbols)} bytes.")
        rows = np.frombuffer(message.symbols, "<f4").reshape(count, row_width).astype(np.float32)
        _check(rows)
        return Air(*facts, None, rows)
    size = 8 * count * symbols_per_row
    if size == 0 or len(message.symbols) != size or len(message.gains) != size:
        raise InputError(f"A burst of {count} rows holds {len(message.symbols)} bytes of symbols; do both edges agree?")
    symbols, gains = (
        np.frombuffer(data, "<c8").reshape(count, symbols_per_row).astype(np.complex64)
        for data in (message.symbols, message.gains)
    )
    _check(symbols)
    _check(gains)
    return Air(*facts, Received(symbols, gains, message.snr_db, message.pilots))


def _check(numbers: NDArray[Any]) -> None:
    if not (np.abs(numbers) <= _LARGEST).all():
        raise InputError("A burst holds numbers that are not finite, or far too large.")


def phrase_message(phrase: Phrase) -> Any:
    """A phrase for the listening device."""
    return pb.Phrase(utterance=phrase.utterance, text=phrase.text, units=phrase.units)


def read_phrase(message: Any) -> Phrase:
    """The phrase in a message."""
    return Phrase(message.utterance, message.text, tuple(message.units))
