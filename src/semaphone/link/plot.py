"""A talk over the link in one picture: what was said, what was heard, which tokens went where, and the rate."""

from __future__ import annotations

import textwrap
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
PALE_BLUE, PALE_ORANGE = "#9FD3F0", "#FFC94D"
SHOWN = 30.0  # seconds of a talk that are drawn
KINDS = ("png", "svg", "pdf")


def spectrogram(
    axes: Axes, speech: NDArray[np.float32], sample_rate: int, title: str, see_through: bool = False
) -> None:
    """Levels in dB over time and frequency, 80 dB deep; `see_through`: what is quiet shows what lies behind."""
    window, hop = 512, 160
    padded = np.pad(speech, (0, max(0, window - len(speech))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop] * np.hanning(window)
    levels = 20 * np.log10(np.abs(np.fft.rfft(frames)).T + 1e-5)
    top = 30.0  # one scale for both pictures, so that they can be compared
    shown: NDArray[np.float64] = levels
    if see_through:
        opacity = np.clip((levels - top + 65) / 65, 0, 1)
        shown = np.stack([np.full_like(opacity, 0.1)] * 3 + [opacity], -1)
    axes.imshow(
        shown,
        origin="lower",
        aspect="auto",
        extent=(0, len(speech) / sample_rate, 0, sample_rate / 2000),
        cmap="magma",
        vmin=top - 80,
        vmax=top,
    )
    axes.set_ylabel("kHz")
    axes.set_title(title, loc="left", fontsize=10)


def importance(axes: Axes, masks: list[Mask], num_codebooks: int, chunk: float) -> None:
    """Behind a see-through spectrogram: how many tokens of each chunk go, and how many go twice (LargeSC Fig 9)."""
    edges = np.arange(len(masks) + 1) * chunk
    behind = axes.twinx()
    axes.set_zorder(behind.get_zorder() + 1)
    axes.patch.set_visible(False)
    behind.stairs([mask.sent for mask in masks], edges, fill=True, color=PALE_BLUE, label="tokens sent (importance)")
    behind.stairs([mask.twice for mask in masks], edges, fill=True, color=PALE_ORANGE, label="sent again (copies)")
    behind.set_ylim(0, num_codebooks)
    behind.set_ylabel("tokens")
    handles, names = behind.get_legend_handles_labels()
    axes.legend(handles, names, fontsize=8, loc="upper right", ncols=2, framealpha=0.9)


def token_map(axes: Axes, status: NDArray[np.int8], masks: list[Mask], chunk: float) -> None:
    """One cell a token: sent once, sent twice or more, lost, not sent."""
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
    names = ["not sent", "sent once", "sent again", "lost"]
    axes.legend(
        handles=[Patch(color=c, label=n) for c, n in zip(colours, names, strict=True)],
        ncols=4,
        fontsize=8,
        loc="upper right",
        framealpha=0.9,
    )
    axes.set_ylabel("codebook")
    axes.set_title("Tokens", loc="left", fontsize=10)


def _rates(axes: Axes, record: Record, end: float, chunk: float) -> None:
    """Payload in kbit/s, averaged over half a second; lost packets as ticks below; what the sender knew of them."""
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
    handles, names = axes.get_legend_handles_labels()
    if any(record.told):
        known = axes.twinx()
        count = min(len(record.told), int(np.ceil(end / chunk)))
        known.stairs(
            100 * np.array(record.told[:count]), np.arange(count + 1) * chunk, color=DARK, label="loss reported"
        )
        known.set_ylim(0, max(50.0, 110 * max(record.told)))
        known.set_ylabel("loss, %")
        more, texts = known.get_legend_handles_labels()
        handles, names = handles + more, names + texts
    axes.legend(handles, names, fontsize=8, loc="upper right", ncols=3)
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
    status = np.array(record.status[:count])
    spectrogram(axes[0], said[:samples], sample_rate, "Said, and what was found worth sending", see_through=True)
    importance(axes[0], record.masks[:count], status.shape[1], chunk)
    spectrogram(axes[1], heard[:samples], sample_rate, "Heard")
    token_map(axes[2], status, record.masks[:count], chunk)
    _rates(axes[3], record, end, chunk)
    axes[0].set_xlim(0, end)
    named = title.encode(errors="backslashreplace").decode()  # a name of a file need be no text
    figure.suptitle("\n".join(textwrap.wrap(named, 130)), fontsize=11, parse_math=False)
    figure.savefig(path, format=kind, dpi=110)
    pyplot.close(figure)
