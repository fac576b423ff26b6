"""The honest floor: Whisper writes down what is said, the text crosses the link, a synthesiser reads it aloud.

Every phrase is a packet, sent when its last word is out: `words_per_packet` words at most, fewer at the end of a
sentence. Words of a lost packet are gone. With `redundancy` each packet also repeats the last phrases before it (RFC
4103, which recommends two), and so do empty packets after the last phrase. Text is UTF-8, uncompressed; `details` also
says what raw DEFLATE would make of the whole text.

The voice is always the same, and nothing runs in step with the original: the words are what remains.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from semaphone.audio import Resampler
from semaphone.baselines.base import SAMPLE_RATE, Baseline, BaselineInfo, Packet, Speech, State
from semaphone.errors import InputError, MissingExtraError

VOICE_RATE = 24000  # Hz
# RFC 2198: a redundant block has four bytes of header, the last one has one. Ours count phrases, not time.
_BLOCK = struct.Struct(">BBH")  # mark and type, how many packets ago, length in bytes
_MORE = 0x80  # the mark of a header that another one follows
_TYPE = 98  # any number from 96 to 127 that both sides agree on


@dataclass(frozen=True)
class Phrase:
    """Words that travel together."""

    text: str
    end_s: float  # when the last of them has been said


@dataclass(frozen=True)
class TextLink(Baseline):
    """Whisper → text → hibari's English voice. Raises InputError for settings out of range."""

    words_per_packet: int = 8
    redundancy: int = 0  # phrases before this one that each packet repeats
    language: str | None = "en"  # ISO 639-1; None: Whisper finds it (the voice speaks English all the same)

    def __post_init__(self) -> None:
        if not 1 <= self.words_per_packet <= 50:
            raise InputError(f"{self.words_per_packet} words a packet are not 1 to 50.")
        if not 0 <= self.redundancy <= 5:
            raise InputError(f"A redundancy of {self.redundancy} phrases is not 0 to 5.")

    @property
    def info(self) -> BaselineInfo:
        """See `Baseline.info`. A phrase is awaited whole; English has about 2.5 words, 100 bits, a second."""
        seconds = self.words_per_packet / 2.5
        return BaselineInfo("textlink", "text link", 100.0 * (1 + self.redundancy), seconds, seconds, same_timing=False)

    def encode(self, speech: Speech, state: State = None, last: bool = False) -> tuple[list[Packet], State]:
        """See `Baseline.encode`. Whisper hears all at once, so packets come with `last`; their times are live."""
        state = state or []
        state.append(speech)
        if not last:
            return [], state
        phrases = listen(np.concatenate(state), self.language, self.words_per_packet)
        return self.packets(phrases), state

    def packets(self, phrases: Sequence[Phrase]) -> list[Packet]:
        """Phrases as packets; with redundancy, empty ones follow the last phrase so that it is repeated, too."""
        if not phrases:
            return []
        tail = [Phrase("", phrases[-1].end_s + 0.3 * (i + 1)) for i in range(self.redundancy)]
        out = []
        every = [*phrases, *tail]
        for number, phrase in enumerate(every):
            earlier = [before.text for before in every[max(number - self.redundancy, 0) : number]]
            payload = write_packet(phrase.text, earlier if self.redundancy else None)
            out.append(Packet(number, phrase.end_s, payload, 8 * len(payload)))
        return out

    def decode(self, packets: Sequence[Packet | None], state: State = None, last: bool = False) -> tuple[Speech, State]:
        """See `Baseline.decode`. The whole text is read aloud with `last`."""
        state = state if state is not None else []
        state += packets
        if not last:
            return np.zeros(0, np.float32), state
        return speak(self.text(state)), state

    def text(self, arrived: Sequence[Packet | None]) -> str:
        """What can be read of the packets that arrived."""
        known: dict[int, str] = {}
        for packet in arrived:
            if packet is not None:
                phrase, earlier = read_packet(packet.payload, self.redundancy > 0)
                known[packet.sequence] = phrase
                for ago, text in earlier.items():
                    known.setdefault(packet.sequence - ago, text)
        return " ".join(known[number] for number in sorted(known) if known[number])

    def details(self, packets: Sequence[Packet], arrived: Sequence[Packet | None]) -> Mapping[str, Any]:
        """See `Baseline.details`: the text on both sides, and what compression would have made of it."""
        sent = self.text(packets)
        deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
        compressed = deflate.compress(sent.encode()) + deflate.flush()
        return {
            "text_sent": sent,
            "text_arrived": self.text(arrived),
            "text_bits": 8 * len(sent.encode()),
            "text_bits_deflated": 8 * len(compressed),
        }


def write_packet(text: str, earlier: Sequence[str] | None = None) -> bytes:
    """A payload: the text alone, or (RFC 2198) after the texts of the packets before it, oldest first."""
    data = text.encode()
    if earlier is None:
        return data
    blocks = [before.encode() for before in earlier]
    headers = b"".join(
        _BLOCK.pack(_MORE | _TYPE, len(blocks) - number, len(block)) for number, block in enumerate(blocks)
    )
    return headers + bytes([_TYPE]) + b"".join(blocks) + data


def read_packet(payload: bytes, redundant: bool) -> tuple[str, dict[int, str]]:
    """The text of a payload, and those of earlier packets by how many packets ago. Raises InputError."""
    sizes: list[tuple[int, int]] = []
    at = 0
    if redundant:
        while at < len(payload) and payload[at] & _MORE:
            if at + _BLOCK.size > len(payload):
                raise InputError("A packet of the text link ends within its headers.")
            sizes.append(_BLOCK.unpack_from(payload, at)[1:])
            at += _BLOCK.size
        at += 1
    if at + sum(size for _, size in sizes) > len(payload):
        raise InputError("A packet of the text link is shorter than its headers say.")
    texts = []
    try:
        for _, size in sizes:
            texts.append(payload[at : at + size].decode())
            at += size
        return payload[at:].decode(), {ago: text for (ago, _), text in zip(sizes, texts, strict=True)}
    except UnicodeDecodeError as error:
        raise InputError("A packet of the text link holds no UTF-8 text.") from error


def listen(speech: Speech, language: str | None, most_words: int) -> list[Phrase]:
    """What Whisper hears in speech [N], in phrases of at most so many words, with the times of their ends."""
    from semaphone.metrics.text import transcribe_words

    phrases: list[Phrase] = []
    words: list[str] = []
    heard = transcribe_words(speech, language)
    for number, word in enumerate(heard):
        words.append(word.text)
        if len(words) == most_words or word.text.endswith((".", "?", "!")) or number == len(heard) - 1:
            end = min(max(word.end_s, phrases[-1].end_s if phrases else 0.0), len(speech) / SAMPLE_RATE)
            phrases.append(Phrase(" ".join(words), end))
            words = []
    return phrases


def speak(text: str) -> Speech:
    """Text read aloud at 16 kHz, the same every time; half a second of silence for nothing.

    Raises MissingExtraError.
    """
    if not any(char.isalnum() for char in text):
        return np.zeros(SAMPLE_RATE // 2, np.float32)
    spoken = np.asarray(_voice()(text, seed=0), dtype=np.float32)
    return np.clip(Resampler(VOICE_RATE, SAMPLE_RATE).push(spoken, last=True), -1.0, 1.0)


@lru_cache(maxsize=1)
def _voice() -> Any:
    try:
        from hibari import Hibari
    except ImportError as error:
        raise MissingExtraError("The text link's voice", "baselines") from error
    return Hibari()
