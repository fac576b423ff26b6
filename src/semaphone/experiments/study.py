"""An experiment on quality from its plan to its page: systems × weathers × corpora, figures, tables, players.

study = Study("packet-loss", "Quality over packet loss", about, systems, weathers, corpora, metrics, pictures)
run_study(study, args)
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from semaphone.errors import InputError
from semaphone.experiments import points
from semaphone.experiments.cells import Cell, Row, Task, plan, scorer_of
from semaphone.experiments.pictures import Line, Panel, picture
from semaphone.experiments.sweep import Results, measure

if TYPE_CHECKING:
    from semaphone.experiments.corpus import Recording
    from semaphone.experiments.options import Weather
    from semaphone.experiments.systems import System
    from semaphone.metrics.bootstrap import Interval

Axis = Literal["rate", "uniform", "bursts", "payload", "gross", "delay"]
_LABELS = {
    "rate": "payload, kbit/s",
    "uniform": "packet loss rate, %",
    "bursts": "packet loss rate, %",
    "payload": "payload, kbit/s",
    "gross": "gross rate, kbit/s",
    "delay": "delay, ms",
}
# What a system costs in some weather: by axis, the name in rows, the unit, and whether the axis is logarithmic.
_COSTS = {"payload": ("payload_bps", 1000, True), "gross": ("gross_bps", 1000, True), "delay": ("delay_ms", 1, False)}
_UNITS = {"log_f0_rmse": ", ln Hz", "visqol": ", MOS-LQO", "plcmos": ", MOS", "utmos": ", MOS"}


@dataclass(frozen=True)
class PanelPlan:
    """What a panel shows over what."""

    metric: str
    axis: Axis
    title: str = ""
    weather: Weather | None = None  # of a cost: payload, gross, delay


@dataclass(frozen=True)
class Picture:
    """A figure: its panels, in the order of the paper."""

    name: str  # of the file
    caption: str
    panels: tuple[PanelPlan, ...]


def within(
    pictures: tuple[Picture, ...], metrics: tuple[str, ...], weathers: Sequence[Weather] | None = None
) -> list[Picture]:
    """The pictures with those of their panels for which there are scores, of these weathers if only some are asked."""
    kinds = {"uniform", "bursts"} if weathers is None else {weather.kind for weather in weathers}
    axes = {"rate", *kinds, *_COSTS}
    kept = [(p, tuple(panel for panel in p.panels if panel.metric in metrics and panel.axis in axes)) for p in pictures]
    return [Picture(p.name, p.caption, panels) for p, panels in kept if panels]


def in_both_weathers(name: str, caption: str, metrics: Sequence[str]) -> tuple[Picture, Picture]:
    """Two figures, of independent losses and of bursts, with a panel for each metric."""
    return (
        Picture(f"{name}-uniform", f"{caption} over independent losses.", _panels(metrics, "uniform")),
        Picture(f"{name}-bursts", f"{caption} over losses in bursts of 240 ms.", _panels(metrics, "bursts")),
    )


def _panels(metrics: Sequence[str], axis: Axis) -> tuple[PanelPlan, ...]:
    return tuple(PanelPlan(metric, axis) for metric in metrics)


@dataclass(frozen=True)
class Corpus:
    """Recordings with a name; of several corpora the name is said in figures."""

    name: str
    recordings: Sequence[Recording]


@dataclass(frozen=True)
class Table:
    """A table beside the one of all figures."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Study:
    """The plan of an experiment."""

    name: str
    title: str
    about: Sequence[str]  # what is to be said first, a paragraph each
    systems: Sequence[System]
    weathers: Sequence[Weather]
    corpora: Sequence[Corpus]
    metrics: tuple[str, ...]
    pictures: Sequence[Picture]
    verdicts: Callable[[Measured], list[str]] | None = None  # sentences about what was found
    tables: Callable[[Measured], list[Table]] | None = None
    players: bool = True


