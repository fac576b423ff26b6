"""Controllers by name, as the commands make them: `adaptive`, `budget`, `fixed`, or a file of weights.

form = PacketFormat.named("sliding", info.num_codebooks, info.codebook_size)
spec = ControllerSpec(bitrate=1200)
form = padded(spec, info, form)                      # another format only if the rate is to be constant
controller = load_controller(spec, info, form)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from semaphone.codec.base import CodecInfo
from semaphone.controller.base import NOTHING, Controller, FixedController, Mask
from semaphone.errors import InputError
from semaphone.plugins import find

if TYPE_CHECKING:
    from semaphone.controller.adaptive import AdaptiveController, ControllerModel
    from semaphone.packet.format import PacketFormat

WEIGHTS = Path(__file__).resolve().parent.parent / "weights" / "nano-controller.safetensors"
NAMES = ("adaptive", "budget", "fixed")
CODEBOOKS, COPIES = 8, 2  # of the fixed controller, where nobody names any
BITRATE = 1500.0  # bit/s of payload, of the others


@dataclass(frozen=True)
class ControllerSpec:
    """Which controller, and how much it may send."""

    kind: str | None = None  # one of NAMES, or a file of weights; None: `default_kind`
    codebooks: int | None = None  # fixed: S, tokens sent of each chunk
    copies: int | None = None  # fixed: C, how many of them go twice
    bitrate: float | None = None  # adaptive, budget: payload in bit/s, on average over a talk or at the most
    rate: float | None = None  # adaptive: L itself, in place of a bit rate
    constant: bool = False  # all packets have one size
    history: tuple[int, ...] | None = None  # fixed: codebooks in a chunk's own packet, in the next one, and so on

    @property
    def adaptive(self) -> bool:
        """Is it a model? (Where `kind` is decided.)"""
        return self.kind == "adaptive" or (self.kind or "").endswith(".safetensors")

    @property
    def pauses(self) -> bool:
        """Are pauses left out, if nobody says? (Where `kind` is decided.)"""
        return self.adaptive and not self.constant


def default_kind(spec: ControllerSpec, info: CodecInfo) -> str:
    """What a sender uses when nobody says: `adaptive` if there are weights for its codec.

    Otherwise `fixed`, or `budget` where a bit rate is asked for. Whoever names codebooks or copies means `fixed`.
    """
    if spec.codebooks is not None or spec.copies is not None or spec.history is not None:
        return "fixed"
    if weights_for(info):
        return "adaptive"
    return "fixed" if spec.bitrate is None and spec.rate is None else "budget"


def weights_for(info: CodecInfo) -> bool:
    """Are there weights in the package for this codec's latents?"""
    return _shipped(info) is not None


def _shipped(info: CodecInfo) -> ControllerModel | None:
    """The model in the package, if it reads this codec's latents."""
    if not WEIGHTS.is_file():
        return None
    from semaphone.controller.adaptive import load

    try:
        return load(WEIGHTS, info.fingerprint)
    except InputError:
        return None


def decided(spec: ControllerSpec, info: CodecInfo) -> ControllerSpec:
    """The same with nothing left open. Raises InputError for settings that do not go together."""
    kind = spec.kind or default_kind(spec, info)
    spec = replace(spec, kind=kind)
    if kind not in NAMES and find("controller", kind) is not None:
        return spec
    if not spec.adaptive and kind not in NAMES:
        raise InputError(f"Unknown controller {kind!r}; there are {', '.join(NAMES)}, and files (.safetensors).")
    if kind != "fixed" and any(named is not None for named in (spec.codebooks, spec.copies, spec.history)):
        raise InputError(f"The controller {kind} decides about codebooks and copies itself.")
    if kind == "fixed" and (spec.bitrate is not None or spec.rate is not None):
        raise InputError("The fixed controller takes codebooks and copies, no rate.")
    if spec.rate is not None and (spec.bitrate is not None or spec.constant or not spec.adaptive):
        raise InputError("L is for the adaptive controller, in place of a bit rate and not for a constant one.")
    if kind != "fixed" and spec.rate is None and spec.bitrate is None:
        return replace(spec, bitrate=BITRATE)
    return spec


