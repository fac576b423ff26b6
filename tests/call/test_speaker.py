from __future__ import annotations

import asyncio

import numpy as np
from tests.call.ends import voice

from semaphone.call.report import Delays
from semaphone.call.speaker import Speaker
from semaphone.controller.base import KEEPALIVE
from semaphone.packet.payload import parse
from semaphone.packet.rtp import RtpPacket, parse_rtp


class Said:
    """Blocks of two chunks that have just been spoken, or (negative) some time ago."""

    def __init__(self, volumes: list[float]) -> None:
        self.volumes = volumes

    async def blocks(self, size: int):
        assert size == 1280
        for volume in self.volumes:
            ago = 3.0 if volume < 0 else -1.0
            for _ in range(2):
                sound = (volume * np.sin(np.arange(size) * 0.1)).astype(np.float32)
                yield sound, asyncio.get_running_loop().time() - ago

    def close(self) -> None:
        pass


def spoken(volumes: list[float], dtx: bool = False) -> tuple[list[RtpPacket], Speaker]:
    packets: list[bytes] = []

    async def scenario() -> Speaker:
        speaker = Speaker(voice(), Said(volumes), 7, packets.append, Delays(), dtx)
        await speaker.run()
        speaker.close()
        return speaker

    speaker = asyncio.run(scenario())
    return [parse_rtp(packet) for packet in packets], speaker


def test_numbers_and_times() -> None:
    packets, speaker = spoken([0.1] * 4)
    assert speaker.done
    assert [(p.sequence_number - packets[0].sequence_number) % 65536 for p in packets] == list(range(8))
    assert [(p.timestamp - packets[0].timestamp) % 2**32 // 2560 for p in packets] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert [p.marker for p in packets] == [True] + [False] * 7
    assert {p.ssrc for p in packets} == {7}
    assert packets[0].sequence_number < 2**15
    assert speaker.traffic.packets == 8
    assert (speaker.mask.sent, speaker.mask.twice) == (8, 2)


def test_pauses_are_not_sent_but_told() -> None:
    packets, speaker = spoken([0.1] * 4 + [0.0] * 15 + [0.1] * 2, dtx=True)
    blocks = [(p.timestamp - packets[0].timestamp) % 2**32 // 2560 for p in packets[::2]]
    silent = [not parse(speaker.voice.form, p.payload).tokens for p in packets[::2]]
    # Two more blocks count as speech, the next says that a pause has begun, one in six that it goes on.
    assert blocks == [0, 1, 2, 3, 4, 5, 6, 6 + KEEPALIVE - 1, 6 + 2 * KEEPALIVE - 1, 19, 20]
    assert [block for block, quiet in zip(blocks, silent, strict=True) if quiet] == [6, 11, 17]
    assert [p.marker for p in packets[::2]] == [True] + [False] * 6 + [True, True, True, False]


def test_what_was_spoken_too_long_ago_is_left_out() -> None:
    packets, speaker = spoken([0.1, -0.1, -0.1, 0.1])
    assert speaker.overruns == 2
    assert [(p.timestamp - packets[0].timestamp) % 2**32 // 2560 for p in packets] == [0, 0, 3, 3]


def test_a_block_that_fell_behind_on_its_way_is_finished() -> None:
    class Stumbling(Said):
        async def blocks(self, size: int):
            for ago in (-1.0, 3.0, -1.0, -1.0):
                yield np.full(size, 0.1, np.float32), asyncio.get_running_loop().time() - ago

    packets: list[bytes] = []

    async def scenario() -> Speaker:
        speaker = Speaker(voice(), Stumbling([]), 7, packets.append, Delays(), False)
        await speaker.run()
        speaker.close()
        return speaker

    assert asyncio.run(scenario()).overruns == 0
    times = [parse_rtp(packet).timestamp for packet in packets]
    assert [(time - times[0]) % 2**32 // 2560 for time in times] == [0, 0, 1, 1]


def test_a_last_block_that_is_not_full_goes_out() -> None:
    class Short(Said):
        async def blocks(self, size: int):
            for _ in range(3):
                yield np.full(size, 0.1, np.float32), asyncio.get_running_loop().time() + 1.0

    packets: list[bytes] = []

    async def scenario() -> None:
        speaker = Speaker(voice(), Short([]), 7, packets.append, Delays(), False)
        await speaker.run()
        speaker.close()

    asyncio.run(scenario())
    assert len(packets) == 4
