"""The adaptive controller (LargeSC §II-B, §III-B, Fig 2): what is being said, and the loss → masks.

    z_n [D] → 3 → 256 → 3 → 128 → 3 → 64 → 3 → 1 → I_sem ┐
                                                          ├ 1 → 1 → σ → I_s, I_c → eqs 5-6 → mask
    p ───────────────────────────────────────────────────┘

"3" is a causal convolution over three chunks with Snake after it, "1" one over a single chunk. Between the
two of the latter stands a Snake, too: without it they would be one matrix.

    controller = AdaptiveController(load("nano-controller.safetensors", codec.info.fingerprint), rate=8.0)
    masks, state = controller.step(latents, LinkLoss(0.1), state)
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from semaphone.codec.layers import CausalConv, Chain, Pointwise
from semaphone.computing import OneCore
from semaphone.controller.base import Demand, LinkLoss, Mask, silenced
from semaphone.errors import InputError
from semaphone.files import write_whole

KIND = "controller"
LEAST = 1e-4  # importance
WIDTHS = (256, 128, 64, 1)  # of the four convolutions


@dataclass(frozen=True)
class ControllerConfig:
    """The shape of a controller, and whose latents it reads."""

    latent_dim: int  # D, width of z_n
    num_codebooks: int  # N_Q
    codec: str = ""  # fingerprint of the codec; "" fits any
    hidden: int = 16  # width between the two last convolutions

    def __post_init__(self) -> None:
        if self.latent_dim < 1 or not 1 <= self.num_codebooks <= 64 or self.hidden < 1:
            raise InputError("A controller has a latent_dim and hidden width of 1 or more, and 1 to 64 codebooks.")


class Snake(nn.Module):
    """x + sin²(αx)/α with a trainable α a channel: x [..., C] → [..., C] (Ziyin et al. 2020)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        # α sin²(αx)/α² is finite where training has taken α to zero.
        return x + self.alpha * torch.sin(self.alpha * x).square() / (self.alpha.square() + 1e-9)


