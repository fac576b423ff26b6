"""Progress on standard error for work that takes a while."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from semaphone import stopping

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from semaphone.audio import Samples


@contextmanager
def progress(quiet: bool = False) -> Iterator[Progress]:
    """A bar with the time left; silent where standard error is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=quiet or not console.is_terminal,
    ) as bar:
        yield bar


def counted(blocks: Iterable[Samples], bar: Progress, task: TaskID) -> Iterator[Samples]:
    """Passes blocks on and moves the bar by their samples."""
    for block in blocks:
        yield block
        stopping.check()
        bar.advance(task, len(block))


def preparing(bar: Progress) -> Callable[[str, int, int], None]:
    """Shows how the stages of preparing a corpus go on: called with a stage, what is done and the whole."""
    tasks: dict[str, TaskID] = {}

    def report(stage: str, done: int, total: int) -> None:
        if stage not in tasks:
            tasks[stage] = bar.add_task(f"preparing {stage}", total=total)
        bar.update(tasks[stage], completed=done, total=total)

    return report
