"""The incoming half of a call: RTP packets → jitter buffer → recovery → decoder → what is heard."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from semaphone.call.jitter_buffer import Arrival, Due, JitterBuffer, JitterConfig
from semaphone.call.report import Delays, Traffic
from semaphone.call.speaker import Voice
from semaphone.call.stretch import stretch
from semaphone.link.receiver import Receiver, ReceiverState
from semaphone.packet.format import PacketFormat
from semaphone.packet.rtp import RtpPacket, unwrap

if TYPE_CHECKING:
    from semaphone.audio import Samples
    from semaphone.call.ends import Sink

MARGIN = (0.01, 0.2)  # s from deadline to play, least and most
LATELY, SLOW, HEADROOM = 10.0, 0.97, 0.003  # s of blocks, the quantile of what they took, and s on top of it
CROSSFADE = 0.01  # s, of a splice
CLOCKS = 0.01  # s by which a block gives way to a loudspeaker with a clock of its own


class _Piece(NamedTuple):
    """Some speech of a block."""

    speech: Samples
    samples: int  # of the stream that it stands for
    seconds: float  # of computation


class _First(NamedTuple):
    """What the first piece of a block took: the others are made while it is heard."""

    computation: float  # s
    ready: float  # s, when it was there


class Listener:
    """One talk at a time; `start` begins it."""

    def __init__(self, voice: Voice, sink: Sink, delays: Delays) -> None:
        self.voice, self.sink, self.delays = voice, sink, delays
        self.rate = voice.codec.info.sample_rate
        self.traffic = Traffic()
        self.buffer: JitterBuffer | None = None
        self.played = self.silent = self.stretched = self.too_late = self.skipped = 0
        self.captured: tuple[int, float] | None = None  # a timestamp and when it was spoken (s, our loop's clock)
        self._receiver = Receiver(voice.codec, voice.recovery, voice.form)
        self._state: ReceiverState | None = None
        self._executor = ThreadPoolExecutor(1, "decoder")
        self._awake = asyncio.Event()
        self._beginning: float | None = None  # when the first sample was heard
        self._position = 0  # samples given to the sink
        self._took = deque([0.02])  # s from the deadline to when speech was there, of the last blocks

    async def warm_up(self) -> None:
        """The first call of a model is slow: let it be one that nobody waits for."""
        nothing = (None,) * len(self.voice.form.sequences_of(0))
        await asyncio.get_running_loop().run_in_executor(self._executor, self._receiver.step, nothing)

    def start(self, form: PacketFormat, ssrc: int) -> None:
        """The far side begins anew."""
        self._receiver = Receiver(self.voice.codec, self.voice.recovery, form)
        self._state = None
        self.captured = None
        self.buffer = JitterBuffer(JitterConfig(form, self.rate), ssrc)
        self._awake.set()

    def put(self, packet: RtpPacket, now: float) -> Arrival:
        """A packet came in."""
        assert self.buffer is not None
        outcome = self.buffer.put(packet, now)
        if outcome is Arrival.ACCEPTED:
            self.traffic.packets += 1
            self.traffic.payload_bytes += len(packet.payload)
            self._awake.set()
        return outcome

    @property
    def busy(self) -> bool:
        """Is something left to be played?"""
        return self.buffer is not None and self.buffer.pending

    async def run(self) -> None:
        """Plays each block when its time has come, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            self._awake.clear()
            buffer = self.buffer
            deadline = buffer.next_deadline if buffer is not None else None
            wait = None if deadline is None else deadline - loop.time()
            if wait is None or wait > 0:
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._awake.wait(), wait)
                continue
            assert buffer is not None
            for due in buffer.pop(loop.time()):
                await self._play(buffer, due)

    async def _play(self, buffer: JitterBuffer, due: Due) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() > due.play_at + due.samples / self.rate:
            # Nobody could hear it any more. To decode it all the same would make the next one late, too.
            self.skipped += 1
            return
        surplus = self.sink.surplus(due.play_at - loop.time())
        pieces = self._render(due, surplus, buffer.config.block_samples)
        play_at, first, took, late = due.play_at, None, 0.0, False
        while (piece := await loop.run_in_executor(self._executor, next, pieces, None)) is not None:
            ready = loop.time()
            first = first or _First(piece.seconds, ready)
            speech, behind = piece.speech, round((ready - play_at) * self.rate)
            if behind > 0:
                late = True
                speech = np.concatenate([np.zeros(min(behind, len(speech)), np.float32), speech[behind:]])
            await loop.run_in_executor(self._executor, self._hear, speech, piece.samples, play_at, ready)
            took = max(took, ready - due.deadline - (play_at - due.play_at))
            play_at += piece.samples / self.rate
        assert first is not None
        self.too_late += late
        self._adapt(buffer, took)
        self._note(buffer, due, first)

    def _render(self, due: Due, surplus: int, natural: int) -> Iterator[_Piece]:
        """A block of `natural` samples in pieces. Each is made when it is asked for, in the decoder's thread."""
        most = round(CLOCKS * self.rate)
        length = due.samples - (max(-most, min(surplus, most)) if abs(surplus) > most else 0)
        receiver, made = self._receiver, 0
        for heard, state in receiver.stream(due.payloads, self._state, due.silent):
            if receiver is self._receiver:  # else the far side has begun anew meanwhile
                self._state = state
            speech, before = heard.speech, made
            made += len(speech)
            samples = len(speech)
            if made == natural:  # the last piece takes up what the block has to be longer or shorter
                samples = due.samples - before
                speech = stretch(speech, length - before, round(CROSSFADE * self.rate))
            yield _Piece(speech, samples, sum(heard.seconds.values()))

    def _hear(self, speech: Samples, samples: int, play_at: float, now: float) -> None:
        """Speech for the place of so many samples of the stream."""
        if self._beginning is None:
            self._beginning = play_at
        gap = round((play_at - self._beginning) * self.rate) - self._position
        if gap > 2:  # the stream was interrupted
            self.sink.silence(gap)
            self._position += gap
        elif gap < -2:  # it went on earlier than it stopped
            cut = min(-gap, samples)
            speech = speech[cut:]
            self._position -= cut
        self.sink.write(speech, play_at - now)
        self._position += samples

    def _adapt(self, buffer: JitterBuffer, took: float) -> None:
        """The margin follows the slow ones of the last blocks, but not the slowest: a hiccup is soon forgotten."""
        self._took.append(took)
        while len(self._took) * buffer.config.form.block_duration > LATELY:
            self._took.popleft()
        buffer.margin = min(max(float(np.quantile(self._took, SLOW)) + HEADROOM, MARGIN[0]), MARGIN[1])

    def _note(self, buffer: JitterBuffer, due: Due, first: _First) -> None:
        computation, ready = first
        self.played += not due.filler
        self.silent += due.silent
        self.stretched += due.samples != buffer.config.block_samples
        if due.silent:
            return
        self.delays.add("decoder", computation)
        self.delays.add("decoder_wait", max(ready - due.deadline - computation, 0.0))
        self.delays.add("playout", max(due.play_at - ready, 0.0))
        if due.waited is None:
            return
        self.delays.add("buffer", due.waited)
        if self.captured is not None:
            timestamp, spoken = self.captured
            block = unwrap(buffer.timestamp_of(due.block), timestamp, 32)
            spoken += (block - timestamp) / self.rate
            self.delays.add("mouth_to_ear", due.play_at + self.voice.codec.info.delay / self.rate - spoken)

    def close(self) -> None:
        """Waits for the decoder's thread and finishes the sink."""
        self._executor.shutdown(cancel_futures=True)
        self.sink.close()