class ControllerModel(nn.Module):
    """Eq 4: latents [B, T, D] and loss rates [B, T] → importance [B, T, 2], in (0, 1)."""

    def __init__(self, config: ControllerConfig) -> None:
        super().__init__()
        self.config = config
        blocks: list[nn.Module] = []
        width = config.latent_dim
        for outputs in WIDTHS:
            blocks += [CausalConv(width, outputs, 3), Pointwise(Snake(outputs))]
            width = outputs
        self.semantic = Chain(*blocks)
        # A kernel of one chunk is a matrix.
        self.channel = nn.Sequential(nn.Linear(2, config.hidden), Snake(config.hidden), nn.Linear(config.hidden, 2))

    def forward(self, latents: Tensor, loss_rate: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """`state` is `None` for fresh streams; chunk by chunk gives the same as all at once."""
        semantic, state = self.semantic(latents, state)
        both = torch.cat([semantic, loss_rate[..., None].to(semantic.dtype)], -1)
        return torch.sigmoid(self.channel(both)), state

    @torch.no_grad()
    def adjust(self, latents: Tensor) -> None:
        """Before training: lets the first convolution see latents [N, D] with mean 0 and deviation 1.

        The layer that p joins sees it in units of ten percent, and copies begin rare: a network that begins with
        many unlearns all of them before it has learnt what p means.
        """
        first = self.semantic.blocks[0]
        assert isinstance(first, CausalConv)
        conv = first.conv
        assert conv.bias is not None
        mean, scale = latents.mean(0), latents.std(0).clamp(min=1e-5)
        conv.weight.div_(scale[None, :, None])
        conv.bias.sub_((conv.weight * mean[None, :, None]).sum((1, 2)))
        weights = dict(self.channel.named_parameters())
        weights["0.weight"][:, 1].mul_(10.0)
        weights["2.bias"].copy_(torch.tensor([0.0, -2.0]))


class AdaptiveState(NamedTuple):
    """Where a stream stands."""

    model: Any
    empty: int  # talking chunks in a row of which nothing was sent


def mask_at(rate: float, *, importance: tuple[float, float], num_codebooks: int, copies: bool = True) -> Mask:
    """Eqs 5-6 for one chunk: I = (I_s, I_c) and L → the lengths of both prefix masks, ⌊L I⌋ up to N_Q."""
    s, c = (min(math.floor(rate * i), num_codebooks) for i in importance)
    return Mask(s, c) if copies else Mask(max(s, c), 0)


def never_empty(mask: Mask, empty: int, longest: int) -> tuple[Mask, int]:
    """At most `longest` talking chunks in a row without a token, `empty` of which have been.

    A block of packets without tokens says that nobody talks, and the receiver would make noise of it.
    """
    if mask.sent:
        return mask, 0
    return (mask, empty + 1) if empty < longest else (Mask(1, 0), 0)


class AdaptiveController:
    """The model as a `Controller` with a constant L, and as a `Scalable` that leaves L open."""

    def __init__(
        self, model: ControllerModel, rate: float | None = None, longest_empty: int = 1, copies: bool = True
    ) -> None:
        """`rate` is L (default: the number of codebooks); `longest_empty` is one less than a block has chunks.

        Without `copies` no token goes twice, as in the paper's ablation.
        """
        self.model = model.eval().requires_grad_(False)
        self.rate = float(model.config.num_codebooks if rate is None else rate)
        if not 0 < self.rate < 1e6:
            raise InputError(f"The rate L of a controller is above 0, not {self.rate:g}.")
        self.longest_empty, self.copies = longest_empty, copies

    @property
    def name(self) -> str:
        """See `Scalable.name`."""
        return "adaptive" if self.copies else "adaptive without copies"

    def __str__(self) -> str:
        return f"{self.name}, L = {self.rate:g}"

    @property
    def num_codebooks(self) -> int:
        """N_Q."""
        return self.model.config.num_codebooks

    @property
    def most(self) -> int:
        """See `Controller.most`."""
        return max(1, min(self.num_codebooks, math.floor(self.rate)))

    def step(
        self, latents: Tensor, losses: LinkLoss, state: AdaptiveState | None, talking: Sequence[bool] | None = None
    ) -> tuple[list[Mask], AdaptiveState]:
        """See `Controller.step`."""
        before = state or AdaptiveState(None, 0)
        demands, model = self.demands(latents, losses, before.model)
        masks, empty = self.masks(demands, self.rate, before.empty, talking)
        return silenced(masks, talking), AdaptiveState(model, empty)

    def masks(
        self, demands: Sequence[Demand], rate: float, empty: int = 0, talking: Sequence[bool] | None = None
    ) -> tuple[list[Mask], int]:
        """What chunks get that ask for this at the rate L, after `empty` ones of which nothing was sent."""
        masks = []
        for i, demand in enumerate(demands):
            mask = demand(rate)
            if talking is None or talking[i]:
                mask, empty = never_empty(mask, empty, self.longest_empty)
            else:
                empty = 0
            masks.append(mask)
        return masks, empty

    @torch.inference_mode()
    def demands(self, latents: Tensor, losses: LinkLoss, state: Any) -> tuple[list[Demand], Any]:
        """See `Scalable.demands`. The network is told what copies can mend."""
        p = torch.full((1, latents.shape[1]), losses.mendable)
        with OneCore():
            importance, state = self.model(latents.T[None].float(), p, state)
        importance = importance.clamp(min=LEAST)  # so that a high L can lift anything
        found: list[Demand] = [
            partial(mask_at, importance=(s, c), num_codebooks=self.num_codebooks, copies=self.copies)
            for s, c in importance[0].tolist()
        ]
        return found, state


def save(model: ControllerModel, path: str | Path, notes: dict[str, str] | None = None) -> None:
    """Write weights as float16 with their configuration, as one safetensors file; `notes` go along as metadata."""
    from safetensors.torch import save as packed

    kept = {name: value.detach().to(torch.float16).contiguous() for name, value in model.state_dict().items()}
    write_whole(path, packed(kept, {"kind": KIND, "config": json.dumps(asdict(model.config)), **(notes or {})}))


def load(path: str | Path, codec: str | None = None) -> ControllerModel:
    """Read what `save` wrote; `codec` is the fingerprint of the codec in use.

    Raises InputError if the file is no controller, or one for another codec.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), "pt") as file:
            facts = file.metadata() or {}
            if facts.get("kind") != KIND:
                raise InputError(f"{path} holds no controller.")
            values = json.loads(facts["config"])
            model = ControllerModel(ControllerConfig(**{f.name: values[f.name] for f in fields(ControllerConfig)}))
            model.load_state_dict({name: file.get_tensor(name).float() for name in file.keys()})  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{path} holds no controller: {str(error).splitlines()[0]}") from None
    trained = model.config.codec
    if codec and trained and codec != trained:
        raise InputError(
            f"The controller {path} was trained on the latents of another codec ({trained[:12]}), "
            f"not of the one in use ({codec[:12]})."
        )
    return model.eval()