@dataclass
class Measured:
    """Rows by system, weather and corpus."""

    study: Study
    rows: dict[tuple[System, str, str], list[Row]] = field(default_factory=dict)

    def of(self, system: System, weather: Weather, corpus: Corpus | None = None) -> list[Row]:
        """The rows of a point."""
        corpus = corpus or self.study.corpora[0]
        return self.rows.get((system, weather.specification, corpus.name), [])

    def estimate(self, system: System, weather: Weather, metric: str, corpus: Corpus | None = None) -> Interval | None:
        """A point of a figure."""
        return points.estimate(self.of(system, weather, corpus), metric)

    def difference(self, ours: System, theirs: System, weather: Weather, metric: str) -> Interval | None:
        """Ours − theirs, paired."""
        return points.difference(self.of(ours, weather), self.of(theirs, weather), metric)


def run_study(study: Study, args: argparse.Namespace) -> int:
    """Measures what is not measured yet, says what was found, writes figures and the page into `args.out`."""
    from semaphone.experiments.options import jobs_of
    from semaphone.experiments.report import print_tables, write_report
    from semaphone.experiments.terminal import print_table

    if not study.systems:
        raise InputError("No system is left to measure.")
    results = Results(args.results or args.out / "results.jsonl")
    cells = {corpus.name: _cells(study, corpus, args) for corpus in study.corpora}
    kept = _kept(study, cells, args.out / "heard") if study.players else {}
    tasks = _tasks([cell for some in cells.values() for cell in some], study.metrics, results, kept)
    measure(tasks, results, jobs_of(args))
    measured = _gather(study, cells, results)
    print_tables(measured)
    tables = study.tables(measured) if study.tables is not None else []
    for table in tables:
        print_table(table.head, table.rows, table.title, width=160)
    sentences = study.verdicts(measured) if study.verdicts is not None else []
    for sentence in sentences:
        print(sentence)
    write_report(measured, tables, sentences, kept, args.out, _facts(study, args))
    print(f"rows in {results.path}, figures and page in {args.out}")
    return 0


def _cells(study: Study, corpus: Corpus, args: argparse.Namespace) -> list[Cell]:
    channels = list(dict.fromkeys(weather.specification for weather in study.weathers))
    return plan(study.systems, channels, corpus.recordings, args.seed, args.draws)


