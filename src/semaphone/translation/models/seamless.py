"""SeamlessM4T v2 (the paper's large speech model): speech → units → speech, all its pairs, segment by segment.

    compress   the feature front end of the model itself: 160 numbers every 20 ms, in 16 bits
    extract    speech encoder with its adapter: rows of 1024 numbers every 160 ms are F
    generate   text decoder and text-to-unit model read F̂ and write units: P̂
    speak      unit duration predictor and vocoder: the paper's speech predictor

The classes of transformers hold these parts in one model whose `generate` runs all of them. Here the speech encoder
and the vocoder are taken out and put on the machines where the paper has them; what stands in their places hands
features in and units out. Each segment is translated alone, as in the paper.
"""

from __future__ import annotations

import functools
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from semaphone.errors import InputError, MissingExtraError
from semaphone.hub import local_only
from semaphone.translation.languages import iso_code
from semaphone.translation.models.base import Burst, ModelInfo, Phrase, State, Upload
from semaphone.translation.repetition import loops
from semaphone.translation.segmenter import Segment

DEFAULT_WEIGHTS = "facebook/seamless-m4t-v2-large"
# ISO 639-3 codes of whole languages → those of the varieties that the model names.
_VARIETIES = {
    "ara": "arb", "aze": "azj", "fas": "pes", "lav": "lvs", "mon": "khk", "msa": "zsm", "nep": "npi", "nor": "nob",
    "pus": "pbt", "swa": "swh", "uzb": "uzn",
}  # fmt: skip
_REMEMBERED = 400  # characters of earlier segments in which a loop may have begun
_SHORTEST = 0.1  # s; shorter ends of a talk hold no word, and too few frames for the adapter


@dataclass(frozen=True)
class SeamlessConfig:
    """Settings of Seamless."""

    source: str = "fra"  # ISO 639-3; the model finds the language of speech by itself
    target: str = "eng"  # ISO 639-3, one of the languages it speaks
    weights: str = ""  # hub id or folder; "" is facebook/seamless-m4t-v2-large
    threads: int = 0  # of torch; 0 leaves them as they are
    speaker: int = 0  # of the vocoder
    longest_text: int = 64  # tokens a segment at the most

    def __post_init__(self) -> None:
        if self.threads < 0 or self.speaker < 0 or not 1 <= self.longest_text <= 512:
            raise InputError("Threads and speaker cannot be negative, and a segment has 1 to 512 tokens of text.")


class _FeaturesIn(nn.Module):
    """Stands where the speech encoder was: what arrived is the features already."""

    main_input_name = "input_features"

    def forward(self, input_features: Tensor, **_: Any) -> Any:
        outputs = importlib.import_module("transformers.modeling_outputs")
        return outputs.BaseModelOutput(last_hidden_state=input_features)


class _UnitsOut(nn.Module):
    """Stands where the vocoder was: units leave as they are."""

    def forward(self, input_ids: Tensor, **_: Any) -> tuple[Tensor, Tensor]:
        return input_ids, torch.tensor([input_ids.shape[-1]])


def _load(weights: str) -> tuple[Any, Any, Any]:
    """Model, feature extractor and tokenizer (None where a folder has none)."""
    try:
        library: Any = importlib.import_module("transformers")
    except ImportError:
        raise MissingExtraError("Seamless", "large") from None
    name = weights or DEFAULT_WEIGHTS
    where = {"local_files_only": local_only(name, "Seamless")}
    try:
        model = library.SeamlessM4Tv2ForSpeechToSpeech.from_pretrained(name, **where)
        if not Path(name).is_dir() or (Path(name) / "preprocessor_config.json").is_file():
            extractor = library.SeamlessM4TFeatureExtractor.from_pretrained(name, **where)
        else:
            extractor = library.SeamlessM4TFeatureExtractor()
        has_words = not Path(name).is_dir() or (Path(name) / "tokenizer_config.json").is_file()
        tokenizer = library.AutoTokenizer.from_pretrained(name, **where) if has_words else None
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"Seamless could not be loaded from {name} ({reason}).") from None
    return model.eval().requires_grad_(False), extractor, tokenizer


