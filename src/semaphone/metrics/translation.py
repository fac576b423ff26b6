"""How good a translation is: chrF and BLEU of its text, of what a recogniser hears in its speech, and BLASER 2.0.

BLASER 2.0 compares speech with speech through SONAR embeddings. Its libraries pin other versions than ours, so it
lives in an environment of its own and is called as a process: `setup_blaser` makes that environment.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import unicodedata
import venv
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from semaphone.errors import InputError, MissingExtraError
from semaphone.translation.languages import iso_code


def _sacrebleu() -> Any:
    try:
        import sacrebleu
    except ImportError:
        raise MissingExtraError("Scoring translations", "translation") from None
    return sacrebleu


def _same_length(hypotheses: Sequence[str], references: Sequence[str]) -> None:
    if len(hypotheses) != len(references) or not hypotheses:
        raise InputError(f"{len(hypotheses)} translations cannot be scored against {len(references)} references.")


def chrf(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """chrF2 of a corpus, 0 to 100 (sacrebleu's defaults)."""
    _same_length(hypotheses, references)
    return float(_sacrebleu().corpus_chrf(list(hypotheses), [list(references)]).score)


def sentence_chrf(hypothesis: str, reference: str) -> float:
    """chrF2 of a sentence, 0 to 100: what differences of two systems are paired by."""
    return float(_sacrebleu().sentence_chrf(hypothesis, [reference]).score)


# sacrebleu's tokenizers for languages that are written without spaces; others take its default.
_TOKENIZERS = {
    "cmn": "zh", "yue": "zh", "jpn": "char", "tha": "char", "lao": "char", "khm": "char", "mya": "char", "bod": "char",
}  # fmt: skip


def bleu(hypotheses: Sequence[str], references: Sequence[str], language: str = "") -> float:
    """BLEU of a corpus in a language (ISO 639-3), 0 to 100; where none is given, the references' letters tell.

    Mandarin is cut by sacrebleu's tokenizer for Chinese, other languages without spaces letter by letter, all others
    by sacrebleu's default.
    """
    _same_length(hypotheses, references)
    code = iso_code(language) if language and language not in _TOKENIZERS else language or _written(references)
    tokenizer = _TOKENIZERS.get(code, "13a")
    return float(_sacrebleu().corpus_bleu(list(hypotheses), [list(references)], tokenize=tokenizer).score)


def _written(texts: Sequence[str]) -> str:
    """The language without spaces that most letters of the texts are of; "" where most are of others."""
    letters = [c for c in "".join(texts) if c.isalpha()]
    scripts = Counter(unicodedata.name(c, "").partition(" ")[0] for c in letters)
    kana = scripts["HIRAGANA"] + scripts["KATAKANA"]
    counts = {"cmn": scripts["CJK"], "tha": scripts["THAI"], "lao": scripts["LAO"]}
    counts |= {"khm": scripts["KHMER"], "mya": scripts["MYANMAR"], "bod": scripts["TIBETAN"]}
    if 10 * kana > counts["cmn"]:  # Japanese has Chinese letters, but never those alone
        counts["jpn"] = counts.pop("cmn") + kana
    code = max(counts, key=lambda name: counts[name])
    return code if 2 * counts[code] > len(letters) else ""


def _plain(text: str) -> str:
    """Lower case without punctuation: a recogniser's marks say nothing about the speech it heard."""
    kept = (c if unicodedata.category(c)[0] in "LMN" or c in "' " else " " for c in text.lower())
    return " ".join("".join(kept).split())


def asr_bleu(heard: Sequence[str], references: Sequence[str], language: str = "") -> float:
    """ASR-BLEU: BLEU between what a recogniser heard in the translated speech and the reference, punctuation left out.

    Languages are cut into words as `bleu` does.
    """
    _same_length(heard, references)
    return bleu([_plain(text) for text in heard], [_plain(text) for text in references], language)


# ---- BLASER 2.0 ----

_SONAR_RATE = 16_000  # Hz
_BLASER_PACKAGES = ("sonar-space", "soundfile")
# Runs in the other environment: JSON lines of {source, target, source_language, target_language} on standard input.
_BLASER_SCRIPT = """
import json, sys
import torch
from sonar.inference_pipelines.speech import SpeechToEmbeddingModelPipeline
from sonar.models.blaser.loader import load_blaser_model
blaser = load_blaser_model("blaser_2_0_qe").eval()
encoders = {}
def embed(path, language):
    if language not in encoders:
        encoders[language] = SpeechToEmbeddingModelPipeline(encoder="sonar_speech_encoder_" + language)
    return encoders[language].predict([path])
for line in sys.stdin:
    job = json.loads(line)
    with torch.inference_mode():
        source = embed(job["source"], job["source_language"])
        target = embed(job["target"], job["target_language"])
        print(json.dumps({"blaser2": float(blaser(src=source, mt=target).item())}), flush=True)
"""


def blaser_home() -> Path:
    """Folder of BLASER's environment: SEMAPHONE_BLASER, or one in the user's cache."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "semaphone" / "blaser"
    return Path(os.environ.get("SEMAPHONE_BLASER", default))


def _blaser_python(home: Path) -> Path:
    return home / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def setup_blaser(home: Path | None = None) -> Path:
    """Makes BLASER's environment (several GB; its models are fetched when it is first used)."""
    home = home or blaser_home()
    venv.EnvBuilder(with_pip=True, clear=True).create(home)
    python = _blaser_python(home)
    done = subprocess.run([python, "-m", "pip", "install", "--quiet", *_BLASER_PACKAGES], check=False)
    if done.returncode:
        raise InputError(f"The packages of BLASER 2.0 could not be installed in {home}; see the lines above.")
    return python


def _speech_for_sonar(source: Path, copy: Path) -> str:
    """A copy of a recording as SONAR's encoders take speech: 16 kHz, one channel. They don't look at the rate."""
    from semaphone.audio import AudioWriter, read_blocks

    with AudioWriter(copy, _SONAR_RATE) as writer:
        for block in read_blocks(source, _SONAR_RATE):
            writer.write(block)
    return str(copy)


def blaser2(
    pairs: Sequence[tuple[Path, Path]], source_language: str, target_language: str, home: Path | None = None
) -> list[float]:
    """BLASER 2.0 (1 to 5, no reference needed) of pairs of files: speech in the source and the target language."""
    python = _blaser_python(home or blaser_home())
    if not python.is_file():
        raise InputError("BLASER 2.0 is not set up here; `semaphone blaser --setup` does that.")
    with tempfile.TemporaryDirectory(prefix="semaphone-blaser-") as folder:
        jobs = [
            {
                "source": _speech_for_sonar(source, Path(folder) / f"{number}-source.wav"),
                "target": _speech_for_sonar(target, Path(folder) / f"{number}-target.wav"),
                "source_language": source_language,
                "target_language": target_language,
            }
            for number, (source, target) in enumerate(pairs)
        ]
        text = "".join(json.dumps(job) + "\n" for job in jobs)
        done = subprocess.run([python, "-c", _BLASER_SCRIPT], input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise InputError(f"BLASER 2.0 failed: {last}")
    return [float(json.loads(line)["blaser2"]) for line in done.stdout.splitlines()]


# ---- logs in the format of simulstream ----


def simulstream_log(
    talks: Sequence[tuple[str, Sequence[Mapping[str, Any]]]], loading_seconds: float = 0.0
) -> list[str]:
    """JSON lines that simulstream's scorers read.

    `talks` holds (name of the file, steps); a step has `audio` (s heard so far), `seconds` (of computing) and `text`.
    Words are given as SentencePiece would mark them: a leading ▁ where a word starts.
    """
    lines: list[dict[str, Any]] = [{"model_loading_time": loading_seconds}]
    for number, (name, steps) in enumerate(talks):
        lines.append({"id": number, "metadata": {"wav_name": name}})
        for step in steps:
            words = [f"▁{word}" for word in str(step["text"]).split()]
            lines.append(
                {
                    "id": number,
                    "total_audio_processed": step["audio"],
                    "computation_time": step["seconds"],
                    "generated_tokens": words,
                    "deleted_tokens": [],
                }
            )
    return [json.dumps(line, ensure_ascii=False) for line in lines]
