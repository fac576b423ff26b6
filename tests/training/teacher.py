"""A tiny Whisper with random weights, as the variables of its file."""

import numpy as np


def variables(width: int = 8, layers: int = 1) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)

    def random(*shape: int) -> np.ndarray:
        return rng.normal(0, 0.3, shape).astype(np.float32)

    found = {"encoder/num_heads": np.array(2, np.int8), "encoder/position_encodings/encodings": random(1500, width)}
    sizes: dict[str, tuple[int, ...]] = {"conv1": (width, 80, 3), "conv2": (width, width, 3)}
    norms = ["layer_norm"]
    for i in range(layers):
        at = f"layer_{i}"
        sizes |= {f"{at}/self_attention/linear_0": (3 * width, width), f"{at}/self_attention/linear_1": (width, width)}
        sizes |= {f"{at}/ffn/linear_0": (4 * width, width), f"{at}/ffn/linear_1": (width, 4 * width)}
        norms += [f"{at}/self_attention/layer_norm", f"{at}/ffn/layer_norm"]
    for name, shape in sizes.items():
        found |= {f"encoder/{name}/weight": random(*shape), f"encoder/{name}/bias": random(shape[0])}
    for name in norms:
        found |= {f"encoder/{name}/gamma": 1 + random(width), f"encoder/{name}/beta": random(width)}
    found["decoder/layer_0/attention/linear_1/weight"] = random(2 * width, width)
    return found
