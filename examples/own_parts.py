"""A channel and a recovery of your own, by name.

    python examples/own_parts.py in.wav out.wav

A package makes them known to every process, the commands included, by entry points in its pyproject.toml:

    [project.entry-points."semaphone.channels"]
    tunnel = "my_package:tunnel"
"""

import sys

import soundfile

import semaphone
from semaphone.channel.models import ErasureChannel, Phase, Schedule
from semaphone.recovery.hold import NoRecovery


def tunnel(text: str) -> ErasureChannel:
    """`tunnel:2`: after 2 s nothing arrives for half a second, then everything again."""
    start = float(text)
    return Schedule((Phase(start, 0.0), Phase(start + 0.5, 1.0), Phase(start + 1.0, 0.0)))


semaphone.register_channel("tunnel", tunnel)
semaphone.register_recovery("silence", lambda info: NoRecovery())

speech, rate = soundfile.read(sys.argv[1], dtype="float32", always_2d=True)
link = semaphone.Link("nano", channel="tunnel:0.5", recovery="silence", codebooks=8)
heard = link.transmit(speech.mean(1), sample_rate=rate)
soundfile.write(sys.argv[2], heard.speech, heard.codec.sample_rate)
print(f"{heard.report.packets_lost} of {heard.report.packets_sent} packets lost in the tunnel")
