"""Table and figure of the parts of the delay, the paper's beside ours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semaphone.experiments.terminal import print_table
from semaphone.experiments.timing import COMPUTING, WAITING

BUSY = 0.8  # of a core: a process that has less shares it with others
# Table II: kHz, bit/s, T_coder, T_context, delay in s (its T_coder is headed ms, and adds up in s only).
PAPER = (
    ("Opus", 24, 8000.0, 0.00077, 0.06, 0.061),
    ("SoundStream", 24, 6400.0, 0.044, 0.013, 0.057),
    ("SyncSC (speech to text to speech)", 16, 55.37, 0.18, 1.68, 1.86),
    ("LargeSC, A100", 24, 2060.0, 0.30, 0.16, 0.46),
    ("LargeSC, RTX 3080", 24, 2060.0, 0.32, 0.16, 0.48),
)

HEAD = ("method", "setting", "kHz", "bit/s", "T_coder", "p99", "T_context", "delay", "p99", "real-time factor")


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        row["method"],
        row["setting"],
        f"{row['sample_rate'] / 1000:g}",
        f"{row['payload_bps']:.0f}",
        f"{row['coder_ms']['p50']:.1f}",
        f"{row['coder_ms']['p99']:.1f}",
        f"{row['context_ms']['p50']:.1f}",
        f"{row['total_ms']['p50']:.1f}",
        f"{row['total_ms']['p99']:.1f}",
        f"{row['real_time_factor']:.4f}",
    ]


def _paper_cells() -> list[list[str]]:
    return [
        [
            f"paper: {name}",
            "",
            f"{khz}",
            f"{bps:g}",
            f"{1000 * coder:g}",
            "",
            f"{1000 * context:g}",
            f"{1000 * d:g}",
            "",
            "",
        ]
        for name, khz, bps, coder, context, d in PAPER
    ]


def _parts_table(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """p50 and p99 of every part in ms."""
    names = WAITING | COMPUTING
    head = ["method", "setting", *names.values()]

    def cell(row: dict[str, Any], name: str) -> str:
        part = row["parts_ms"].get(name)
        if part is None:
            return "–"
        same = part["p50"] == part["p99"]
        return f"{part['p50']:.1f}" if same else f"{part['p50']:.2f} / {part['p99']:.2f}"

    return head, [[row["method"], row["setting"], *(cell(row, name) for name in names)] for row in rows]


def _busy(share: float) -> str:
    return (
        f"The machine was busy: at worst this process had {share:.0%} of a core, so computing took longer here than it "
        "has to. Time again on an idle machine."
    )


def print_rows(rows: Sequence[dict[str, Any]]) -> None:
    """The delays, and their parts, on the terminal."""
    cells = [*map(_cells, rows), *_paper_cells()]
    print_table(HEAD, cells, "Delay without the network, ms (median; 99th percentile)", left=2, width=170)
    print_table(*_parts_table(rows), "Parts, ms (median / 99th percentile)", left=2, width=170)
    shares = [row["core_share"] for row in rows]
    if min(shares, default=1.0) < BUSY:
        print(_busy(min(shares)))


def write_rows(rows: Sequence[dict[str, Any]], out: Path) -> None:
    """Figure and page."""
    from semaphone.experiments.page import paragraph, save, table, write_page

    machines = ", ".join(dict.fromkeys(row["machine"] for row in rows))
    parts = [
        paragraph(
            "Delay of a sound from mouth to ear without the network, in ms: median and 99th percentile over blocks "
            "(packets, phrases). T_context is waiting: for the rest of the block, for copies that ride in a later "
            "packet, for the decoder's overlap. T_coder is computing, all parts of both ends, one after the other."
        ),
        paragraph(
            f"Timed on {machines} with one thread; the paper's rows on a server with an A100, or an RTX 3080. A "
            "real-time factor of 0.1 means that a tenth of the time is spent computing. The paper heads T_coder with "
            "ms; its sums only add up in seconds, and so it is shown here."
        ),
        table(HEAD, [*map(_cells, rows), *_paper_cells()]),
        save(_figure(rows), out, "latency"),
        "<h2>Parts</h2>",
        table(*_parts_table(rows)),
    ]
    shares = [row["core_share"] for row in rows]
    if min(shares, default=1.0) < BUSY:
        parts.insert(2, paragraph(_busy(min(shares))))
    told = [
        f"{row['method']}, {row['setting']}: {row['lost_tokens']:.2f} tokens of a chunk were lost on average, and "
        f"recovery took {row['parts_ms']['recovery']['p50']:.2f} ms a block."
        for row in rows
        if "recovery" in row["parts_ms"]
    ]
    parts += ["<h2>Recovery (eq 23)</h2>", *(paragraph(text) for text in told)]
    write_page(out / "index.html", "The parts of the delay (LargeSC Table II)", parts)


def _short(row: dict[str, Any]) -> str:
    """The method, and its schedule where it has one."""
    schedule = row["setting"].partition(",")[0]
    return f"{row['method']}: {schedule}" if "recovery" in row["setting"] else str(row["method"])


_WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}


def _figure(rows: Sequence[dict[str, Any]]) -> Any:
    from matplotlib.figure import Figure

    from semaphone.experiments.pictures import COLOURS

    names = [_short(row) for row in rows]
    names += [f"paper: {name}" for name, *_ in PAPER]
    figure = Figure(figsize=(9.6, 0.36 * len(names) + 1.9), layout="constrained")
    axes = figure.subplots()
    place = np.arange(len(names))
    left = np.zeros(len(names))
    looks = dict(
        zip([*WAITING, *COMPUTING], [*COLOURS[:2], COLOURS[4], *COLOURS[2:4], *COLOURS[5:8], "#F0E442"], strict=True)
    )
    for name, text in (WAITING | COMPUTING).items():
        values = [row["parts_ms"].get(name, {"p50": 0.0})["p50"] for row in rows]
        values += [0.0] * len(PAPER)
        if not any(values):
            continue
        hatch = "" if name in WAITING else "///"
        axes.barh(place, values, left=left, color=looks[name], hatch=hatch, edgecolor="white", lw=0.3, label=text)
        left += np.array(values)
    context = [0.0] * len(rows) + [1000 * c for _, _, _, _, c, _ in PAPER]
    coder = [0.0] * len(rows) + [1000 * c for _, _, _, c, _, _ in PAPER]
    axes.barh(place, context, color="#BBBBBB", edgecolor="white", label="paper: T_context")
    axes.barh(place, coder, left=context, color="#777777", hatch="///", edgecolor="white", label="paper: T_coder")
    left += np.array(context) + np.array(coder)
    late = np.array([row["total_ms"]["p99"] for row in rows])
    # Text takes so long that it would press everything else flat: its bars run out of the picture.
    speech = [end for name, end in zip(names, [*late, *left[len(rows) :]], strict=True) if "text" not in name]
    edge = 1.15 * max(speech, default=max(left))
    inside = late < edge
    axes.plot(late[inside], place[: len(rows)][inside], "k|", markersize=12, markeredgewidth=2, label="99th percentile")
    for y, end in enumerate(left):
        if end > edge:
            axes.text(0.985 * edge, y, f"{end:.0f} ▸", va="center", ha="right", fontsize=8, bbox=_WHITE)
        else:
            axes.text(
                (max(end, late[y]) if y < len(rows) else end) + 0.012 * edge, y, f"{end:.0f}", va="center", fontsize=8
            )
    axes.set_yticks(place, names, fontsize=8)
    axes.invert_yaxis()
    axes.set(xlabel="ms, median", xlim=(0, edge))
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return figure
