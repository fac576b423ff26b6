"""What the longer trainings share: a learning rate over steps, averaged weights, and a loop that logs and saves."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
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
    values = model.state_dict()
    torch._foreach_lerp_([average[name] for name in values], list(values.values()), 1 - keep)


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

    def advance(self) -> Mapping[str, Tensor | float]:
        """One step; its losses by name, as numbers or as tensors of one element on any device."""

    def save(self) -> None:
        """Write a checkpoint."""


class Pace:
    """Sets the number of steps of a training that was given a time instead.

    Its first `warm` steps are not counted, the next `measured` ones are timed; then `settle` is told how many steps
    fit, those taken before included, so that the last one ends when the time does.
    """

    def __init__(
        self,
        seconds: float,
        settle: Callable[[int], None],
        wait: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        warm: int = 30,
        measured: int = 30,
    ) -> None:
        """The time begins now. `wait` returns when the device has done all it was asked for."""
        self._settle, self._wait, self._clock = settle, wait, clock
        self._warm, self._measured = warm, measured
        self._end = clock() + seconds
        self._taken = 0
        self._began = 0.0

    def tick(self, step: int) -> int | None:
        """To be called after every step with its number; gives the number of steps once, as soon as it is known."""
        self._taken += 1
        if self._taken == self._warm:
            self._began = self._now()
        if self._taken != self._warm + self._measured:
            return None
        now = self._now()
        each = max((now - self._began) / self._measured, 1e-9)
        steps = step + max(1, int((self._end - now) / each))
        self._settle(steps)
        return steps

    def _now(self) -> float:
        self._wait()
        return self._clock()


def run_steps(
    run: Run,
    until: int,
    every: int,
    report: Report,
    look: Callable[[int], dict[str, Any] | None] = lambda step: None,
    deadline: float | None = None,
    pace: Pace | None = None,
) -> None:
    """Steps until `until`: means of the losses go to log.jsonl and `report`, a checkpoint is saved every `every` steps.

    `look` may measure something after a step; what it gives is logged, too, and its time is not counted. When
    `deadline` (of time.monotonic) has passed there are no more steps, and what there is is saved. A `pace` puts
    another number in the place of `until` once it has measured.
    """
    kept: dict[str, list[Tensor | float]] = {}
    seen, began = 0, time.monotonic()
    with open(run.out / "log.jsonl", "a", encoding="utf-8") as log:

        def tell(row: dict[str, Any]) -> None:
            log.write(json.dumps({"step": run.step, **row}) + "\n")
            log.flush()
            report(run.step, row)

        late = False
        while run.step < until and not late:
            for name, value in run.advance().items():
                kept.setdefault(name, []).append(value)
            seen += 1
            steps = pace.tick(run.step) if pace is not None else None
            late = deadline is not None and time.monotonic() >= deadline
            until = until if steps is None else steps
            if seen == LOG or run.step >= until or late:
                row: dict[str, Any] = {name: round(_sum(values) / seen, 5) for name, values in kept.items()}
                tell(row | {"seconds": round((time.monotonic() - began) / seen, 3)})
                kept, seen, began = {}, 0, time.monotonic()
            if steps is not None:
                tell({"steps": steps})
            if run.step % every == 0:
                run.save()
            if (found := look(run.step)) is not None:
                tell(found)
                began = time.monotonic()
    run.save()


def _sum(values: list[Tensor | float]) -> float:
    """The sum of numbers; tensors are read from their device together, at once."""
    tensors = [v.detach().reshape(()) for v in values if isinstance(v, Tensor)]
    numbers = [float(v) for v in values if not isinstance(v, Tensor)]
    return sum(torch.stack(tensors).tolist()) + sum(numbers) if tensors else sum(numbers)
