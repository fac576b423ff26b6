"""Measures systems × channels × recordings, once each: what was measured is never measured again.

    results = Results(out / "results.jsonl")
    cells = plan(systems, channels, recordings, seed=1)
    tasks = [Task(cell, missing) for cell in cells if (missing := results.missing(cell, metrics))]
    measure(tasks, results, jobs=2)
    rows = [results.row(cell, metrics) for cell in cells]

A row of the file holds the scores of a cell by some metrics, with the versions of their scorers; other metrics or
versions make another row. Rows are written as they come, in any order; a row is the same for one worker or many.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from semaphone.commands._link import one_thread
from semaphone.errors import InputError
from semaphone.experiments.cells import Cell, Row, Task, perform, scorer_of
from semaphone.lines import Lines
from semaphone.workers import end_with_parent

Say = Callable[[str], None]
_EVERY = 30.0  # s between lines of progress where there is no terminal


class Results:
    """The file of rows."""

    def __init__(self, path: Path) -> None:
        self._lines = Lines(path, ("cell", "metrics"))
        self._known: dict[tuple[str, str], Row] = {}
        for row in self._lines:
            self._learn(row)

    @property
    def path(self) -> Path:
        """Where they are."""
        return self._lines.path

    def _learn(self, row: Row) -> None:
        for metric, scorer in row["scorers"].items():
            if scorer == scorer_of(metric):
                self._known[row["cell"], metric] = row

    def add(self, row: Row) -> None:
        """Writes a row down."""
        self._lines.add(row)
        self._learn(row)

    def missing(self, cell: Cell, metrics: Sequence[str]) -> tuple[str, ...]:
        """Metrics by which the cell was not scored yet."""
        return tuple(metric for metric in metrics if (cell.digest, metric) not in self._known)

    def row(self, cell: Cell, metrics: Sequence[str]) -> Row | None:
        """All of these metrics of a cell in one row; `None` if some are missing."""
        if self.missing(cell, metrics):
            return None
        whole: Row = {}
        for metric in metrics:
            part = self._known[cell.digest, metric]
            whole |= {name: value for name, value in part.items() if value is not None or name not in whole}
        return whole


def measure(tasks: Sequence[Task], results: Results, jobs: int = 1, say: Say = print) -> None:
    """Does the tasks and writes their rows as they come; what cannot be sent or scored is told and left out.

    With Ctrl-C the workers finish what they are at, and that is written, too.
    """
    failed: set[tuple[str, str]] = set()

    def take(task: Task, outcome: Row | str) -> None:
        if isinstance(outcome, str):
            about = (task.cell.system.name, outcome)
            if about not in failed:
                say(f"left out: {task.cell.recording.name}, {task.cell.system.name}: {outcome}")
            failed.add(about)
        elif task.metrics:
            results.add(outcome)

    with _progress(len(tasks)) as advance:

        def take_and_show(task: Task, outcome: Row | str) -> None:
            take(task, outcome)
            advance()

        if jobs > 1 and len(tasks) > 1:
            _in_workers(tasks, min(jobs, len(tasks)), take_and_show)
            return
        one_thread()  # everywhere, so that rows do not depend on who measures
        for task in tasks:
            take_and_show(task, perform(task))


def _in_workers(tasks: Sequence[Task], jobs: int, take: Callable[[Task, Row | str], None]) -> None:
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_prepare_worker)
    running: dict[Future[Row | str], Task] = {}
    left = iter(tasks)
    try:
        for task in itertools.islice(left, 3 * jobs):
            running[pool.submit(perform, task)] = task
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                outcome = future.result()
                take(running.pop(future), outcome)
                for task in itertools.islice(left, 1):
                    running[pool.submit(perform, task)] = task
    except BrokenProcessPool:
        raise InputError("A worker process died, perhaps for want of memory; try fewer --jobs.") from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        for future, task in running.items():  # stopped early: what was finished meanwhile is kept
            if future.done() and not future.cancelled() and future.exception() is None:
                take(task, future.result())


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    """A bar with the time left; where there is no terminal, a line now and then. Gives what moves it on."""
    from semaphone.commands._progress import progress

    began = told = time.monotonic()
    count = 0
    with progress() as bar:
        task = bar.add_task("measuring", total=total)

        def advance() -> None:
            nonlocal told, count
            count += 1
            bar.advance(task)
            now = time.monotonic()
            if bar.disable and now - told > _EVERY and count < total:
                left = (now - began) / count * (total - count) / 60
                print(f"{count} of {total} measured, about {left:.1f} min left", file=sys.stderr, flush=True)
                told = now

        yield advance


def _prepare_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is told, and says when to stop
    end_with_parent()
    one_thread()
