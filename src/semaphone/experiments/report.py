"""The page of an experiment: one file with figures, tables and players, which needs no other file and no network."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from semaphone.experiments import points
from semaphone.experiments.page import paragraph, player, save, table, write_page
from semaphone.experiments.terminal import print_table

if TYPE_CHECKING:
    from semaphone.experiments.options import Weather
    from semaphone.experiments.study import Corpus, Measured, Table

_MOST_PLAYERS = 80


def write_report(
    measured: Measured,
    tables: Sequence[Table],
    sentences: Sequence[str],
    kept: dict[str, Path],
    out: Path,
    facts: str,
) -> None:
    """Figures as SVG and PNG, and index.html."""
    from semaphone.experiments.study import draw

    study = measured.study
    parts = [paragraph(text) for text in study.about]
    parts += [save(draw(measured, one), out, one.name) + _caption(one.caption) for one in study.pictures]
    if sentences:
        parts.append("<h2>Found</h2><ul>" + "".join(f"<li>{html.escape(one)}</li>" for one in sentences) + "</ul>")
    parts.append("<h2>Figures</h2>")
    for corpus in study.corpora:
        parts += [f"<h3>{html.escape(corpus.name)}</h3>"] if len(study.corpora) > 1 else []
        parts.append(_table(measured, corpus))
    parts += [f"<h3>{html.escape(one.title)}</h3>{table(one.head, one.rows)}" for one in tables]
    parts.append(paragraph(facts))
    parts += _players(measured, kept)
    write_page(out / "index.html", study.title, parts)


def _caption(text: str) -> str:
    return f"<p><i>{html.escape(text)}</i></p>"


def _weathers(measured: Measured) -> list[Weather]:
    """Each weather once: without loss, both kinds are the same."""
    return list({weather.specification: weather for weather in reversed(measured.study.weathers)}.values())[::-1]


def _table(measured: Measured, corpus: Corpus) -> str:
    note = "Rates in kbit/s. Gross: with 40 bytes of IPv4, UDP and RTP headers a packet."
    return table(*_cells(measured, corpus)) + paragraph(note)


def print_tables(measured: Measured) -> None:
    """The figures on the terminal."""
    for corpus in measured.study.corpora:
        title = corpus.name if len(measured.study.corpora) > 1 else None
        print_table(*_cells(measured, corpus), title, left=2, width=160)


def _cells(measured: Measured, corpus: Corpus) -> tuple[list[str], list[list[str]]]:
    metrics = measured.study.metrics
    head = ["system", "channel", "lost", "tokens", "payload", "gross", *(points.title_of(m) for m in metrics)]
    rows = []
    for weather in _weathers(measured):
        for system in measured.study.systems:
            found = measured.of(system, weather, corpus)
            if found:
                rates = [f"{points.mean(found, name) / 1000:.2f}" for name in ("token_bps", "payload_bps", "gross_bps")]
                sent = sum(row["packets_sent"] for row in found)
                lost = f"{sum(row['packets_lost'] for row in found) / sent:.1%}" if sent else "–"
                scores = [points.shown(points.estimate(found, metric), metric) for metric in metrics]
                rows.append([system.name, weather.title, lost, *rates, *scores])
    return head, rows


def _players(measured: Measured, kept: dict[str, Path]) -> list[str]:
    """Players, recording by recording and weather by weather."""
    if not kept:
        return []
    parts = ["<h2>To hear</h2>"]
    shown = 0
    for corpus in measured.study.corpora:
        for recording in corpus.recordings:
            for weather in _weathers(measured):
                items = []
                for system in measured.study.systems:
                    for row in measured.of(system, weather, corpus):
                        path = kept.get(row["cell"])
                        if row["file"] == recording.name and path is not None and path.is_file():
                            items.append(_player(system.name, path))
                if items and shown < _MOST_PLAYERS:
                    shown += len(items)
                    name = f"{recording.name}, {weather.title}"
                    parts.append(f"<h3>{html.escape(name)}</h3><p>{html.escape(recording.text or '')}</p>")
                    parts.append(f"<table>{''.join(items)}</table>")
    return parts if shown else []


def _player(name: str, path: Path) -> str:
    return f"<tr><td>{html.escape(name)}</td><td>{player(path)}</td></tr>"
