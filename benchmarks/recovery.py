"""How long the language model takes for a chunk, on one core: python benchmarks/recovery.py

Prints one JSON line for each loss rate: wall and processor time a chunk (p5, p50, p95, p99, ms), the size of the
model, the memory that a stream takes, and the time that reading the model takes. Without --model the model is
random; the time does not depend on the weights. Losses are of `sliding` packets, each of them for itself.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from semaphone.recovery.lm import LmRecovery
from semaphone.recovery.rq_config import RQTransformerConfig
from semaphone.recovery.rq_transformer import RQTransformer
from semaphone.recovery.rq_weights import load, save
from semaphone.training.survival import packet_losses, packet_status


def measure(lm: LmRecovery, rate: float, chunks: int, warm: int) -> dict[str, list[float]]:
    """p5, p50, p95, p99 in ms of the wall and processor time of a step."""
    config = lm.model.config
    rng = np.random.default_rng(1)
    steps = warm + chunks
    sent = np.full(steps, config.num_codebooks)
    lost = packet_losses(steps + 1, rate, None, rng)
    status, later = map(torch.from_numpy, packet_status(sent, 0 * sent, config.num_codebooks, lost, sliding=True))
    tokens = torch.from_numpy(rng.integers(0, config.codebook_size, (steps + 1, config.num_codebooks)))
    wall, processor = [], []
    state = None
    for n in range(steps):
        a, b = time.perf_counter(), time.thread_time()
        coming = (tokens[n + 1 : n + 2], later[n : n + 1])
        _, state = lm.step(tokens[n : n + 1], status[n : n + 1], state, coming=coming)
        wall.append(1e3 * (time.perf_counter() - a))
        processor.append(1e3 * (time.thread_time() - b))
    return {
        name: [round(float(np.percentile(values[warm:], q)), 2) for q in (5, 50, 95, 99)]
        for name, values in (("wall_ms", wall), ("processor_ms", processor))
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="weights to load (default: a random nano)")
    parser.add_argument("--chunks", type=int, default=500, help="chunks to measure at each loss rate")
    parser.add_argument("--rates", type=float, nargs="*", default=[0.0, 0.1, 0.2, 0.3])
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    with tempfile.TemporaryDirectory() as folder:
        path = options.model
        if path is None:
            path = Path(folder) / "random.safetensors"
            save(RQTransformer(RQTransformerConfig()), path)
        begin = time.perf_counter()
        lm = LmRecovery(load(path))
        facts = {
            "parameters": sum(p.numel() for p in lm.model.parameters()),
            "file_MB": round(path.stat().st_size / 1e6, 1),
            "load_s": round(time.perf_counter() - begin, 2),
            "stream_MB": round(2 * 4e-6 * lm.model.config.layers * lm.model.config.width * lm.model.config.window, 2),
        }
    print(json.dumps(facts))
    for rate in options.rates:
        result = measure(lm, rate, options.chunks, warm=lm.model.config.window + 10)
        print(json.dumps({"loss_rate": rate, "p5_p50_p95_p99": result}), flush=True)


if __name__ == "__main__":
    main()
