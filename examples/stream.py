"""Live: blocks of any size in, tokens out as soon as a chunk of 80 ms is whole, and back to speech.

python examples/stream.py in.wav out.wav
"""

import sys

import numpy as np
import soundfile

import semaphone

codec = semaphone.load_codec("nano")
stream = codec.stream()
heard = []
with soundfile.SoundFile(sys.argv[1]) as file:
    if file.samplerate != codec.info.sample_rate:
        sys.exit(f"This example reads recordings at {codec.info.sample_rate} Hz.")
    for block in file.blocks(blocksize=500, dtype="float32", always_2d=True):
        tokens = stream.encode(block.mean(1))  # [16, T], T is often 0
        if tokens.shape[1]:
            heard.append(stream.decode(tokens[:8]))  # 8 codebooks: 1.1 kbit/s
soundfile.write(sys.argv[2], np.concatenate(heard), codec.info.sample_rate)
