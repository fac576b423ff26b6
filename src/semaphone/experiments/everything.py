"""Every experiment of the LargeSC paper, one after the other, with one page that leads to all of them.

    semaphone experiment all --quick --data recordings/ --out results/ [--other elsewhere/] [--lyra FOLDER] [--jobs 2]

What two experiments have in common is measured once: they share their file of rows. An experiment that cannot run
here is told and left out. Options that only one experiment has are given to that one alone.
"""

from __future__ import annotations

import argparse
import html
import importlib
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from semaphone.errors import SemaphoneError
from semaphone.experiments import options
from semaphone.experiments.page import paragraph, write_page

NAME = "all"


@dataclass(frozen=True)
class Outcome:
    """What became of an experiment."""

    name: str
    text: str  # what it shows
    problem: str = ""  # why it did not run
    broken: bool = False  # it should have


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that are passed on; further ones after `--` go to every experiment that has them."""
    options.add_corpus_options(parser)
    parser.add_argument("--other", type=Path, metavar="DIR", help="recordings from elsewhere, for generalisation")
    options.add_system_options(parser)
    parser.add_argument("--only", metavar="LIST", help="only these experiments, with commas")


def run(args: argparse.Namespace) -> int:
    """Run what can be run, write the page of pages."""
    from semaphone.commands.experiment import EXPERIMENTS

    paper = {name: about for name, about in EXPERIMENTS.items() if "LargeSC" in about[1] and name != NAME}
    wanted = list(paper) if args.only is None else [name for name in args.only.split(",") if name]
    args.out.mkdir(parents=True, exist_ok=True)
    outcomes = []
    for name in wanted:
        if name not in paper:
            outcomes.append(Outcome(name, "", "there is no such experiment"))
            continue
        began = time.monotonic()
        print(f"== {name}", flush=True)
        outcomes.append(_one(name, *paper[name], args))
        problem = outcomes[-1].problem
        print(f"{name}: {problem}" if problem else f"{name}: {time.monotonic() - began:.0f} s", flush=True)
        _index(outcomes, args)
    _index(outcomes, args)
    print(f"index in {args.out / 'index.html'}")
    if any(outcome.broken for outcome in outcomes):
        return 1
    return 0 if any(not outcome.problem for outcome in outcomes) else 2


def _one(name: str, module_name: str, text: str, args: argparse.Namespace) -> Outcome:
    from semaphone.commands.experiment import parser_of

    module = importlib.import_module(f"semaphone.experiments.{module_name}")
    parser = parser_of(name, module)
    known = {action.dest: action for action in parser._actions}
    missing = [dest for dest, action in known.items() if action.required and getattr(args, dest, None) is None]
    if missing:
        return Outcome(name, text, f"it needs --{missing[0].replace('_', '-')}")
    own = argparse.Namespace(**{dest: parser.get_default(dest) for dest in known if dest != "help"})
    for dest, value in vars(args).items():
        if dest in known and value is not None:
            setattr(own, dest, value)
    own.out = args.out / name
    if "results" in known:
        own.results = args.results or args.out / "results.jsonl"
    try:
        code = int(module.run(own))
    except SemaphoneError as error:
        return Outcome(name, text, str(error))
    except Exception as error:  # the others are run all the same; nobody should miss what went wrong
        traceback.print_exc()
        return Outcome(name, text, f"it broke off: {type(error).__name__}: {error}", broken=True)
    return Outcome(name, text, "" if code == 0 else f"it ended with {code}")


def _index(outcomes: list[Outcome], args: argparse.Namespace) -> None:
    parts = [
        paragraph(f"Recordings: {args.data.resolve().name}. Seed {args.seed}. {'A quick look.' if args.quick else ''}")
    ]
    for outcome in outcomes:
        title = f"{html.escape(outcome.name)}: {html.escape(outcome.text)}"
        page = args.out / outcome.name / "index.html"
        if outcome.problem or not page.is_file():
            parts.append(f"<h2>{title}</h2>" + paragraph(outcome.problem or "It left no page."))
            continue
        parts.append(f'<h2><a href="{html.escape(outcome.name)}/index.html">{title}</a></h2>')
        parts += [svg[svg.index("<svg") :] for svg in _drawings(page.parent) if "<svg" in svg]
    write_page(args.out / "index.html", "Every figure and table", parts)


def _drawings(folder: Path) -> list[str]:
    """The experiment's figures."""
    return [path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.svg"))]
