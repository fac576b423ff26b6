"""Table, figure and page of one talk through changing losses."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from semaphone.experiments.systems import RATE
from semaphone.experiments.terminal import print_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from semaphone.audio import Samples

METRICS = ("visqol", "plcmos")
WIDTH = 0.48  # s over which a rate is averaged

Row = dict[str, Any]


def by_phase(row: Row, metric: str, losses: Sequence[float], phase: float) -> list[float | None]:
    """The mean score of the windows whose middle lies in each phase."""
    found: list[float | None] = []
    for i in range(len(losses)):
        values = [
            value
            for time, value in zip(row["times"], row[metric], strict=True)
            if i * phase <= time < (i + 1) * phase and value is not None
        ]
        found.append(float(np.mean(values)) if values else None)
    return found


def _cells(rows: Sequence[tuple[Row, str]], losses: Sequence[float], phase: float) -> tuple[list[str], list[list[str]]]:
    from semaphone.experiments.points import title_of

    head = ["system", "payload", "gross"]
    head += [f"{title_of(metric)}, {loss:.0%}" for metric in METRICS for loss in losses]
    cells = []
    for row, _ in rows:
        scores = [value for metric in METRICS for value in by_phase(row, metric, losses, phase)]
        shown = ["–" if value is None else f"{value:.2f}" for value in scores]
        cells.append([row["system"], f"{row['payload_bps'] / 1000:.2f}", f"{row['gross_bps'] / 1000:.2f}", *shown])
    return head, cells


def print_rows(rows: Sequence[tuple[Row, str]], losses: Sequence[float], phase: float) -> None:
    """Scores by phase on the terminal."""
    print_table(*_cells(rows, losses, phase))


def write_rows(
    rows: Sequence[tuple[Row, str]],
    speech: Samples,
    losses: Sequence[float],
    phase: float,
    players: Sequence[tuple[str, str]],
    args: argparse.Namespace,
) -> None:
    """Figure and page."""
    from semaphone.experiments.page import paragraph, save, table, write_page

    head, cells = _cells(rows, losses, phase)
    scorers = ", ".join(f"{name} {version}" for name, version in rows[0][0]["scorers"].items()) if rows else ""
    heard = "".join(f"<tr><td>{name}</td><td>{sound}</td></tr>" for name, sound in players)
    parts = [
        paragraph(
            f"A talk of {len(speech) / RATE:.0f} s through losses of {', '.join(f'{loss:.0%}' for loss in losses)}, "
            f"{phase:.1f} s each; every system meets the same bad moments. Scores are those of windows of "
            f"{args.window:g} s, shown at their middle, so they know of a change {args.window / 2:g} s before it comes."
        ),
        save(_figure(rows, speech, losses, phase), args.out, "timeline"),
        paragraph("Means over the windows whose middle lies in a phase; rates in kbit/s over the whole talk."),
        table(head, cells),
        f"<h2>To hear</h2><table>{heard}</table>",
        paragraph(f"Scorers: {scorers}. Seed {args.seed}."),
    ]
    write_page(args.out / "index.html", "One talk through changing losses (LargeSC Fig 9)", parts)


def _figure(rows: Sequence[tuple[Row, str]], speech: Samples, losses: Sequence[float], phase: float) -> Any:
    from matplotlib.figure import Figure

    from semaphone.experiments.points import title_of

    ours = [row for row, family in rows if family == "ours"]
    heights = [1.5, *[1.0] * len(ours), 1.2, *[1.5] * len(METRICS)]
    figure = Figure(figsize=(11, 1.55 * sum(heights) + 0.6), layout="constrained")
    panels = list(figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0])
    _said(panels[0], speech, ours)
    for axes, row in zip(panels[1:], ours, strict=False):
        _tokens(axes, row)
    _rates(panels[1 + len(ours)], rows)
    for axes, metric in zip(panels[2 + len(ours) :], METRICS, strict=True):
        _scores(axes, rows, metric, title_of(metric))
    for axes in panels:
        for edge in range(1, len(losses)):
            axes.axvline(edge * phase, color="#222222", linestyle="--", linewidth=1)
        axes.set_xlim(0, len(speech) / RATE)
    for i, loss in enumerate(losses):
        place = ((i + 0.5) * phase, 1.2)
        panels[0].text(*place, f"{loss:.0%} lost", transform=panels[0].get_xaxis_transform(), ha="center", fontsize=9)
    panels[-1].set_xlabel("time (s)")
    return figure


def _said(axes: Axes, speech: Samples, ours: Sequence[Row]) -> None:
    """The original's spectrogram, and behind it what the last of our controllers sent of each chunk."""
    from semaphone.controller.base import Mask
    from semaphone.link.plot import importance, spectrogram

    if not ours:
        spectrogram(axes, speech, RATE, "Said")
        return
    row = ours[-1]
    spectrogram(axes, speech, RATE, f"Said; behind it what was sent: {row['system']}", see_through=True)
    importance(axes, [Mask(*mask) for mask in row["masks"]], len(row["status"][0]), row["chunk"])


def _tokens(axes: Axes, row: Row) -> None:
    from semaphone.controller.base import Mask
    from semaphone.link.plot import token_map

    status = np.array([[int(digit) for digit in chunk] for chunk in row["status"]], np.int8)
    token_map(axes, status, [Mask(*mask) for mask in row["masks"]], row["chunk"])
    axes.set_title(f"Tokens: {row['system']}", loc="left", fontsize=10)


def _look(i: int) -> dict[str, Any]:
    from semaphone.experiments.pictures import COLOURS, DASHES

    return {"color": COLOURS[i % len(COLOURS)], "linestyle": DASHES[i % len(DASHES)]}


def _rates(axes: Axes, rows: Sequence[tuple[Row, str]]) -> None:
    """Payload of every system; lost packets of each as ticks."""
    end = max(row["seconds"] for row, _ in rows)
    edges = np.arange(0, end + WIDTH, WIDTH)
    for i, (row, _) in enumerate(rows):
        times, sizes = np.array([time for time, *_ in row["packets"]]), [8 * size for _, size, _ in row["packets"]]
        rate = np.histogram(times, edges, weights=sizes)[0] / WIDTH / 1000
        look = _look(i)
        axes.stairs(rate, edges, label=row["system"], linewidth=1.4, **look)
        gone = [time for time, _, lost in row["packets"] if lost]
        axes.plot(gone, [-0.35 - 0.3 * i] * len(gone), "|", color=look["color"], markersize=5)
    axes.set_ylabel("kbit/s")
    axes.set_title("Payload, and lost packets as ticks", loc="left", fontsize=10)
    axes.set_ylim(bottom=-0.35 - 0.3 * len(rows))
    axes.grid(alpha=0.3)


def _scores(axes: Axes, rows: Sequence[tuple[Row, str]], metric: str, title: str) -> None:
    for i, (row, family) in enumerate(rows):
        values = [np.nan if value is None else value for value in row[metric]]
        axes.plot(row["times"], values, label=row["system"], linewidth=2.2 if family == "ours" else 1.3, **_look(i))
    axes.set_ylabel("MOS")
    axes.set_title(title, loc="left", fontsize=10)
    axes.legend(fontsize=8, loc="upper right", ncols=3, framealpha=0.8)
    axes.grid(alpha=0.3)
