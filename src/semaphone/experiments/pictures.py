"""Figures in the papers' arrangement: panels side by side, one legend for all, for print and for the colour-blind.

Lines differ by colour (Okabe and Ito's palette), marker and dash, so that none of them is needed alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito, "Color universal design" (2008); yellow is left out, which a white page swallows.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#7F7F7F")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
DASHES = ("-", "--", "-.", ":")


@dataclass(frozen=True)
class Line:
    """One line of a panel; `low` and `high` are the ends of the intervals."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    style: int | None = None  # the look: the same number is the same colour and marker in every panel
    dash: int | None = None
    strong: bool = False  # drawn thicker: ours


@dataclass(frozen=True)
class Panel:
    """One pair of axes."""

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    logarithmic: bool = False  # the x axis


def picture(panels: Sequence[Panel], columns: int = 2) -> Figure:
    """Panels (a), (b), ... with one legend below."""
    from matplotlib.figure import Figure

    rows = -(-len(panels) // columns)
    columns = min(columns, len(panels))
    names = list(dict.fromkeys(line.name for panel in panels for line in panel.lines))
    width = 4.8 * columns + 0.4
    legend_columns = int(width / 2.4)
    legend_rows = -(-len(names) // legend_columns)
    figure = Figure(figsize=(width, 3.5 * rows + 0.24 * legend_rows + 0.2), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    handles: dict[str, Any] = {}
    for i, axes in enumerate(grid.flat):
        if i >= len(panels):
            axes.set_visible(False)
            continue
        letter = f"({chr(ord('a') + i)}) " if len(panels) > 1 else ""
        _draw(axes, panels[i], letter, names, handles)
    if handles:
        figure.legend(
            list(handles.values()),
            list(handles),
            loc="outside lower center",
            ncols=legend_columns,
            fontsize=8,
            frameon=False,
        )
    return figure


def _draw(axes: Axes, panel: Panel, letter: str, names: Sequence[str], handles: dict[str, Any]) -> None:
    for line in panel.lines:
        style = names.index(line.name) if line.style is None else line.style
        colour, marker = COLOURS[style % len(COLOURS)], MARKERS[style % len(MARKERS)]
        dash = DASHES[(style // len(COLOURS) if line.dash is None else line.dash) % len(DASHES)]
        width, size = (2.2, 6) if line.strong else (1.2, 5)
        (handle,) = axes.plot(
            line.x, line.y, dash, color=colour, marker=marker, linewidth=width, markersize=size, label=line.name
        )
        if line.low and line.high:
            axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.1, linewidth=0)
        handles.setdefault(line.name, handle)
    if not panel.lines:
        axes.text(0.5, 0.5, "no values", ha="center", va="center", transform=axes.transAxes)
    axes.set(xlabel=panel.x_label, ylabel=panel.y_label)
    axes.set_title(letter + panel.title, fontsize=10)
    if panel.logarithmic:
        from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator([0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        from matplotlib.ticker import MaxNLocator

        axes.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 5, 10]))
    axes.grid(alpha=0.3)
