"""Make a block of speech a little longer or shorter, by one splice where nobody hears it.

Some milliseconds are repeated or left out at the place where the speech is most like itself that much later,
with a crossfade (the idea of WSOLA, Verhelst and Roelands 1993, done once a block). Pitch stays as it is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]


def stretch(speech: Samples, length: int, crossfade: int) -> Samples:
    """Speech [n] → [length]; `crossfade` in samples. Needs |length − n| + crossfade <= n, else ValueError."""
    shift = abs(length - len(speech))
    if shift == 0:
        return speech
    if shift + crossfade > len(speech):
        raise ValueError(f"{len(speech)} samples cannot be spliced to {length}")
    here, there = _place(speech, shift, crossfade)
    fade = np.linspace(0.0, 1.0, crossfade, dtype=np.float32)
    first, second = (here, there) if length < len(speech) else (there, here)
    middle = speech[first : first + crossfade] * (1 - fade) + speech[second : second + crossfade] * fade
    return np.concatenate([speech[:first], middle, speech[second + crossfade :]])


def _place(speech: Samples, shift: int, width: int) -> tuple[int, int]:
    """The two places, `shift` apart, whose `width` samples differ least; weak sound counts as alike."""
    difference = (speech[shift:].astype(np.float64) - speech[:-shift]) ** 2
    sums = np.concatenate([[0.0], np.cumsum(difference)])
    place = int(np.argmin(sums[width:] - sums[:-width]))
    return place, place + shift
