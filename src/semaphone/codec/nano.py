"""The nano codec: 16 kHz speech ⇄ 12.5 × 16 tokens a second, causal, small enough for one CPU core.

    speech → features (100 Hz) → ConvNeXt, strides 2 and 4 → latents z_n (12.5 Hz) → split RVQ → tokens
    tokens → entries → pitch branch → F0, voicing (100 Hz) → harmonic-plus-noise source
           ↘ latents → ConvNeXt, × 4, × 2 (100 Hz) → + source's spectrum → ConvNeXt → magnitude, phase → speech

The decoder's windows reach two hops beyond their frame, so decoded speech lags 20 ms behind.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from semaphone.codec.base import CodecInfo, Decoded, Encoded
from semaphone.codec.features import SpeechFeatures
from semaphone.codec.graph import compiled
from semaphone.codec.layers import CausalConv, Chain, ConvNeXt, Linear, Pointwise, Upsample, freeze
from semaphone.codec.products import Range, keeps_half
from semaphone.codec.quantizer import SplitQuantizer
from semaphone.codec.source import CausalSpectrum, HarmonicSource
from semaphone.computing import OneCore

HOP = 160  # samples of 10 ms
FRAMES = 8  # 10 ms frames of a chunk
DECODER_ONLY = ("decoder_widths", "decoder_blocks", "pitch_widths", "window")  # of the configuration
TRAINING_ONLY = (".count", ".total")  # running statistics of the codebooks: no part of what a codec is


@dataclass(frozen=True)
class NanoSettings:
    """How a nano codec is used."""

    paths: int = 4  # ways through the codebooks that the encoder follows at once


@dataclass(frozen=True)
class NanoConfig:
    """The shape of a nano codec."""

    sample_rate: int = 16_000  # Hz
    mel_bands: int = 80  # log-mel energies the encoder sees
    encoder_widths: tuple[int, int, int] = (192, 256, 320)  # at 100, 50 and 12.5 Hz
    encoder_blocks: tuple[int, int, int] = (2, 2, 2)
    latent_dim: int = 128  # D, width of z_n
    num_codebooks: int = 16  # N_Q
    codebook_size: int = 2048  # K
    codebook_dim: int = 96  # C, width of a codebook entry
    pitch_widths: tuple[int, int] = (128, 64)  # of the pitch branch, at 12.5 and 100 Hz
    decoder_widths: tuple[int, int, int] = (320, 256, 320)  # at 12.5, 50 and 100 Hz
    decoder_blocks: tuple[int, int, int, int] = (3, 2, 2, 5)  # the last two before and after the source joins
    window: int = 480  # samples of a synthesis window
    semantic_dim: int = 512  # width of the features that codebook 1 is taught (training only)

    def __post_init__(self) -> None:
        if self.window % HOP or self.window < 2 * HOP:
            raise ValueError(f"window must be a multiple of {HOP} and at least {2 * HOP}")
        if not 1 <= self.num_codebooks <= 64 or self.codebook_size < 2:
            raise ValueError("num_codebooks must be in 1..64 and codebook_size at least 2")


class Rendered(NamedTuple):
    """What the decoder makes of latents."""

    speech: Tensor  # [B, T * 1280]
    f0: Tensor  # [B, 8 T] natural logarithm of Hz, predicted
    voicing: Tensor  # [B, 8 T] logit, predicted
    state: Any


def _exact(x: Tensor) -> AbstractContextManager[Any]:
    """A context without the half precision that a training asks for."""
    kind = x.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.autocast(kind, enabled=False)
    return nullcontext()


class Encoder(nn.Module):
    """Speech [B, T * 1280] → latents z_n [B, T, D]."""

    def __init__(self, c: NanoConfig) -> None:
        super().__init__()
        self.features = SpeechFeatures(c.sample_rate, c.mel_bands)
        w, n = c.encoder_widths, c.encoder_blocks
        self.body = Chain(
            CausalConv(self.features.width, w[0], 3),
            *[ConvNeXt(w[0]) for _ in range(n[0])],
            CausalConv(w[0], w[1], 4, stride=2),
            *[ConvNeXt(w[1]) for _ in range(n[1])],
            CausalConv(w[1], w[2], 8, stride=4),
            *[ConvNeXt(w[2], kernel=5) for _ in range(n[2])],
            Pointwise(nn.LayerNorm(w[2])),
        )
        self.last = Linear(w[2], c.latent_dim)
        # A straight way past the depth: without it only a few directions of the latents ever come to life.
        self.direct = Linear(FRAMES * self.features.width, c.latent_dim)
        nn.init.orthogonal_(self.direct.weight)
        nn.init.zeros_(self.direct.bias)

    def forward(self, speech: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        before = state if state is not None else (None, None)
        with _exact(speech):  # sums of powers need all their digits
            frames, heard = self.features(speech, before[0])
        deep, body = self.body(frames, before[1])
        straight = self.direct(frames.reshape(len(frames), -1, FRAMES * self.features.width))
        return (self.last(deep) + straight).float(), (heard, body)


class PitchBranch(nn.Module):
    """What the codebooks say of the pitch: sums of entries [B, T, 2 C] → log F0 and voicing [B, 8 T].

    The source's phase is an integral of F0, in which the roundings of a product would add up, and those may depend
    on how many chunks it takes at once. Where they do (`products.keeps_half`), this small branch computes in double
    precision in use, as the source always does, so that speech does not depend on how it was cut.
    """

    def __init__(self, c: NanoConfig) -> None:
        super().__init__()
        w = c.pitch_widths
        self.body = Chain(
            CausalConv(2 * c.codebook_dim, w[0], 3),
            ConvNeXt(w[0], kernel=5),
            ConvNeXt(w[0], kernel=5),
            Upsample(w[0], w[1], FRAMES),
            ConvNeXt(w[1]),
            ConvNeXt(w[1]),
            Pointwise(nn.LayerNorm(w[1])),
            Pointwise(Linear(w[1], 2)),
        )

    def forward(self, entries: Tensor, state: Any = None) -> tuple[Tensor, Tensor, Any]:
        pitch, state = self.body(entries.to(next(self.parameters()).dtype), state)
        return pitch[..., 0] + 5.0, pitch[..., 1], state


class Decoder(nn.Module):
    """Quantised latents [B, T, D] and their entries [B, T, 2 C] → speech, late by window - 160 samples."""

    def __init__(self, c: NanoConfig) -> None:
        super().__init__()
        w, n = c.decoder_widths, c.decoder_blocks
        self.trunk = Chain(
            CausalConv(c.latent_dim, w[0], 3),
            *[ConvNeXt(w[0], kernel=5) for _ in range(n[0])],
            Upsample(w[0], w[1], 4),
            *[ConvNeXt(w[1]) for _ in range(n[1])],
            Upsample(w[1], w[2], 2),
            *[ConvNeXt(w[2]) for _ in range(n[2])],
        )
        self.direct = Upsample(c.latent_dim, w[2], FRAMES)
        nn.init.orthogonal_(self.direct.linear.weight)
        self.pitch = PitchBranch(c)
        self.source = HarmonicSource(c.sample_rate, HOP)
        self.spectrum = CausalSpectrum(c.window, HOP)
        self.bins = c.window // 2 + 1
        self.join = Linear(3 * self.bins, w[2])
        self.shape = Chain(*[ConvNeXt(w[2]) for _ in range(n[3])], Pointwise(nn.LayerNorm(w[2])))
        self.head = Linear(w[2], 2 * self.bins)

    def forward(
        self, latents: Tensor, entries: Tensor, state: Any = None, truth: tuple[Tensor, Tensor] | None = None
    ) -> Rendered:
        """`truth` (f0 in Hz, voicing; both [B, 8 T]) replaces the predictions as the source in training."""
        pitch, trunk, source, excitation, shape, tail = state if state is not None else (None,) * 6
        log_f0, voicing, pitch = self.pitch(entries, pitch)
        x, trunk = self.trunk(latents, trunk)
        x = x + self.direct(latents)[0]
        f0, voiced = truth if truth is not None else (log_f0.clamp(4.0, 6.5).exp(), torch.sigmoid(4.0 * voicing))
        wave, source = self.source(f0.detach().double(), voiced.detach().double(), source)
        spectra, excitation = self.spectrum.analyse(wave, excitation)
        loudness = spectra.abs().clamp(min=3e-3)  # below it rounding would turn the phase
        direction = spectra / loudness
        seen = torch.cat([torch.log(loudness), direction.real, direction.imag], -1).float()
        x, shape = self.shape(x + self.join(seen), shape)
        magnitude, phase = self.head(x).float().split(self.bins, -1)
        spectra = torch.polar(torch.exp(magnitude.clamp(max=6.0)), phase) * direction.to(torch.complex64)
        speech, tail = self.spectrum.synthesise(spectra, tail)
        return Rendered(speech, log_f0, voicing, (pitch, trunk, source, excitation, shape, tail))


class NanoModel(nn.Module):
    """Encoder, quantiser and decoder with their weights."""

    def __init__(self, config: NanoConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.quantizer = SplitQuantizer(
            config.latent_dim, config.num_codebooks, config.codebook_size, config.codebook_dim
        )
        self.decoder = Decoder(config)


def fingerprint(model: NanoModel) -> str:
    """Digest of configuration, encoder and codebooks: what gives tokens their meaning, whatever the decoder's shape."""
    usual = {name: getattr(NanoConfig, name) for name in DECODER_ONLY}
    digest = hashlib.sha256(json.dumps(asdict(model.config) | usual, sort_keys=True).encode())
    for part in (model.encoder, model.quantizer):
        for name, value in sorted(part.state_dict().items()):
            if name.endswith(TRAINING_ONLY):
                continue
            digest.update(name.encode())
            digest.update(value.detach().to(torch.float16).contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


class NanoCodec:
    """The nano codec behind the `Codec` protocol.

    Layers whose range is given in `met` (see codec/ranges.py) compute in 8 bits.
    """

    def __init__(
        self, model: NanoModel, settings: NanoSettings | None = None, met: Mapping[str, Range] | None = None
    ) -> None:
        self.settings = settings or NanoSettings()
        self.model = copy.deepcopy(model).eval().requires_grad_(False)  # it is prepared in place
        pitch = self.model.decoder.pitch
        if not all(keeps_half(weight) for weight in pitch.parameters() if weight.ndim > 1):
            pitch.double()
        met = met or {}
        freeze(self.model, met)
        for part, name in ((self.model.encoder, "body"), (self.model.decoder, "trunk"), (self.model.decoder, "shape")):
            setattr(part, name, compiled(getattr(part, name)))
        # With the weights, as it decides what they make of speech.
        self.model.register_buffer("met", torch.tensor([met[name] for name in sorted(met)]))
        c = model.config
        self._info = CodecInfo(
            name="nano",
            sample_rate=c.sample_rate,
            frame_rate=c.sample_rate / (FRAMES * HOP),
            num_codebooks=c.num_codebooks,
            codebook_size=c.codebook_size,
            latent_dim=c.latent_dim,
            fingerprint=fingerprint(model),
            delay=c.window - HOP,
        )

    @property
    def info(self) -> CodecInfo:
        return self._info

    @torch.inference_mode()
    def encode(self, speech: Tensor, state: Any = None, num_codebooks: int | None = None) -> Encoded:
        """See `Codec.encode`."""
        if speech.ndim != 2 or speech.shape[1] % self.info.chunk_samples or not speech.shape[1]:
            raise ValueError(f"speech must be [B, T * {self.info.chunk_samples}], not {tuple(speech.shape)}")
        with OneCore(speech.shape[0]):
            latents, state = self.model.encoder(speech, state)
            # All of them: the best first ones depend on those that follow, and a prefix shall not depend on its length.
            tokens = self.model.quantizer.encode(latents, paths=self.settings.paths)[:, :num_codebooks]
        return Encoded(tokens, latents.transpose(1, 2), state)

    @torch.inference_mode()
    def decode(
        self, tokens: Tensor, state: Any = None, weight: Tensor | None = None, entries: Tensor | None = None
    ) -> Decoded:
        """See `Codec.decode`."""
        if tokens.ndim != 3 or not 1 <= tokens.shape[1] <= self.info.num_codebooks or not tokens.shape[2]:
            raise ValueError(f"tokens must be [B, K, T] with 1 <= K <= {self.info.num_codebooks}")
        with OneCore(tokens.shape[0]):
            summed = self.model.quantizer.entries(tokens, weight, entries)
            rendered = self.model.decoder(self.model.quantizer.latents(summed), summed, state)
        return Decoded(rendered.speech, rendered.state)