class SeamlessTranslator:
    """The four steps over SeamlessM4Tv2ForSpeechToSpeech; see the top of this file."""

    def __init__(self, config: SeamlessConfig | None = None, parts: tuple[Any, Any, Any] | None = None) -> None:
        self.config = config or SeamlessConfig()
        model, self._extractor, self._tokenizer = parts or _load(self.config.weights)
        if self.config.threads:
            torch.set_num_threads(self.config.threads)
        languages = tuple(sorted(model.generation_config.vocoder_lang_code_to_id))
        self._target = _their_code(self.config.target, languages)
        if self._target not in languages:
            raise InputError(f"Seamless does not speak {self.config.target}; it speaks {', '.join(languages)}.")
        self._encoder, self._vocoder = model.speech_encoder, model.vocoder
        model.speech_encoder, model.vocoder = _FeaturesIn(), _UnitsOut()
        self._model = model
        settings = model.config
        rate = 50.0 / (settings.adaptor_stride if settings.add_adapter else 1)
        understood = tuple(sorted(getattr(model.generation_config, "text_decoder_lang_to_code_id", languages)))
        if _their_code(self.config.source, understood) not in understood:
            raise InputError(f"Seamless does not know the language {self.config.source}.")
        self.info = ModelInfo("seamless", settings.hidden_size, rate, settings.sampling_rate, understood, languages)

    def compress(self, segment: Segment, last: bool, state: State) -> tuple[Upload, State]:
        """Features [frames, 160] of a segment, normalised over the segment, in 16 bits."""
        facts = (segment.index, segment.start, segment.end)
        if segment.silent or len(segment.samples) < _SHORTEST * 16_000:
            return Upload(*facts, True, last, 0, b""), state
        features = self._extractor(segment.samples, sampling_rate=16_000, return_tensors="np")
        kept = features["input_features"][0][features["attention_mask"][0] == 1]
        return Upload(*facts, False, last, len(kept), kept.astype("<f2").tobytes()), state

    @torch.inference_mode()
    def extract(self, upload: Upload, state: State) -> tuple[list[Burst], State]:
        """Rows of the speech encoder [N, 1024], one burst a segment."""
        if upload.silent:
            return [], state
        width = self._encoder.config.feature_projection_input_dim
        if len(upload.payload) != 2 * width * upload.frames or not upload.frames:
            raise InputError(f"A payload of {len(upload.payload)} bytes is not {upload.frames} frames of features.")
        features = np.frombuffer(upload.payload, "<f2").reshape(1, -1, width).astype(np.float32)
        rows = self._encoder(input_features=torch.from_numpy(features)).last_hidden_state[0]
        utterance = state or 0
        return [Burst(utterance, 0, rows.numpy(), True)], utterance + 1

    @torch.inference_mode()
    def generate(self, burst: Burst, state: State) -> tuple[list[Phrase], State]:
        """Text and units of a segment; nothing where the text, or with it the talk, says a phrase over and over."""
        if not len(burst.rows):
            return [], state
        rows = torch.from_numpy(burst.rows)[None]
        out = self._model.generate(
            input_features=rows,
            tgt_lang=self._target,
            speaker_id=self.config.speaker,
            return_intermediate_token_ids=True,
            text_num_beams=1,
            text_do_sample=False,
            text_max_new_tokens=self.config.longest_text,
        )
        text = self._tokenizer.decode(out.sequences[0], skip_special_tokens=True) if self._tokenizer else ""
        units = tuple(int(unit) for unit in out.waveform[0])
        said = f"{state or ''} {text}"[-_REMEMBERED:]
        if not units or loops(said):
            return [], state
        return [Phrase(burst.utterance, text, units, self._confidence(rows, out.sequences))], said

    def _confidence(self, rows: Tensor, tokens: Tensor) -> float:
        """Geometric mean of the probabilities of a text's tokens; the first two only say what to do."""
        decoded = self._model.text_decoder(input_ids=tokens[:, :-1], encoder_hidden_states=rows).last_hidden_state
        chances = self._model.lm_head(decoded).log_softmax(-1)
        chosen = chances.gather(-1, tokens[:, 1:, None])[0, 1:, 0]
        return float(chosen.mean().exp()) if len(chosen) else 0.0

    @torch.inference_mode()
    def speak(self, phrase: Phrase) -> NDArray[np.float32]:
        """Speech of a phrase's units: durations, then the vocoder."""
        if not phrase.units:
            return np.zeros(0, np.float32)
        waveform, lengths = self._vocoder(
            input_ids=torch.tensor([phrase.units]),
            speaker_id=torch.tensor([[self.config.speaker]]),
            lang_id=torch.tensor([[self._voice]]),
        )
        speech: NDArray[np.float32] = waveform.reshape(-1)[: int(lengths.reshape(-1)[0])].float().numpy()
        return speech

    @functools.cached_property
    def _voice(self) -> int:
        return int(self._model.generation_config.vocoder_lang_code_to_id[self._target])


def _their_code(name: str, known: tuple[str, ...]) -> str:
    """The model's code of a language: its own, or that of a language named as elsewhere in Semaphone."""
    if name in known:
        return name
    try:
        code = iso_code(name)
    except InputError:
        return name
    return code if code in known else _VARIETIES.get(code, code)