def _kept(study: Study, cells: dict[str, list[Cell]], folder: Path) -> dict[str, Path]:
    """Cells (by digest) that can be heard on the page: two recordings, without loss and in the worst weather."""
    last = max(study.weathers, key=lambda weather: weather.loss).loss
    wanted = {weather.specification for weather in study.weathers if weather.loss in (0.0, last)}
    kept = {}
    for corpus in study.corpora:
        number = len(corpus.recordings)
        names = {corpus.recordings[i].name for i in {number // 4, (3 * number) // 4}}
        for cell in cells[corpus.name]:
            if cell.draw == 0 and cell.channel in wanted and cell.recording.name in names:
                kept[cell.digest] = folder / f"{cell.digest}.mp3"
    return kept


def _tasks(cells: Sequence[Cell], metrics: Sequence[str], results: Results, kept: dict[str, Path]) -> list[Task]:
    tasks, seen = [], set()
    for cell in cells:
        digest = cell.digest
        missing = results.missing(cell, metrics)
        keep = kept.get(digest)
        keep = None if keep is None or keep.is_file() else keep
        if digest not in seen and (missing or keep is not None):
            if keep is not None:
                keep.parent.mkdir(parents=True, exist_ok=True)
            tasks.append(Task(cell, missing, keep))
        seen.add(digest)
    return tasks


def _gather(study: Study, cells: dict[str, list[Cell]], results: Results) -> Measured:
    measured = Measured(study)
    for corpus, some in cells.items():
        for cell in some:
            row = results.row(cell, study.metrics)
            if row is not None:
                measured.rows.setdefault((cell.system, cell.channel, corpus), []).append(row)
    if not measured.rows:
        raise InputError("Nothing could be measured.")
    return measured


def _facts(study: Study, args: argparse.Namespace) -> str:
    number = sum(len(corpus.recordings) for corpus in study.corpora)
    seconds = sum(recording.seconds for corpus in study.corpora for recording in corpus.recordings)
    scorers = "; ".join(f"{points.title_of(metric)}: {scorer_of(metric)}" for metric in study.metrics)
    draws = "one weather" if args.draws == 1 else f"{args.draws} weathers"
    return (
        f"{number} recordings ({seconds / 60:.1f} min), {draws} for each, seed {args.seed}. Every system meets the "
        "same losses on the axis of time. Figures are means (error rates: errors over all words or phones) with 95 % "
        f"bootstrap intervals over recordings. Scorers: {scorers}."
    )


def panels(measured: Measured, plan: Picture) -> list[Panel]:
    """The panels of a figure with their lines."""
    return [
        Panel(
            one.title or points.title_of(one.metric),
            _LABELS[one.axis],
            points.title_of(one.metric) + _UNITS.get(one.metric, ""),
            _lines(measured, one),
            logarithmic=one.axis == "rate" or (one.axis in _COSTS and _COSTS[one.axis][2]),
        )
        for one in plan.panels
    ]


def _lines(measured: Measured, one: PanelPlan) -> list[Line]:
    if one.axis in _COSTS:
        return _over_cost(measured, one)
    return _over_rate(measured, one.metric) if one.axis == "rate" else _over_loss(measured, one)


def _line(name: str, found: Sequence[tuple[float, Interval | None]], **look: Any) -> Line:
    there = sorted((x, i.mean, i.low, i.high) for x, i in found if i is not None)
    x, y, low, high = ([row[i] for row in there] for i in range(4))
    return Line(name, x, y, low, high, **look)


def _over_rate(measured: Measured, metric: str) -> list[Line]:
    """Without loss: systems of a family joined."""
    study = measured.study
    clear = next((weather for weather in study.weathers if weather.loss == 0), study.weathers[0])
    lines = []
    for i, family in enumerate(dict.fromkeys(system.family for system in study.systems)):
        found = []
        for system in study.systems:
            rows = measured.of(system, clear)
            if system.family == family and rows:
                found.append((points.mean(rows, "payload_bps") / 1000, points.estimate(rows, metric)))
        line = _line(family, found, style=i, strong=family.startswith("nano"))
        lines += [line] if line.x else []
    return lines


def _over_cost(measured: Measured, one: PanelPlan) -> list[Line]:
    """In one weather, over what a system costs there: systems of a family joined."""
    study = measured.study
    name, unit, _ = _COSTS[one.axis]
    weather = one.weather or study.weathers[0]
    lines = []
    for i, family in enumerate(dict.fromkeys(system.family for system in study.systems)):
        found = []
        for system in study.systems:
            rows = measured.of(system, weather)
            if system.family == family and rows and all(row.get(name) is not None for row in rows):
                found.append((points.mean(rows, name) / unit, points.estimate(rows, one.metric)))
        line = _line(family, found, style=i, strong=family.startswith("nano"))
        lines += [line] if line.x else []
    return lines


def _over_loss(measured: Measured, one: PanelPlan) -> list[Line]:
    study = measured.study
    weathers = [weather for weather in study.weathers if weather.kind == one.axis or weather.loss == 0]
    lines = []
    for number, corpus in enumerate(study.corpora):
        for i, system in enumerate(study.systems):
            found = [(100 * w.loss, measured.estimate(system, w, one.metric, corpus)) for w in weathers]
            alone = len(study.corpora) == 1
            name, dash = (system.name, None) if alone else (f"{system.name}, {corpus.name}", number)
            line = _line(name, found, style=i, dash=dash, strong=system.family.startswith("nano"))
            lines += [line] if line.x else []
    return lines


def draw(measured: Measured, plan: Picture) -> Any:
    """The figure."""
    return picture(panels(measured, plan))
