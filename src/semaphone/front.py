"""The library's front door: what `import semaphone` offers, on NumPy arrays, checked where it comes in.

    import semaphone

    codec = semaphone.load_codec("nano")
    tokens = codec.encode(speech, sample_rate=48_000)
    link = semaphone.Link(codec, channel="uniform:0.1")
    heard = link.transmit(speech, sample_rate=48_000, seed=7)

Underneath, codec and link take explicit states ([architecture.md](../docs/architecture.md)); `Codec.explicit` is that
codec.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semaphone.errors import InputError
from semaphone.files import replacing

if TYPE_CHECKING:
    from semaphone.codec.base import Codec as ExplicitCodec
    from semaphone.codec.base import CodecInfo
    from semaphone.link.report import LinkReport
    from semaphone.link.simulate import Record
    from semaphone.metrics.scores import Scores

Speech = NDArray[np.float32]
Tokens = NDArray[np.int64]


def _speech(speech: ArrayLike, rate: int, sample_rate: int | None, most: int = 2) -> Speech:
    """Speech as float32 [..., N] at `rate`. Raises InputError for what is no speech."""
    try:
        x = np.asarray(speech)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"Speech should be an array of samples: {error}.") from None
    if not 1 <= x.ndim <= most or not x.size:
        shapes = "[N]" if most == 1 else "[N] or [B, N]"
        raise InputError(f"Speech has the shape {shapes} with at least one sample, not {x.shape}.")
    if x.dtype.kind == "i" and x.dtype.itemsize == 2:
        x = x / np.float32(32768.0)
    elif x.dtype.kind != "f":
        raise InputError(f"Speech has samples in [-1, 1] as floats, or 16-bit integers, not {x.dtype}.")
    x = np.asarray(x, np.float32)
    if not np.isfinite(x).all():
        raise InputError("Speech has a sample that is not a finite number.")
    if sample_rate is not None and sample_rate != rate:
        import soxr

        if not 4000 <= sample_rate <= 384_000:
            raise InputError(f"A sample rate is 4000 to 384000 Hz, not {sample_rate}.")
        x = np.ascontiguousarray(soxr.resample(x.T, sample_rate, rate, quality="HQ").T, np.float32)
    return x.clip(-1.0, 1.0)


class Codec:
    """Speech ⇄ tokens, for arrays of any length.

    Example:
        >>> import numpy as np, semaphone
        >>> codec = semaphone.load_codec("nano")
        >>> tokens = codec.encode(np.zeros(16_000, np.float32))
        >>> tokens.shape
        (16, 13)
        >>> codec.decode(tokens, length=16_000).shape
        (16000,)
    """

    def __init__(self, explicit: ExplicitCodec) -> None:
        """`explicit`: a codec with explicit state (`semaphone.codec.base.Codec`)."""
        self.explicit = explicit

    @property
    def info(self) -> CodecInfo:
        """Its facts: sample rate in Hz, chunks a second, codebooks, entries of a codebook, delay in samples."""
        return self.explicit.info

    def __repr__(self) -> str:
        return f"<semaphone codec {self.info.name}, {self.info.num_codebooks} codebooks at {self.info.frame_rate} Hz>"

    def encode(self, speech: ArrayLike, *, sample_rate: int | None = None, num_codebooks: int | None = None) -> Tokens:
        """Tokens of speech.

        Args:
            speech: [N] or [B, N], floats in [-1, 1] or 16-bit integers; an array or a tensor.
            sample_rate: of `speech` in Hz (default: the codec's).
            num_codebooks: how many leading codebooks (default: all).

        Returns:
            int64 [N_Q, T] or [B, N_Q, T]; T chunks hold all of the speech and the codec's delay.

        Raises:
            InputError: what is no speech, or a number of codebooks that the codec has not.
        """
        import torch

        count = _count(num_codebooks, self.info)
        x = _speech(speech, self.info.sample_rate, sample_rate)
        rows = np.atleast_2d(x)
        size = self.info.chunk_samples
        chunks = -(-(rows.shape[1] + self.info.delay) // size)
        padded = np.zeros((len(rows), chunks * size), np.float32)
        padded[:, : rows.shape[1]] = rows
        tokens: Tokens = self.explicit.encode(torch.from_numpy(padded), num_codebooks=count).tokens.numpy()
        return tokens if x.ndim == 2 else tokens[0]

    def decode(self, tokens: ArrayLike, *, length: int | None = None) -> Speech:
        """Speech of tokens, aligned with what was encoded.

        Args:
            tokens: [K, T] or [B, K, T], whole numbers; any number K of leading codebooks.
            length: samples to give (default: all that the tokens hold).

        Returns:
            float32 [N] or [B, N] at the codec's sample rate.

        Raises:
            InputError: what are no tokens of this codec.
        """
        x = _tokens(tokens, self.info)
        rows = x if x.ndim == 3 else x[None]
        import torch

        made: Speech = self.explicit.decode(torch.from_numpy(rows)).speech.numpy()[:, self.info.delay :]
        if length is not None:
            if not 0 <= length <= made.shape[1]:
                raise InputError(f"These tokens hold 0 to {made.shape[1]} samples, not {length}.")
            made = made[:, :length]
        return made if x.ndim == 3 else made[0]

    def stream(self) -> CodecStream:
        """A stream that remembers where it is; each direction has a state of its own."""
        return CodecStream(self.explicit)


class CodecStream:
    """One talk through a codec, block by block. Sugar over the explicit state.

    Example:
        >>> import numpy as np, semaphone
        >>> stream = semaphone.load_codec("nano").stream()
        >>> stream.encode(np.zeros(2_000, np.float32)).shape  # whole chunks come out, the rest waits
        (16, 1)
        >>> stream.encode(np.zeros(2_000, np.float32)).shape
        (16, 2)
    """

    def __init__(self, explicit: ExplicitCodec) -> None:
        self._codec = explicit
        self._waiting = np.zeros(0, np.float32)
        self._encoder: Any = None
        self._decoder: Any = None

    def encode(self, block: ArrayLike) -> Tokens:
        """Tokens [N_Q, T] of the chunks that a block [N] at the codec's rate completes; T may be 0."""
        import torch

        info = self._codec.info
        samples = np.concatenate([self._waiting, _speech(block, info.sample_rate, None, most=1)])
        whole = len(samples) // info.chunk_samples * info.chunk_samples
        self._waiting = samples[whole:]
        if not whole:
            return np.zeros((info.num_codebooks, 0), np.int64)
        encoded = self._codec.encode(torch.from_numpy(samples[None, :whole]), self._encoder)
        self._encoder = encoded.state
        tokens: Tokens = encoded.tokens[0].numpy()
        return tokens

    def decode(self, tokens: ArrayLike) -> Speech:
        """Speech [T * chunk] of tokens [K, T]. It lags by the codec's delay, as a stream has no end to cut."""
        import torch

        x = _tokens(tokens, self._codec.info)
        if x.ndim != 2:
            raise InputError(f"A stream takes tokens of the shape [K, T], not {x.shape}.")
        decoded = self._codec.decode(torch.from_numpy(x[None]), self._decoder)
        self._decoder = decoded.state
        speech: Speech = decoded.speech[0].numpy()
        return speech


def _count(num_codebooks: int | None, info: CodecInfo) -> int | None:
    if num_codebooks is not None and not 1 <= num_codebooks <= info.num_codebooks:
        raise InputError(f"{info.name} has 1 to {info.num_codebooks} codebooks, not {num_codebooks}.")
    return num_codebooks


def _tokens(tokens: ArrayLike, info: CodecInfo) -> Tokens:
    """Tokens as int64 [(B,) K, T]. Raises InputError for what are no tokens of the codec."""
    try:
        x = np.asarray(tokens)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"Tokens should be an array of whole numbers: {error}.") from None
    if x.dtype.kind not in "iu":
        raise InputError(f"Tokens are whole numbers, not {x.dtype}.")
    if x.ndim not in (2, 3) or not x.size or not 1 <= x.shape[-2] <= info.num_codebooks:
        raise InputError(f"Tokens have the shape [K, T] or [B, K, T] with K in 1..{info.num_codebooks}, not {x.shape}.")
    if x.min() < 0 or x.max() >= info.codebook_size:
        raise InputError(f"Tokens of {info.name} are 0 to {info.codebook_size - 1}, not {x.min()} to {x.max()}.")
    return np.ascontiguousarray(x, np.int64)


