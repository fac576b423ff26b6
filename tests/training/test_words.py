"""Times of words: found once, taken up again, moved with a version's speed, and stored beside the tokens."""

from __future__ import annotations

import numpy as np
import pytest
from tests.training.test_tokens import Ramp

from semaphone.errors import InputError
from semaphone.training.alignment import LETTERS, PAD
from semaphone.training.data import Corpus, Recording
from semaphone.training.tokens import TokenUtterance, corpus_tokens
from semaphone.training.versions import another
from semaphone.training.words import text_streams, word_times

SAID = [("oh", 0.2, 0.4)]


def corpus() -> Corpus:
    recordings = (Recording("a/x.wav", "a", 0, 16_000), Recording("b/y.wav", "b", 16_000, 8_000))
    return Corpus(recordings, np.zeros(24_000, np.int16), np.zeros(1, np.float16), None)


def quiet(stage: str, done: int, total: int) -> None:
    pass


def test_words_are_found_once_and_go_on_where_they_stopped(tmp_path):
    heard: list[int] = []

    def hear(speech):
        heard.append(len(speech))
        return SAID

    found = word_times(corpus(), tmp_path, quiet, hear)
    assert found == {"a/x.wav": SAID, "b/y.wav": SAID}
    assert word_times(corpus(), tmp_path, quiet, hear) == found
    assert heard == [16_000, 8_000]
    file = tmp_path / "words.jsonl"
    file.write_bytes(file.read_bytes()[:-5])  # stopped while it wrote the last line
    assert word_times(corpus(), tmp_path, quiet, hear) == found
    assert heard == [16_000, 8_000, 8_000]


@pytest.mark.parametrize(
    "content", ["[1]", "x", "{}", '{"file": "a/x.wav"}', '{"file": "a/x.wav", "words": [["w", 1]]}']
)
def test_a_file_of_something_else_is_refused(tmp_path, content):
    (tmp_path / "words.jsonl").write_text(content + "\n")
    with pytest.raises(InputError, match=r"words\.jsonl"):
        word_times(corpus(), tmp_path, quiet, lambda _: SAID)


def test_text_stands_beside_the_tokens(tmp_path):
    words = {"a/x.wav": SAID, "b/y.wav": []}
    plain = corpus_tokens(Ramp(), corpus(), tmp_path)
    assert plain[0].text is None
    found = corpus_tokens(Ramp(), corpus(), tmp_path, words=words)
    assert found.lengths.tolist() == [10, 5]
    text = found[0].text
    assert text is not None
    assert text.tolist() == [PAD, PAD, LETTERS["o"], LETTERS["h"], *[PAD] * 6]
    assert corpus_tokens(Ramp(), corpus(), tmp_path, words=words)[0].text is not None  # kept
    assert corpus_tokens(Ramp(), corpus(), tmp_path)[0].text is None  # and used by those who ask for it only


def test_times_follow_a_version():
    """Where a click is heard in the version, there its letter stands."""
    speech = np.zeros(160_000, np.float32)
    speech[80_000:80_160] = 0.5  # at 5 s
    for version in (1, 2, 3):
        made = another(speech, version, 0)
        at = int(np.argmax(np.abs(made))) / 16_000
        chunks = len(made) // 160
        utterance = TokenUtterance(np.zeros((1, chunks), np.int16), name="x")
        (stream,) = text_streams({"x": [("a", 4.95, 5.06)]}, [utterance], 100.0, version)
        assert abs(np.flatnonzero(stream == LETTERS["a"]).mean() / 100 - at) < 0.03
