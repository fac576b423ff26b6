"""Means, pooled rates and paired differences."""

from __future__ import annotations

import pytest

from semaphone.experiments import points


def rows(values, metric="plcmos"):
    return [{"file": f"{i}.wav", "draw": 0, metric: value} for i, value in enumerate(values)]


def errors(pairs):
    return [{"file": f"{i}.wav", "draw": 0, "word_errors": e, "words": w} for i, (e, w) in enumerate(pairs)]


def test_errors_are_pooled():
    found = points.estimate(errors([(1, 2), (0, 8)]), "wer")
    assert found is not None
    assert found.mean == pytest.approx(0.1)
    assert points.estimate([], "wer") is None
    assert points.shown(None, "wer") == "–"


def test_differences_are_paired_and_know_what_is_better():
    ours, theirs = rows([3.0, 2.0, 4.0]), rows([2.9, 1.9, 3.9])[::-1]
    found = points.difference(ours, theirs, "plcmos")
    assert found is not None
    assert found.mean == pytest.approx(0.1)
    assert points.better(found, "plcmos")
    assert not points.better(points.difference(theirs, ours, "plcmos"), "plcmos")
    fewer = points.difference(errors([(1, 10), (2, 10)]), errors([(3, 10), (4, 10)]), "wer")
    assert fewer is not None
    assert fewer.mean == pytest.approx(-0.2)
    assert points.better(fewer, "wer")
    assert points.said(fewer, "wer").startswith("-0.200 [")
    assert points.difference(ours, [], "plcmos") is None
    assert not points.better(None, "plcmos")