def load_codec(name: str = "nano") -> Codec:
    """A codec by name: `nano`, `mimi`, `mimi:FOLDER`, a file of nano weights, or one that was registered.

    Raises:
        InputError: there is no such codec, or its weights cannot be had.

    Example:
        >>> import semaphone
        >>> semaphone.load_codec("nano").info.sample_rate
        16000
    """
    from semaphone.codec.registry import load_codec as load

    return Codec(load(name))


@dataclass(frozen=True)
class Transmission:
    """What came of sending speech over a link."""

    speech: Speech  # [N] at the codec's sample rate, aligned with what was said and as long
    report: LinkReport  # rates in bit/s, losses, delays in ms
    said: Speech  # [N], what was sent, at the codec's rate
    record: Record  # masks, statuses and packets, chunk by chunk
    codec: CodecInfo

    def plot(self, path: str | Path) -> None:
        """Draw the talk: spectrograms, tokens and rate (.png, .svg or .pdf). Raises InputError for another suffix."""
        from semaphone.link.plot import KINDS, SHOWN, plot_link

        if Path(path).suffix[1:].lower() not in KINDS:
            raise InputError(f"{path} should end in {', '.join('.' + kind for kind in KINDS)}.")
        kind = Path(path).suffix[1:].lower()
        shown, chunk = int(SHOWN * self.codec.sample_rate), 1.0 / self.codec.frame_rate
        title = f"{self.report.channel}: {self.report.packet_loss_rate:.1%} of the packets lost"
        with replacing(path) as part:
            plot_link(
                part, kind, self.said[:shown], self.speech[:shown], self.record, self.codec.sample_rate, chunk, title
            )


