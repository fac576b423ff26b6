"""The outgoing half of a call: speech → tokens → RTP packets. Models run in a thread of their own."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from semaphone.call.report import Delays, Traffic
from semaphone.codec.base import Codec
from semaphone.controller.base import Controller, LinkLoss, Mask
from semaphone.link.feedback import EXPECTED
from semaphone.link.transmitter import Sent, Transmitter, TransmitterState
from semaphone.packet.format import PacketFormat
from semaphone.packet.packetizer import Packet
from semaphone.packet.rtp import RtpPacket, serialize_rtp
from semaphone.recovery.base import Recovery

if TYPE_CHECKING:
    from semaphone.audio import Samples
    from semaphone.call.ends import Source

PAYLOAD_TYPE = 96
FURTHEST_BEHIND = 0.5  # s: what was spoken longer ago is not encoded any more


@dataclass(frozen=True)
class Voice:
    """What an end of a call speaks."""

    codec: Codec
    controller: Controller
    recovery: Recovery
    form: PacketFormat  # of what it sends

    @property
    def block_samples(self) -> int:
        """Samples of a block."""
        return self.form.chunks_per_block * self.codec.info.chunk_samples


class Speaker:
    """Speech in, RTP packets out through `send`."""

    def __init__(
        self, voice: Voice, source: Source, ssrc: int, send: Callable[[bytes], None], delays: Delays, dtx: bool
    ) -> None:
        self.voice, self.source, self.ssrc, self._send, self.delays = voice, source, ssrc, send, delays
        self.traffic = Traffic()
        self.loss_rate: float | None = None  # of what we send, as the far side reports it
        self.again: float | None = None  # how often a copy is lost with its token, as far as the far side says
        self.heard_loss: float | None = None  # of what we hear, to be reported
        self.mask = Mask(0, 0)  # of the last chunk
        self.overruns = 0
        self.done = False
        self._transmitter = Transmitter(voice.codec, voice.controller, voice.form, dtx)
        self._state = TransmitterState()
        self._executor = ThreadPoolExecutor(1, "encoder")
        self._timestamp = secrets.randbits(32)
        self._last = (self._timestamp, 0.0)  # timestamp and time of the last block's first sample
        self.renumber()

    @property
    def sequence(self) -> int:
        """The number of the next packet."""
        return self._sequence

    def renumber(self) -> None:
        """Packet numbers start anew with new keys, low, so that they do not wrap before SRTP hears the first."""
        self._sequence = secrets.randbits(15)
        self._marker = True

    async def warm_up(self) -> None:
        """The first call of a model is slow: let it be one that nobody waits for."""
        silence = np.zeros(self.voice.codec.info.chunk_samples, np.float32)
        await asyncio.get_running_loop().run_in_executor(self._executor, self._transmitter.step, silence)

    async def run(self) -> None:
        """Until the source has nothing more to say.

        Every chunk is encoded as soon as it has been spoken, so that a block waits for its last one only.
        """
        loop = asyncio.get_running_loop()
        size, count = self.voice.codec.info.chunk_samples, self.voice.form.chunks_per_block
        at, began, skips = 0, 0.0, False  # chunk of the block, when its first one was spoken, whether it is left out
        packets: list[Packet] = []
        async for chunk, spoken in self.source.blocks(size):
            if at == 0:
                began, packets = spoken, []
                skips = self._behind(spoken) > FURTHEST_BEHIND
                if skips:
                    self._skip()
            if not skips:
                sent = await loop.run_in_executor(self._executor, self._encode, chunk)
                packets += sent.packets
                if at == count - 1:
                    self._note(sent, packets, began, self._behind(spoken))
                    self._send_block(packets)
            at = (at + 1) % count
        self._send_block(self._transmitter.finish(self._state))
        self.done = True

    def _behind(self, spoken: float) -> float:
        """s since the last sample was spoken of a chunk that began at `spoken`."""
        info = self.voice.codec.info
        return asyncio.get_running_loop().time() - spoken - info.chunk_samples / info.sample_rate

    def _skip(self) -> None:
        """Time goes on by a block without packets."""
        self.overruns += 1
        packetizer = self._transmitter.packetizer.skip(self._state.packetizer)
        self._state = replace(self._state, packetizer=packetizer)

    def _encode(self, chunk: Samples) -> Sent:
        losses = LinkLoss(EXPECTED if self.loss_rate is None else self.loss_rate, self.again)
        sent, self._state = self._transmitter.step(chunk, self._state, losses, self.heard_loss)
        return sent

    def _note(self, last: Sent, packets: list[Packet], began: float, behind: float) -> None:
        """A block is ready `behind` s after its last chunk, which `last` is what became of, had been spoken."""
        computation = sum(last.seconds.values())
        self.delays.add("encoder", computation)
        self.delays.add("encoder_wait", max(behind - computation, 0.0))
        self.mask = last.masks[-1]
        if packets:
            self._last = (self._timestamp_of(packets[0].block), began)

    def _timestamp_of(self, block: int) -> int:
        return (self._timestamp + block * self.voice.block_samples) % 2**32

    def _send_block(self, packets: list[Packet]) -> None:
        if not packets:
            self._marker = True  # of the next packet, which begins a talk spurt or renews the silence
            return
        loop = asyncio.get_running_loop()
        for i, packet in enumerate(packets):
            delay = self.voice.form.spacing * (i % self.voice.form.packets_per_block)
            if delay:
                loop.call_later(delay, self._send_packet, packet)
            else:
                self._send_packet(packet)

    def _send_packet(self, packet: Packet) -> None:
        timestamp = self._timestamp_of(packet.block)
        rtp = RtpPacket(PAYLOAD_TYPE, self._sequence, timestamp, self.ssrc, packet.payload, self._marker)
        self._sequence = (self._sequence + 1) % 2**16
        self._marker = False
        self.traffic.packets += 1
        self.traffic.payload_bytes += len(packet.payload)
        self._send(serialize_rtp(rtp))

    def rtp_time(self, now: float) -> int:
        """The timestamp that speech spoken `now` has (s, the loop's clock)."""
        timestamp, spoken = self._last
        return round(timestamp + (now - spoken) * self.voice.codec.info.sample_rate) % 2**32

    def close(self) -> None:
        """Waits for the encoder's thread."""
        self.source.close()
        self._executor.shutdown(cancel_futures=True)