def padded(spec: ControllerSpec, info: CodecInfo, form: PacketFormat) -> PacketFormat:
    """The format in which packets have one size, if the rate is to be constant; otherwise `form` itself."""
    if not spec.constant:
        return form
    spec = decided(spec, info)
    if spec.bitrate is None:
        return replace(form, constant_size=_largest(form, _fixed(spec, info).mask))
    if form.schedule == "history":
        raise InputError(f"A constant rate with a history takes the fixed controller, not {spec.kind}.")
    size = int(spec.bitrate * form.block_duration / (8 * form.packets_per_block))
    return replace(form, constant_size=max(size, 1))


def _largest(form: PacketFormat, mask: Mask) -> int:
    """Bytes of the longest payload of a talk in which every chunk has this mask."""
    whole, nothing = (mask,) * form.chunks_per_block, (NOTHING,) * form.chunks_per_block
    talk = [whole] * (form.reach + 1) + [nothing] * form.reach
    sizes: list[int] = []
    for i, block in enumerate(talk):
        sizes += form.sizes(block, form.riding(talk[max(0, i - form.reach) : i], NOTHING))
    return max(sizes)


def load_controller(spec: ControllerSpec, info: CodecInfo, form: PacketFormat) -> Controller:
    """The controller of a spec, for latents of the codec `info` and packets of `padded(spec, info, form)`.

    Raises InputError for settings that do not fit, missing weights, and weights of another codec.
    """
    from semaphone.controller.rate import ConstantRate, RateControl

    spec = decided(spec, info)
    if spec.kind not in NAMES and (factory := find("controller", spec.kind or "")) is not None:
        made: Controller = factory(info, form)
        return made
    if spec.kind == "fixed":
        return _fixed(spec, info)
    if spec.kind == "budget":
        from semaphone.controller.budget import BudgetController

        budget = BudgetController(_transmissions(spec, form), info.num_codebooks)
        return ConstantRate(budget, form.constant_size, form) if spec.constant else budget
    model = _adaptive(spec, info, form)
    if spec.constant:
        return ConstantRate(model, form.constant_size, form)
    return model if spec.bitrate is None else RateControl(model, spec.bitrate, form)


def _adaptive(spec: ControllerSpec, info: CodecInfo, form: PacketFormat) -> AdaptiveController:
    from semaphone.controller.adaptive import AdaptiveController, load

    path = Path(spec.kind or "")
    if spec.kind == "adaptive":
        shipped = _shipped(info)
        if shipped is None:
            raise InputError(f"There are no weights for the adaptive controller of this codec, {info.name}.")
        model = shipped
    elif path.is_file():
        model = load(path, info.fingerprint)
    else:
        raise InputError(f"There are no weights for the adaptive controller at {path}.")
    if (model.config.latent_dim, model.config.num_codebooks) != (info.latent_dim, info.num_codebooks):
        raise InputError(f"The controller {path} is for a codec of other sizes than {info.name}.")
    return AdaptiveController(model, spec.rate, form.chunks_per_block - 1)


def _fixed(spec: ControllerSpec, info: CodecInfo) -> FixedController:
    codebooks = min(CODEBOOKS, info.num_codebooks) if spec.codebooks is None else spec.codebooks
    copies = min(COPIES, codebooks) if spec.copies is None else spec.copies
    later: tuple[int, ...] = ()
    if spec.history is not None:
        codebooks, copies, *rest = *spec.history, *(0,) * (2 - len(spec.history))
        later = tuple(rest)
    if not 1 <= codebooks <= info.num_codebooks:
        raise InputError(f"The codec {info.name} has 1 to {info.num_codebooks} codebooks, not {codebooks}.")
    if copies > codebooks:
        raise InputError(f"Only tokens that are sent can be copied: {copies} copies do not go with {codebooks} tokens.")
    if later and max(later) > codebooks:
        raise InputError(f"Later packets carry what was sent again: {max(later)} tokens do not go with {codebooks}.")
    return FixedController(codebooks, copies, later)


def _transmissions(spec: ControllerSpec, form: PacketFormat) -> int:
    """Tokens a chunk, copies included, that a bit rate of payload pays for."""
    assert spec.bitrate is not None
    bits = spec.bitrate / form.frame_rate - (form.toc_bits + 7) * form.packets_per_block / form.chunks_per_block
    count = int(bits / form.bits_per_token)
    if count < 1:
        least = (form.toc_bits + 7) * form.packet_rate + form.bits_per_token * form.frame_rate
        raise InputError(
            f"A token a chunk takes {least:.0f} bit/s with its packets, so {spec.bitrate:g} bit/s are too few."
        )
    return count