class Link:
    """Codec, controller, packets, channel and recovery: one way of a talk, simulated.

    Example:
        >>> import numpy as np, semaphone
        >>> link = semaphone.Link("nano", channel="uniform:0.2", controller="fixed", codebooks=8, copies=2)
        >>> heard = link.transmit(np.zeros(16_000, np.float32), seed=7)
        >>> heard.speech.shape
        (16000,)
    """

    def __init__(
        self,
        codec: Codec | str = "nano",
        *,
        recovery: str | None = None,
        controller: str | None = None,
        channel: str = "none",
        schedule: str = "sliding",
        codebooks: int | None = None,
        copies: int | None = None,
        bitrate: float | None = None,
        horizon: int | None = None,
    ) -> None:
        """A link.

        Args:
            codec: a codec or its name.
            recovery: lm, hold, none, a file of weights, or a registered one (default: lm where there are weights).
            controller: adaptive, budget, fixed, or a registered one (default: what `transmit` takes).
            channel: none, uniform:LOSS, gilbert-elliott:loss=…,burst=…ms, trace:FILE, schedule:… or a registered one.
            schedule: sliding, split, block, bundle:80ms, bundle:160ms, bundle:320ms or history.
            codebooks: tokens sent of each chunk (1 to the codec's), for a fixed controller.
            copies: how many of them go twice, or under `history` in every packet of the horizon (default there: all).
            bitrate: payload in bit/s, in place of a number of codebooks.
            horizon: of a history, in packets.

        Raises:
            InputError: what does not exist or does not go together.
        """
        from semaphone.channel.erasure import parse_channel
        from semaphone.link.assembly import assembled

        self.codec = load_codec(codec) if isinstance(codec, str) else codec
        self._link, self._recovery = assembled(
            self.codec.explicit,
            parse_channel(channel),
            recovery=recovery,
            controller=controller,
            schedule=schedule,
            codebooks=codebooks,
            copies=copies,
            bitrate=bitrate,
            horizon=horizon,
        )

    def transmit(self, speech: ArrayLike, *, sample_rate: int | None = None, seed: int = 0) -> Transmission:
        """Send speech [N] (floats in [-1, 1] or 16-bit integers). The same seed loses the same packets.

        Raises:
            InputError: what is no speech.
        """
        from semaphone.link.simulate import Record, simulate

        if seed < 0:
            raise InputError(f"A seed is 0 or more, not {seed}.")
        said = _speech(speech, self.codec.info.sample_rate, sample_rate, most=1)
        record = Record()
        heard = np.concatenate(list(simulate([said], self._link, seed, record)))
        report = record.report(self._link, seed, self._recovery)
        return Transmission(heard, report, said, record, self.codec.info)


def evaluate(
    reference: ArrayLike,
    degraded: ArrayLike,
    sample_rate: int = 16_000,
    *,
    metrics: list[str] | None = None,
    **more: Any,
) -> Scores:
    """Scores of degraded speech [M] against its original [N], both at `sample_rate` Hz; see `semaphone.metrics.scores`.

    Args:
        metrics: visqol, pesq, stoi, plcmos, dnsmos, utmos, wer, cer, phone_error_rate, log_f0_rmse,
            speaker_similarity (default: all whose packages are installed).
        more: `text`, `language`, `max_delay_s`, `same_timing` of `semaphone.metrics.scores.evaluate`.

    Raises:
        InputError: speech that cannot be compared, unknown metrics.
        MissingExtraError: a metric was named whose package is not installed.
    """
    from semaphone.metrics.scores import evaluate as score

    ours = [_speech(x, sample_rate, None, most=1) for x in (reference, degraded)]
    return score(ours[0], ours[1], sample_rate, metrics=metrics, **more)
