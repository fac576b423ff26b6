"""What the longer trainings share: a learning rate over steps, averaged weights, and a loop that logs and saves."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

FOLLOW = 10  # steps between two updates of averaged weights
LOG = 50  # steps whose losses a line of the log averages
Report = Callable[[int, dict[str, Any]], None]


def cosine_rate(step: int, rate: float, final_rate: float, warmup: int, steps: int) -> float:
    """The learning rate at a step: a linear warm-up to `rate`, then half a cosine down to `final_rate`."""
    if step < warmup:
        return rate * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    return final_rate + (rate - final_rate) * 0.5 * (1.0 + math.cos(math.pi * progress))


@torch.no_grad()
def follow(average: dict[str, Tensor], model: nn.Module, step: int, decay: float) -> None:
    """Every `FOLLOW` steps, moves averaged weights a little towards the model's; early ones count for less."""
    if step % FOLLOW:
        return
    keep = min(decay, (1 + step) / (10 + step)) ** FOLLOW
    for name, value in model.state_dict().items():
        average[name].lerp_(value, 1 - keep)


def careful_step(optimizer: torch.optim.Optimizer, norm: Tensor) -> None:
    """One step of a fused optimizer, left out where the norm of the gradients is not finite.

    On a GPU the optimizer itself looks, so that the processor need not wait for the norm.
    """
    if norm.is_cuda:
        optimizer.found_inf = (~torch.isfinite(norm)).float()  # type: ignore[attr-defined]
        optimizer.step()
    elif torch.isfinite(norm):
        optimizer.step()


class Run(Protocol):
    """A training: what it carries from step to step, and where it keeps it."""

    step: int
    out: Path

    def advance(self) -> dict[str, float]:
        """One step; its losses by name."""

    def save(self) -> None:
        """Write a checkpoint."""


def run_steps(
    run: Run,
    until: int,
    every: int,
    report: Report,
    look: Callable[[int], dict[str, Any] | None] = lambda step: None,
) -> None:
    """Steps until `until`: means of the losses go to log.jsonl and `report`, a checkpoint is saved every `every` steps.

    `look` may measure something after a step; what it gives is logged, too, and its time is not counted.
    """
    sums: dict[str, float] = {}
    seen, began = 0, time.monotonic()
    with open(run.out / "log.jsonl", "a", encoding="utf-8") as log:

        def tell(row: dict[str, Any]) -> None:
            log.write(json.dumps({"step": run.step, **row}) + "\n")
            log.flush()
            report(run.step, row)

        while run.step < until:
            for name, value in run.advance().items():
                sums[name] = sums.get(name, 0.0) + value
            seen += 1
            if seen == LOG or run.step == until:
                row: dict[str, Any] = {name: round(float(value) / seen, 5) for name, value in sums.items()}
                tell(row | {"seconds": round((time.monotonic() - began) / seen, 3)})
                sums, seen, began = {}, 0, time.monotonic()
            if run.step % every == 0:
                run.save()
            if (found := look(run.step)) is not None:
                tell(found)
                began = time.monotonic()
    run.save()
