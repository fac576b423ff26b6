"""Tables on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def print_table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    title: str | None = None,
    left: int = 1,
    width: int = 150,
    ends: Callable[[Sequence[str]], bool] = lambda row: False,
) -> None:
    """Prints rows at least `width` columns wide, `left` columns flush left; a gap follows a row that ends."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE, title=title, title_justify="left")
    for i, name in enumerate(head):
        table.add_column(name, justify="left" if i < left else "right", no_wrap=i == 0)
    for row in rows:
        table.add_row(*row, end_section=ends(row))
    console = Console()
    Console(width=max(console.width, width)).print(table)
