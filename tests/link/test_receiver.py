import numpy as np
import pytest
from tests.codec.tiny import tiny_codec
from tests.link.test_simulate import speech

from semaphone.controller.base import NOTHING, Mask
from semaphone.link.receiver import Receiver
from semaphone.link.transmitter import Transmitter
from semaphone.packet.format import PacketFormat
from semaphone.recovery.hold import HoldRecovery

CODEC = tiny_codec()
BLOCKS = 24


class Moody:
    """Talks, pauses, and now and then leaves out a single chunk."""

    most = 16

    def step(self, latents, losses, state, talking=None):
        place = state or 0
        masks = []
        for _ in range(latents.shape[1]):
            pause = 12 <= place % 24 < 18 or place % 7 == 3
            masks.append(NOTHING if pause else Mask(8, 2))
            place += 1
        return masks, place


@pytest.mark.parametrize("schedule", ["split", "sliding", "block", "bundle:80ms"])
def test_chunk_by_chunk_is_heard_what_blocks_give(schedule, rng):
    form = PacketFormat.named(schedule, 16, 32)
    transmitter, state = Transmitter(CODEC, Moody(), form), None
    size = form.chunks_per_block * CODEC.info.chunk_samples
    payloads: dict[int, bytes] = {}
    for block in speech(BLOCKS * size).reshape(BLOCKS, size):
        sent, state = transmitter.step(block, state)
        payloads |= {packet.sequence: packet.payload for packet in sent.packets if rng.random() > 0.25}
    receiver = Receiver(CODEC, HoldRecovery(), form)
    whole = pieces = None
    for number in range(BLOCKS):
        came = [payloads.get(n) for n in form.sequences_of(number)]
        heard, whole = receiver.step(came, whole)
        steps = list(receiver.stream(came, pieces))
        parts, pieces = [part for part, _ in steps], steps[-1][1]
        assert heard.silent == parts[0].silent
        np.testing.assert_array_equal(heard.status, np.concatenate([part.status for part in parts]))
        np.testing.assert_allclose(heard.speech, np.concatenate([part.speech for part in parts]), atol=1e-4)
        assert (whole.gain, whole.silent) == (pieces.gain, pieces.silent)
