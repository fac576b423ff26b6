"""How sure is a mean? Bootstrap intervals, clustered by utterance, paired where two systems said the same sentences.

Each resample draws whole utterances with all their rows (the seeds of the channel), because rows of one utterance
are not independent of each other.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semaphone.errors import InputError

Values = Sequence[float | None] | NDArray[np.floating]


@dataclass(frozen=True)
class Interval:
    """An estimate with the interval that holds the middle `level` of its bootstrap distribution."""

    mean: float
    low: float
    high: float
    level: float  # 0.95
    utterances: int  # clusters that had a value

    @property
    def excludes_zero(self) -> bool:
        """True if zero lies outside: for a paired difference, the two systems differ at this level."""
        return self.low > 0 or self.high < 0


def bootstrap_mean(
    values: Values,
    rng: np.random.Generator,
    clusters: Sequence[Hashable] | None = None,
    resamples: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Mean of `values` [N]; `None` and NaN are left out. `clusters` [N] names each row's utterance (all different).

    Raises InputError if there is no value or the lengths differ.
    """
    numerators = _as_array(values)
    return _bootstrap(numerators, np.ones(len(numerators)), rng, clusters, resamples, level)


def paired_difference(
    ours: Values,
    theirs: Values,
    rng: np.random.Generator,
    clusters: Sequence[Hashable] | None = None,
    resamples: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Mean of `ours - theirs` [N], row by row; rows where either is missing are left out.

    Raises InputError if no pair is complete or the lengths differ.
    """
    left, right = _as_array(ours), _as_array(theirs)
    if len(left) != len(right):
        raise InputError(f"A paired difference of {len(left)} and {len(right)} values: rows must match one by one.")
    return _bootstrap(left - right, np.ones(len(left)), rng, clusters, resamples, level)


def bootstrap_ratio(
    numerators: Values,
    denominators: Values,
    rng: np.random.Generator,
    clusters: Sequence[Hashable] | None = None,
    resamples: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Σ numerators / Σ denominators, such as the errors and words of a corpus' word error rate.

    Raises InputError if there is no row with a denominator over 0 or the lengths differ.
    """
    top, bottom = _as_array(numerators), _as_array(denominators)
    if len(top) != len(bottom):
        raise InputError(f"A ratio of {len(top)} and {len(bottom)} values: rows must match one by one.")
    return _bootstrap(np.where(bottom > 0, top, np.nan), bottom, rng, clusters, resamples, level)


def _as_array(values: Values) -> NDArray[np.float64]:
    return np.array([np.nan if value is None else float(value) for value in values], dtype=np.float64)


def _bootstrap(
    numerators: NDArray[np.float64],
    denominators: NDArray[np.float64],
    rng: np.random.Generator,
    clusters: Sequence[Hashable] | None,
    resamples: int,
    level: float,
) -> Interval:
    if not 0 < level < 1:
        raise InputError(f"An interval of level {level} is not between 0 and 1.")
    if resamples < 1:
        raise InputError(f"{resamples} resamples are too few.")
    names = list(range(len(numerators))) if clusters is None else list(clusters)
    if len(names) != len(numerators):
        raise InputError(f"{len(names)} utterances are named for {len(numerators)} values.")
    there = np.isfinite(numerators) & np.isfinite(denominators)
    if not there.any():
        raise InputError("There is no value to take a mean of.")
    number: dict[Hashable, int] = {}
    index = np.array([number.setdefault(name, len(number)) for name, ok in zip(names, there, strict=True) if ok])
    top = np.bincount(index, weights=numerators[there])
    bottom = np.bincount(index, weights=denominators[there])
    drawn = rng.integers(0, len(top), size=(resamples, len(top)))
    estimates = top[drawn].sum(axis=1) / bottom[drawn].sum(axis=1)
    low, high = np.quantile(estimates, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(top.sum() / bottom.sum()), float(low), float(high), level, len(top))
