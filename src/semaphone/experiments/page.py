"""Figures as SVG and PNG, and a small page of tables and figures that is one file."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from semaphone.files import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;margin:1rem 0}td,th{border:1px solid #ccc;padding:.25rem .6rem;text-align:right}"
    "td:first-child,th:first-child{text-align:left}svg{max-width:100%;height:auto}code{background:#f3f3f3}"
)


@dataclass(frozen=True)
class Curve:
    """One line of a figure."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    style: str = "-o"


def draw(curves: Sequence[Curve], title: str, x_label: str, y_label: str) -> Figure:
    """A figure of curves."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    for curve in curves:
        axes.plot(curve.x, curve.y, curve.style, label=curve.name, markersize=4)
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def save(figure: Figure, folder: Path, name: str) -> str:
    """Writes NAME.svg and NAME.png; returns the SVG element for a page. The same figure gives the same bytes."""
    import matplotlib

    folder.mkdir(parents=True, exist_ok=True)
    picture, drawing = io.BytesIO(), io.StringIO()
    figure.savefig(picture, format="png", dpi=150)
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(drawing, format="svg", metadata={"Date": None})
    write_whole(folder / f"{name}.png", picture.getvalue())
    write_whole(folder / f"{name}.svg", drawing.getvalue())
    svg = drawing.getvalue()
    return svg[svg.index("<svg") :]


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """An HTML table; numbers with two decimals."""

    def cell(value: object) -> str:
        return f"{value:.2f}" if isinstance(value, float) else html.escape(str(value))

    top = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{cell(value)}</td>" for value in row) + "</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{body}</table>"


def paragraph(text: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{html.escape(text)}</p>"


def player(path: Path) -> str:
    """A player of a small MP3 file, which becomes part of the page."""
    sound = base64.b64encode(path.read_bytes()).decode()
    return f'<audio controls preload="none" src="data:audio/mpeg;base64,{sound}"></audio>'


def write_page(path: Path, title: str, parts: Sequence[str]) -> None:
    """A page that needs no other file and no network."""
    name = html.escape(title)
    text = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{name}</title><style>{_STYLE}</style>'
    text += f"<h1>{name}</h1>{''.join(parts)}</html>\n"
    write_whole(path, text)
