"""A talk over the link in one picture: what was said, what was heard, which tokens went where, and the rate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from semaphone.controller.base import Mask
from semaphone.packet.status import TokenStatus

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from semaphone.link.simulate import Record

# Colours that stay apart for colour-blind eyes (after Okabe and Ito).
BLUE, ORANGE, GREY, DARK, GREEN = "#0072B2", "#E69F00", "#DDDDDD", "#222222", "#009E73"
SHOWN = 30.0  # seconds of a talk that are drawn
KINDS = ("png", "svg", "pdf")


def spectrogram(axes: Axes, speech: NDArray[np.float32], sample_rate: int, title: str) -> None:
    """Levels in dB over time and frequency, 80 dB deep."""
    window, hop = 512, 160
    padded = np.pad(speech, (0, max(0, window - len(speech))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop] * np.hanning(window)
    levels = 20 * np.log10(np.abs(np.fft.rfft(frames)).T + 1e-5)
    top = 30.0  # one scale for both pictures, so that they can be compared
    axes.imshow(
        levels,
        origin="lower",
        aspect="auto",
        extent=(0, len(speech) / sample_rate, 0, sample_rate / 2000),
        cmap="magma",
        vmin=top - 80,
        vmax=top,
    )
    axes.set_ylabel("kHz")
    axes.set_title(title, loc="left", fontsize=10)


def _token_map(axes: Axes, status: NDArray[np.int8], masks: list[Mask], chunk: float) -> None:
    """One cell a token: sent once, sent twice, lost, not sent."""
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    sent = np.array([mask.sent for mask in masks])[:, None]
    twice = np.array([mask.twice for mask in masks])[:, None]
    j = np.arange(status.shape[1])[None, :]
    kind = np.where(j < twice, 2, np.where(j < sent, 1, 0))
    kind = np.where((j < sent) & (status != TokenStatus.RECEIVED), 3, kind)
    colours = [GREY, BLUE, GREEN, ORANGE]
    axes.imshow(
        kind.T,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        cmap=ListedColormap(colours),
        vmin=0,
        vmax=3,
        extent=(0, len(status) * chunk, 0.5, status.shape[1] + 0.5),
    )
    names = ["not sent", "sent once", "sent twice", "lost"]
    axes.legend(
        handles=[Patch(color=c, label=n) for c, n in zip(colours, names, strict=True)],
        ncols=4,
        fontsize=8,
        loc="upper right",
        framealpha=0.9,
    )
    axes.set_ylabel("codebook")
    axes.set_title("Tokens", loc="left", fontsize=10)


def _rates(axes: Axes, record: Record, end: float) -> None:
    """Payload in kbit/s, averaged over half a second; lost packets as ticks below."""
    times = np.array([time for time, *_ in record.packets])
    bits = np.array([8 * size for _, size, *_ in record.packets], np.float64)
    gone = np.array([lost for *_, lost in record.packets], bool)
    width = 0.48
    edges = np.arange(0, max(end, width) + width, width)
    rate = np.histogram(times, edges, weights=bits)[0] / width / 1000
    axes.stairs(rate, edges, color=BLUE, linewidth=1.5, label="payload")
    axes.plot(times[gone], np.zeros(gone.sum()), "|", color=ORANGE, markersize=12, label="packet lost")
    axes.set_ylim(-0.1, max(rate.max(initial=0.0) * 1.25, 1.0))
    axes.set_ylabel("kbit/s")
    axes.set_xlabel("time (s)")
    axes.legend(fontsize=8, loc="upper right", ncols=2)
    axes.set_title("Rate", loc="left", fontsize=10)


def plot_link(
    path: Path,
    kind: str,
    said: NDArray[np.float32],
    heard: NDArray[np.float32],
    record: Record,
    sample_rate: int,
    chunk: float,
    title: str,
) -> None:
    """Draw the first half minute of a talk. `chunk` is its length in s; `kind` is png, svg or pdf."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    end = min(len(said) / sample_rate, SHOWN)
    count = max(1, min(len(record.masks), int(np.ceil(end / chunk))))
    figure: Any
    figure, axes = pyplot.subplots(4, 1, figsize=(11, 9), sharex=True, layout="constrained")
    samples = int(end * sample_rate)
    spectrogram(axes[0], said[:samples], sample_rate, "Said")
    spectrogram(axes[1], heard[:samples], sample_rate, "Heard")
    _token_map(axes[2], np.array(record.status[:count]), record.masks[:count], chunk)
    _rates(axes[3], record, end)
    axes[0].set_xlim(0, end)
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, format=kind, dpi=110)
    pyplot.close(figure)
