"""A page to listen to: players beside figures; the recordings lie beside the page."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from semaphone.experiments.demo import Row

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; color: #222; }
table { border-collapse: collapse; } td, th { padding: .3em .8em; text-align: right; }
th { border-bottom: 2px solid #222; } td:first-child, th:first-child { text-align: left; }
tr.first td { border-top: 1px solid #999; } audio { height: 2em; vertical-align: middle; } img { width: 100%; }
"""


def shown(value: float | None, digits: int) -> str:
    """A figure, or a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def listening_page(rows: Sequence[Row]) -> str:
    """HTML with one row a recording."""
    lines = []
    loss = None
    for row in rows:
        first = ' class="first"' if row.loss != loss else ""
        loss = row.loss
        cells = [
            html.escape(row.system),
            f"{row.loss:.0%}",
            f'<audio controls preload="none" src="{html.escape(row.file)}"></audio>',
            f"{row.payload_bps / 1000:.2f}",
            f"{row.gross_bps / 1000:.2f}",
            shown(row.visqol, 2),
            shown(row.plcmos, 2),
            shown(row.wer, 2),
        ]
        lines.append(f"<tr{first}>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    head = ["system", "loss", "", "payload kbit/s", "gross kbit/s", "ViSQOL", "PLCMOS", "WER"]
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Semaphone: what arrives</title>'
        f"<style>{STYLE}</style><h1>What arrives</h1>"
        '<p>The original: <audio controls src="original.wav"></audio></p><table><tr>'
        + "".join(f"<th>{name}</th>" for name in head)
        + "</tr>"
        + "".join(lines)
        + '</table><p><img src="link.png" alt="The talk at the highest loss: spectrograms, tokens, rate"></p></html>\n'
    )
