"""FD-PLC: packet loss concealment among the features of SoundStream (Xue et al., Interspeech 2022; LargeSC's [38]).

A small recurrent network reads the features of Lyra v2 frame by frame, 20 ms each. Where a frame is lost it reads a
mark instead, and says what the features will have been: the last ones that came, plus a correction. It sees no
future, so it adds no delay.

A prediction is a mean of what could have been, and means are dull: quieter than speech, and blurred. So what is decoded
lies between the prediction and the last frame, and keeps the last frame's size. Long losses fade out.

`semaphone train fdplc` makes the weights; they go with Lyra v2's models and with no others.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from semaphone.baselines.soundstream import FEATURES, Concealed, Features
from semaphone.errors import InputError

KIND = "fdplc 1"
WEIGHTS = Path(__file__).resolve().parent.parent / "weights" / "lyra-fdplc.safetensors"


@dataclass(frozen=True)
class FdPlcConfig:
    """The shape of the network, and what becomes of its predictions."""

    width: int = 192  # of the recurrent layers
    layers: int = 2
    trust: float = 0.5  # share of the prediction; the rest is the last frame that came
    size: float = 0.75  # how much of the last frame's size is kept: 0 nothing, 1 all
    patience: int = 5  # lost frames in a row at full loudness
    fade: float = 0.8  # loudness of each further one, by that of the one before

    def __post_init__(self) -> None:
        shares = (self.trust, self.size, self.fade)
        if not (1 <= self.width <= 4096 and 1 <= self.layers <= 8 and self.patience >= 0):
            raise InputError("FD-PLC has a width and layers from 1 on, and a patience from 0 on.")
        if not all(0 <= share <= 1 for share in shares):
            raise InputError("Trust, size and fade of FD-PLC lie between 0 and 1.")


class PredictorState(NamedTuple):
    """Where B streams stand."""

    hidden: Tensor  # [layers, B, width]
    last: Tensor  # [B, 64], the last features that came, normalised


class Predictor(nn.Module):
    """Features with gaps → what was in the gaps, from the frames before them alone."""

    mean: Tensor
    scale: Tensor

    def __init__(self, config: FdPlcConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.zeros(FEATURES))
        self.register_buffer("scale", torch.ones(FEATURES))
        self.enter = nn.Linear(2 * FEATURES + 1, config.width)
        self.memory = nn.GRU(config.width, config.width, config.layers, batch_first=True)
        self.leave = nn.Linear(config.width, FEATURES)
        nn.init.zeros_(self.leave.weight)  # so that training starts from repeating the last frame
        nn.init.zeros_(self.leave.bias)

    def forward(
        self, features: Tensor, lost: Tensor, state: PredictorState | None = None
    ) -> tuple[Tensor, PredictorState]:
        """Features [B, T, 64] (any values where lost), lost [B, T] bool → a prediction of every frame [B, T, 64].

        The prediction of a lost frame depends on the frames before it only; that of a received one means nothing.
        """
        if state is None:
            layers = self.config.layers
            state = PredictorState(
                features.new_zeros(layers, len(features), self.config.width),
                features.new_zeros(len(features), FEATURES),
            )
        came = (features - self.mean) / self.scale
        last = held(came, lost, state.last)
        gone = lost[..., None].to(came.dtype)
        seen = torch.cat([came * (1 - gone), last, gone], -1)
        out, hidden = self.memory(torch.relu(self.enter(seen)), state.hidden)
        predicted: Tensor = (last + self.leave(out)) * self.scale + self.mean
        return predicted, PredictorState(hidden, last[:, -1])


def held(came: Tensor, lost: Tensor, before: Tensor) -> Tensor:
    """The newest features that came up to each frame: [B, T, 64], [B, T], [B, 64] → [B, T, 64]."""
    steps = torch.arange(1, lost.shape[1] + 1, device=lost.device).expand_as(lost)
    newest = torch.where(lost, 0, steps).cummax(1).values
    pool = torch.cat([before[:, None], came], 1)
    return pool.gather(1, newest[..., None].expand(-1, -1, came.shape[-1]))


class _State(NamedTuple):
    predictor: PredictorState | None
    heard: bool  # has anything come yet?
    missing: int  # lost frames in a row


class FdPlc:
    """The network behind the `Concealment` protocol of soundstream.py."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor.eval().requires_grad_(False)

    @torch.inference_mode()
    def step(self, features: Features | None, state: _State | None) -> tuple[Concealed, _State]:
        """See `Concealment.step`."""
        state = state or _State(None, False, 0)
        given = np.zeros(FEATURES, np.float32) if features is None else features
        frame = torch.from_numpy(given)[None, None]
        predicted, predictor = self.predictor(frame, torch.tensor([[features is None]]), state.predictor)
        if features is not None:
            return Concealed(features, 1.0), _State(predictor, True, 0)
        missing = state.missing + 1
        c = self.predictor.config
        gain = c.fade ** max(missing - c.patience, 0) if state.heard else 0.0
        filled = self._filled(predicted[0, 0], predictor.last[0])
        return Concealed(filled.numpy(), float(gain)), _State(predictor, state.heard, missing)

    def _filled(self, predicted: Tensor, last: Tensor) -> Tensor:
        """What is decoded: predicted [64], and the last frame [64], normalised."""
        model, c = self.predictor, self.predictor.config
        mixed = c.trust * (predicted - model.mean) / model.scale + (1 - c.trust) * last
        dull = (last.norm() / mixed.norm().clamp(min=1e-6)).clamp(min=1.0)
        filled: Tensor = mixed * dull**c.size * model.scale + model.mean
        return filled


def save_fdplc(predictor: Predictor, path: Path, notes: dict[str, str]) -> None:
    """Writes weights (float16) and configuration; `notes` go along as metadata."""
    from safetensors.torch import save

    from semaphone.files import write_whole

    tensors = {name: value.detach().to(torch.float16).contiguous() for name, value in predictor.state_dict().items()}
    write_whole(path, save(tensors, {"kind": KIND, "config": json.dumps(asdict(predictor.config)), **notes}))


def load_fdplc(path: Path = WEIGHTS) -> FdPlc:
    """The concealment of a file of weights; the package's own by default. Raises InputError."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, Any] = file.metadata() or {}
            if metadata.get("kind") != KIND:
                raise InputError(f"{path} holds no weights of FD-PLC.")
            known = {field.name for field in fields(FdPlcConfig)}
            found = json.loads(metadata["config"])
            predictor = Predictor(FdPlcConfig(**{name: value for name, value in found.items() if name in known}))
            predictor.load_state_dict({name: file.get_tensor(name).float() for name in file.keys()})  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise InputError(f"{path} holds no weights of FD-PLC: {str(error).splitlines()[0]}") from None
    return FdPlc(predictor)
