"""A recording through a lossy link: what arrives, what it cost, and a picture.

python examples/file.py in.wav out.wav link.png
"""

import sys

import soundfile

import semaphone

speech, rate = soundfile.read(sys.argv[1], dtype="float32", always_2d=True)
link = semaphone.Link("nano", channel="gilbert-elliott:loss=0.2,burst=240ms", schedule="history", codebooks=8)
heard = link.transmit(speech.mean(1), sample_rate=rate, seed=7)
soundfile.write(sys.argv[2], heard.speech, heard.codec.sample_rate)
heard.plot(sys.argv[3])
report = heard.report
print(f"{report.gross_bps:.0f} bit/s with headers, {report.packet_loss_rate:.0%} of the packets lost")
print(f"of {report.chunk_loss_rate:.1%} of the chunks nothing arrived")
