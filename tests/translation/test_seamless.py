"""Seamless on a tiny random configuration of the same classes: shapes, segments, units → speech, clear refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.translation.fake import voice

from semaphone.errors import InputError
from semaphone.translation.chain import Chain
from semaphone.translation.models.base import Burst, Phrase, Upload
from semaphone.translation.models.seamless import SeamlessConfig, SeamlessTranslator
from semaphone.translation.segmenter import Segment, SegmenterConfig

pytest.importorskip("transformers")


def tiny_model():
    """A Seamless of a few thousand weights, with the tables that its `generate` needs."""
    from transformers import SeamlessM4Tv2Config, SeamlessM4Tv2ForSpeechToSpeech

    config = SeamlessM4Tv2Config(
        vocab_size=40, t2u_vocab_size=40, char_vocab_size=30, hidden_size=16, max_position_embeddings=64,
        encoder_layers=1, encoder_ffn_dim=16, encoder_attention_heads=2, decoder_layers=1, decoder_ffn_dim=16,
        decoder_attention_heads=2, speech_encoder_layers=1, speech_encoder_attention_heads=2,
        speech_encoder_intermediate_size=16, feature_projection_input_dim=160, conv_depthwise_kernel_size=3,
        t2u_encoder_layers=1, t2u_encoder_ffn_dim=16, t2u_encoder_attention_heads=2, t2u_decoder_layers=1,
        t2u_decoder_ffn_dim=16, t2u_decoder_attention_heads=2, t2u_max_position_embeddings=256,
        t2u_variance_predictor_embed_dim=16, t2u_variance_predictor_hidden_dim=8, upsample_initial_channel=16,
        upsample_rates=[5, 4], upsample_kernel_sizes=[11, 8], resblock_kernel_sizes=[3],
        resblock_dilation_sizes=[[1, 3, 5]], unit_hifi_gan_vocab_size=60, unit_embed_dim=8, lang_embed_dim=4,
        spkr_embed_dim=4, vocoder_num_langs=3, vocoder_num_spkrs=2,
    )  # fmt: skip
    torch.manual_seed(0)
    model = SeamlessM4Tv2ForSpeechToSpeech(config).eval().requires_grad_(False)
    codes = {"eng": 10, "fra": 11, "cmn": 12}
    settings = model.generation_config
    settings.text_decoder_lang_to_code_id = codes
    settings.t2u_lang_code_to_id = codes
    settings.vocoder_lang_code_to_id = {"eng": 0, "fra": 1, "cmn": 2}
    settings.id_to_text = {str(i): f"w{i}" for i in range(40)}
    settings.char_to_id = {c: i % 26 + 3 for i, c in enumerate("abcdefghijklmnopqrstuvwxyz0123456789▁")}
    return model


@pytest.fixture
def seamless() -> SeamlessTranslator:
    from transformers import SeamlessM4TFeatureExtractor

    config = SeamlessConfig("fra", "eng", longest_text=8)
    return SeamlessTranslator(config, (tiny_model(), SeamlessM4TFeatureExtractor(), None))


def segment(seconds: float = 0.75) -> Segment:
    return Segment(0, 0, voice(seconds, np.random.default_rng(1)), False, 0.0)


def test_shapes_and_counts(seamless):
    upload, _ = seamless.compress(segment(), False, None)
    assert upload.bits == upload.frames * 160 * 16
    bursts, state = seamless.extract(upload, None)
    assert seamless.info.row_width == 16
    assert bursts[0].rows.shape[1] == 16
    assert len(bursts[0].rows) == pytest.approx(0.75 * seamless.info.row_rate, abs=1.5)
    assert (bursts[0].last, state) == (True, 1)


def test_a_segment_in_the_chain_is_that_segment_offline(seamless):
    """The four steps, in the places where the paper has them, give what the whole model gives for the segment."""
    from transformers import SeamlessM4TFeatureExtractor

    piece = segment()
    whole = tiny_model()
    features = SeamlessM4TFeatureExtractor()(piece.samples, sampling_rate=16_000, return_tensors="pt")
    kept = features["input_features"][:, features["attention_mask"][0] == 1].half().float()
    offline = whole.generate(
        input_features=kept, tgt_lang="eng", speaker_id=0, return_intermediate_token_ids=True,
        text_num_beams=1, text_do_sample=False, text_max_new_tokens=8,
    )  # fmt: skip
    upload, _ = seamless.compress(piece, True, None)
    bursts, _ = seamless.extract(upload, None)
    phrases, _ = seamless.generate(bursts[0], None)
    np.testing.assert_allclose(seamless.speak(phrases[0]), offline.waveform.reshape(-1).numpy(), atol=1e-4)


def test_units_become_speech(seamless):
    short = seamless.speak(Phrase(0, "", (7,) * 4))
    long = seamless.speak(Phrase(0, "", (7,) * 8))
    assert 0 < len(short) < len(long)
    assert np.isfinite(long).all()
    assert len(seamless.speak(Phrase(0, ""))) == 0


def test_a_talk_runs_through(seamless, rng):
    talk = Chain(seamless, segments=SegmenterConfig(mode="fixed", speech=0.0)).run([voice(1.6, rng)])
    assert talk.sample_rate == seamless.info.sample_rate
    assert len(talk.steps) == 3
    assert sum(s.rows for s in talk.steps) >= 8
    assert len(talk.speech) > 0


def test_silence_is_skipped(seamless):
    silent = Segment(0, 0, np.zeros(12_000, np.float32), True, 0.0)
    upload, _ = seamless.compress(silent, False, None)
    assert upload.bits == 0
    assert seamless.extract(upload, None) == ([], None)
    assert seamless.generate(Burst(0, 0, np.zeros((0, 16), np.float32), True), None) == ([], None)


def test_pairs_and_payloads_are_checked(seamless):
    parts = (tiny_model(), None, None)
    with pytest.raises(InputError, match="does not speak deu"):
        SeamlessTranslator(SeamlessConfig("fra", "deu"), parts)
    with pytest.raises(InputError, match="does not know"):
        SeamlessTranslator(SeamlessConfig("xxx", "eng"), parts)
    with pytest.raises(InputError, match="not 3 frames"):
        seamless.extract(Upload(0, 0, 1, False, False, 3, b"1234"), None)
    with pytest.raises(InputError, match="could not be loaded"):
        SeamlessTranslator(SeamlessConfig(weights="/nowhere/at/all"))


class Words:
    """A tokenizer whose text is always the same."""

    def __init__(self, text: str) -> None:
        self.text = text

    def decode(self, tokens, skip_special_tokens):
        return self.text


def test_a_loop_in_chinese_is_not_said_within_a_segment_or_over_several(seamless):
    bursts, _ = seamless.extract(seamless.compress(segment(), True, None)[0], None)
    seamless._tokenizer = Words("谢谢观看谢谢观看谢谢观看")
    assert seamless.generate(bursts[0], None)[0] == []
    seamless._tokenizer, state, said = Words("谢谢观看。"), None, []
    for _ in range(4):
        phrases, state = seamless.generate(bursts[0], state)
        said += phrases
    assert len(said) == 2


def test_confidence_is_that_of_the_tokens(seamless):
    """The same as from the scores of the search itself."""
    bursts, _ = seamless.extract(seamless.compress(segment(), True, None)[0], None)
    phrases, _ = seamless.generate(bursts[0], None)
    rows = torch.from_numpy(bursts[0].rows)[None]
    out = super(type(seamless._model), seamless._model).generate(
        rows, decoder_input_ids=torch.tensor([[10]]), num_beams=1, do_sample=False, max_new_tokens=8,
        return_dict_in_generate=True, output_scores=True,
    )  # fmt: skip
    chances = seamless._model.compute_transition_scores(out.sequences, out.scores, normalize_logits=True)
    assert phrases[0].confidence == pytest.approx(float(chances.mean().exp()), rel=1e-4)


@pytest.mark.parametrize(("target", "expected"), [("zh", "cmn"), ("fr", "fra"), ("eng", "eng")])
def test_languages_have_the_names_that_they_have_elsewhere(target, expected):
    translator = SeamlessTranslator(SeamlessConfig("fr", target), (tiny_model(), None, None))
    assert translator._target == expected
