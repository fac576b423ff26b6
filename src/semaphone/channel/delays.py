"""What packets took on a real network: one-way delays over time, played again.

A file is CSV, gzipped or not: the first column is when a packet was sent, the last how long it took, both in ms;
lines that begin with # and empty lines are passed over. Delays are counted from the quickest in the file. Between two
packets the delay is that of the earlier one; after the last the file begins anew.

Example:
    >>> trace = DelayTrace("by hand", (0.0, 0.5), (0.01, 0.2), 1.0)
    >>> trace.at(0.4), trace.at(0.6), trace.at(1.1)
    (0.01, 0.2, 0.01)
"""

from __future__ import annotations

import bisect
import gzip
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

from semaphone.errors import InputError

LARGEST_FILE = 64_000_000  # bytes, unpacked
LONGEST_DELAY = 60.0  # s


@dataclass(frozen=True)
class DelayTrace:
    """Delays over time; make one with `read_delays`."""

    name: str
    times: tuple[float, ...]  # s, ascending from 0
    delays: tuple[float, ...]  # s, the least is 0 or more
    length: float  # s until it begins anew

    def at(self, time: float) -> float:
        """The delay of a packet that is sent at a time (s, 0 or later)."""
        return self.delays[bisect.bisect_right(self.times, time % self.length) - 1]


def read_delays(path: str | Path) -> DelayTrace:
    """Reads a file of delays. Raises InputError, with the line, if it is none."""
    rows = []
    for number, line in enumerate(_text(Path(path)).splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        cells = line.split(",")
        try:
            rows.append((float(cells[0]) / 1000.0, float(cells[-1]) / 1000.0))
        except ValueError:
            raise InputError(f"Line {number} of {path} should hold numbers with commas: a time and a delay.") from None
        if len(cells) < 2 or not all(math.isfinite(x) for x in rows[-1]):
            raise InputError(f"Line {number} of {path} holds no time and delay in ms.")
    if len(rows) < 2:
        raise InputError(f"{path} holds fewer than two delays.")
    rows.sort()
    begin, quickest = rows[0][0], min(delay for _, delay in rows)
    times, delays = tuple(time - begin for time, _ in rows), tuple(delay - quickest for _, delay in rows)
    if max(delays) > LONGEST_DELAY or times[-1] <= 0:
        raise InputError(f"The delays in {path} differ by more than {LONGEST_DELAY:g} s, or all are of one time.")
    return DelayTrace(str(path), times, delays, times[-1] * len(times) / (len(times) - 1))


def _text(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else open(path, "rb") as file:
            content = file.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            raise InputError(f"{path} is larger than {LARGEST_FILE // 1_000_000} MB.")
        return content.decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(f"The delays in {path} cannot be read: {error}.") from None
