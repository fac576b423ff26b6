"""A link from names and numbers: what the library and programs give, with everything else as `transmit` has it."""

from __future__ import annotations

from dataclasses import replace

from semaphone.channel.models import ErasureChannel
from semaphone.codec.base import Codec, CodecInfo
from semaphone.controller.base import FixedController
from semaphone.controller.registry import CODEBOOKS, ControllerSpec, decided, load_controller
from semaphone.errors import InputError
from semaphone.link.feedback import Feedback
from semaphone.link.simulate import Link
from semaphone.packet.format import FARTHEST, HORIZON, PacketFormat
from semaphone.recovery.registry import default_recovery, load_recovery

REPORT_DELAY = 0.2  # s that loss reports take


def assembled(
    codec: Codec,
    channel: ErasureChannel,
    *,
    recovery: str | None = None,
    controller: str | None = None,
    schedule: str = "sliding",
    codebooks: int | None = None,
    copies: int | None = None,
    bitrate: float | None = None,
    horizon: int | None = None,
) -> tuple[Link, str]:
    """A link and the name of its recovery. The options are those of `semaphone.Link`.

    Raises InputError for what does not exist or does not go together.
    """
    info = codec.info
    spec = ControllerSpec(controller, codebooks, copies, bitrate)
    distance: dict[str, int] = {}
    if schedule == "history":
        spec, distance["copy_distance"] = _history(spec, info, horizon)
    elif horizon is not None:
        raise InputError("A horizon goes with the schedule history.")
    spec = decided(spec, info)
    # The report of losses and the other options of a format stay as they are in simulations.
    form = PacketFormat.named(schedule, info.num_codebooks, info.codebook_size, frame_rate=info.frame_rate, **distance)
    sender = load_controller(spec, info, form)
    name = recovery or default_recovery(info)
    # A fixed controller does not listen: nobody would send it reports.
    feedback = None if isinstance(sender, FixedController) else Feedback("receiver", REPORT_DELAY)
    return Link(codec, sender, form, load_recovery(name, info), channel, feedback, spec.pauses), name


def _history(spec: ControllerSpec, info: CodecInfo, horizon: int | None) -> tuple[ControllerSpec, int]:
    """The spec with lengths by age, and the horizon in packets."""
    if spec.kind not in (None, "fixed") or spec.bitrate is not None:
        if horizon is not None:
            raise InputError("Only the fixed controller has a horizon; others make copies for the next packet.")
        return spec, 1
    reach = HORIZON if horizon is None else horizon
    if not 0 <= reach <= FARTHEST:
        raise InputError(f"The horizon of a history is 0 to {FARTHEST} packets, not {reach}.")
    sent = min(CODEBOOKS, info.num_codebooks) if spec.codebooks is None else spec.codebooks
    again = sent if spec.copies is None else spec.copies
    return replace(spec, codebooks=None, copies=None, history=(sent, *(again,) * reach)), reach
