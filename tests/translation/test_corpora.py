"""Recordings with references: CSV files and FLEURS folders."""

from __future__ import annotations

import pytest

from semaphone.errors import InputError
from semaphone.translation.corpora import load_pairs


def test_csv(tmp_path):
    table = tmp_path / "r.csv"
    table.write_text("file,language,text\na.wav,fr,Bonjour ||| Hello\nb.wav,de,Hallo ||| Hello\nc.wav,fr,Salut\n")
    pairs = load_pairs(table, "fra", "eng")
    assert [(p.file, p.reference) for p in pairs] == [(tmp_path / "a.wav", "Hello")]
    table.write_text("file,reference\na.wav,One\nb.wav,Two\n")
    assert [p.reference for p in load_pairs(table, "fra", "eng", limit=1)] == ["One"]


def test_fleurs(tmp_path):
    for folder, rows in (
        ("fr_fr", "7\tx.wav\tBonjour.\tbonjour\n9\ty.wav\tNon.\tnon\n"),
        ("en_us", "7\tz.wav\tHello.\thello\n"),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "test.tsv").write_text(rows)
    pairs = load_pairs(tmp_path, "fra", "eng")
    assert [(p.file, p.reference) for p in pairs] == [(tmp_path / "fr_fr" / "audio" / "test" / "x.wav", "Hello.")]
    with pytest.raises(InputError, match="no FLEURS folder for deu"):
        load_pairs(tmp_path, "deu", "eng")
    with pytest.raises(InputError, match="is missing"):
        load_pairs(tmp_path, "fra", "eng", split="dev")


def test_what_is_no_corpus(tmp_path):
    (tmp_path / "x.csv").write_text("name\n1\n")
    for path in (tmp_path / "x.csv", tmp_path / "missing"):
        with pytest.raises(InputError):
            load_pairs(path, "fra", "eng")
