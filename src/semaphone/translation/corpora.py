"""Recordings with a reference translation: a CSV file of one's own, or a folder of FLEURS.

CSV      columns `file` (relative to the CSV) and `reference`; or `text` holding `original ||| translation`, as
         some corpora write it; an optional column `language` (ISO 639-1 or 639-3) picks the rows of the source
FLEURS   FOLDER/fr_fr/test.tsv with FOLDER/fr_fr/audio/test/*.wav, and the same for the other language; sentences
         belong together by their number
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from semaphone.errors import InputError
from semaphone.translation.languages import WHISPER, iso_code

# FLEURS names its folders by language and country; others are found by their two letters.
_FLEURS_FOLDERS = {"cmn": "cmn_hans_cn", "eng": "en_us", "por": "pt_br", "spa": "es_419"}


@dataclass(frozen=True)
class Pair:
    """One recording and what its translation should say."""

    file: Path
    reference: str


def load_pairs(source: Path, spoken: str, wanted: str, split: str = "test", limit: int | None = None) -> list[Pair]:
    """The recordings of a CSV file or a FLEURS folder, at most `limit` of them; InputError if there are none."""
    if source.is_dir():
        pairs = _fleurs(source, iso_code(spoken), iso_code(wanted), split)
    elif source.is_file():
        pairs = _from_csv(source, iso_code(spoken))
    else:
        raise InputError(f"{source} is neither a CSV file of recordings nor a FLEURS folder.")
    if not pairs:
        raise InputError(f"{source} holds no recordings in {spoken} with a translation.")
    return pairs[:limit]


def _from_csv(source: Path, spoken: str) -> list[Pair]:
    pairs: list[Pair] = []
    with open(source, encoding="utf-8", newline="") as lines:
        reader = csv.DictReader(lines)
        names = set(reader.fieldnames or ())
        if "file" not in names or not names & {"reference", "text"}:
            raise InputError(f"{source} needs the columns file and reference.")
        for row in reader:
            reference = row.get("reference") or row["text"].partition("|||")[2]
            language = row.get("language") or spoken
            if reference.strip() and language.lower()[:2] in (WHISPER[spoken], spoken[:2]):
                pairs.append(Pair(source.parent / row["file"], reference.strip()))
    return pairs


def _fleurs_folder(root: Path, code: str) -> Path:
    named = root / _FLEURS_FOLDERS.get(code, "-")
    if named.is_dir():
        return named
    found = sorted(root.glob(f"{WHISPER[code]}_*"))
    if not found:
        raise InputError(f"{root} has no FLEURS folder for {code}.")
    return found[0]


def _fleurs_rows(folder: Path, split: str) -> list[list[str]]:
    table = folder / f"{split}.tsv"
    if not table.is_file():
        raise InputError(f"{table} is missing; FLEURS has train.tsv, dev.tsv and test.tsv in each folder.")
    with open(table, encoding="utf-8", newline="") as lines:
        rows = [row for row in csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE) if row]
    if any(len(row) < 4 for row in rows):
        raise InputError(f"{table} is not a FLEURS table: it needs number, file, sentence and transcription.")
    return rows


def _fleurs(root: Path, spoken: str, wanted: str, split: str) -> list[Pair]:
    """Every recording of the source language whose sentence exists in the target language."""
    folder = _fleurs_folder(root, spoken)
    sentences = {row[0]: row[2] for row in _fleurs_rows(_fleurs_folder(root, wanted), split)}
    rows = [row for row in _fleurs_rows(folder, split) if row[0] in sentences]
    return [Pair(folder / "audio" / split / row[1], sentences[row[0]]) for row in rows]
