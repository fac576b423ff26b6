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
    """Blocks that have just been spoken, or (negative) some time ago."""

    def __init__(self, volumes: list[float]) -> None:
        self.volumes = volumes

    async def blocks(self, size: int):
        for volume in self.volumes:
            ago = 3.0 if volume < 0 else -1.0
            yield (volume * np.sin(np.arange(size) * 0.1)).astype(np.float32), asyncio.get_running_loop().time() - ago

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
