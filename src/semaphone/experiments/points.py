"""From rows to figures: means and pooled error rates with bootstrap intervals, and paired differences.

Intervals are over utterances: the weathers of one recording are not independent of each other. Differences are
paired: the same recording in the same weather through two systems.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from semaphone.errors import InputError

if TYPE_CHECKING:
    from semaphone.metrics.bootstrap import Interval

Row = dict[str, Any]

# Σ errors / Σ units
POOLED = {
    "wer": ("word_errors", "words"),
    "cer": ("character_errors", "characters"),
    "phone_error_rate": ("phone_errors", "phones"),
}
_SEED = 1  # of the resamples


def title_of(metric: str) -> str:
    """The metric's name for people."""
    from semaphone.metrics.scores import METRICS

    return METRICS[metric].title


def shown(interval: Interval | None, metric: str) -> str:
    """A figure with half of its interval, or a dash."""
    from semaphone.metrics.scores import METRICS

    if interval is None:
        return "–"
    digits = METRICS[metric].digits
    return f"{interval.mean:.{digits}f} ± {(interval.high - interval.low) / 2:.{digits}f}"


def mean(rows: Sequence[Row], name: str) -> float:
    """Of a figure that every row has."""
    return float(np.mean([row[name] for row in rows])) if rows else float("nan")


def estimate(rows: Sequence[Row], metric: str) -> Interval | None:
    """The mean over rows, or the pooled rate of errors, with its interval; `None` if no row has a value."""
    from semaphone.metrics.bootstrap import bootstrap_mean, bootstrap_ratio

    files = [row["file"] for row in rows]
    rng = np.random.default_rng(_SEED)
    try:
        if metric in POOLED:
            above, below = POOLED[metric]
            return bootstrap_ratio([row.get(above) for row in rows], _units(rows, below), rng, files)
        return bootstrap_mean([row.get(metric) for row in rows], rng, files)
    except InputError:
        return None


def difference(ours: Sequence[Row], theirs: Sequence[Row], metric: str) -> Interval | None:
    """Ours − theirs over the recordings and weathers that both have; of rates of errors, Σ differences / Σ units."""
    from semaphone.metrics.bootstrap import bootstrap_ratio, paired_difference

    other = {(row["file"], row["draw"]): row for row in theirs}
    pairs = [(row, other[place]) for row in ours if (place := (row["file"], row["draw"])) in other]
    files = [row["file"] for row, _ in pairs]
    rng = np.random.default_rng(_SEED)
    try:
        if metric not in POOLED:
            left, right = [a.get(metric) for a, _ in pairs], [b.get(metric) for _, b in pairs]
            return paired_difference(left, right, rng, files)
        above, below = POOLED[metric]
        differences = [None if None in (a.get(above), b.get(above)) else a[above] - b[above] for a, b in pairs]
        return bootstrap_ratio(differences, _units([a for a, _ in pairs], below), rng, files)
    except InputError:
        return None


def _units(rows: Sequence[Row], name: str) -> list[float]:
    return [float(row.get(name) or 0) for row in rows]


def better(interval: Interval | None, metric: str) -> bool:
    """True if the difference ours − theirs is for us, zero outside of its interval."""
    from semaphone.metrics.scores import METRICS

    if interval is None:
        return False
    return interval.low > 0 if METRICS[metric].higher_is_better else interval.high < 0


def said(interval: Interval | None, metric: str) -> str:
    """A difference and its interval in figures."""
    from semaphone.metrics.scores import METRICS

    if interval is None:
        return "no value"
    digits = METRICS[metric].digits
    return f"{interval.mean:+.{digits}f} [{interval.low:+.{digits}f}, {interval.high:+.{digits}f}]"
