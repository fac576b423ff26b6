"""Sizes and properties of the recovery model."""

from __future__ import annotations

from dataclasses import dataclass

from semaphone.errors import InputError


@dataclass(frozen=True)
class RQTransformerConfig:
    """Sizes and properties; the defaults are nano's."""

    num_codebooks: int = 16  # N_Q, tokens a chunk
    codebook_size: int = 2048  # K, entries of each codebook; index K means "no token"
    codec: str = ""  # fingerprint of the codec whose tokens these are; "" fits any
    width: int = 256  # of the temporal transformer
    layers: int = 6  # of the temporal transformer
    heads: int = 4  # of the temporal transformer
    ffn: int = 1024  # units before the gate, which halves them
    depth_width: int = 128  # of the depth transformer
    depth_layers: int = 2  # of the depth transformer
    depth_heads: int = 4  # of the depth transformer
    depth_ffn: int = 512  # units before the gate, which halves them
    token_width: int = 64  # of a token's embedding before all of a chunk are joined; 0: width, and they are summed
    text_size: int = 64  # entries of the text stream; index text_size means "not begun"
    text_pad: int = 0  # the text token of a chunk without text
    window: int = 250  # chunks that the temporal transformer looks back, 20 s
    acoustic_delay: int = 0  # time steps by which acoustic tokens come after their chunk's semantic one: 0 or 1
    sees_received: bool = True  # all that arrived of a chunk is known before its first token is predicted
    sees_coming: bool = True  # and so is what has arrived of the next chunk by then
    other: tuple[int, ...] = ()  # tokens [N_Q] of the silent other speaker, for a model that hears two

    def __post_init__(self) -> None:
        for name in ("num_codebooks", "codebook_size", "width", "layers", "heads", "ffn", "text_size", "window"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} of the recovery model is at least 1, not {getattr(self, name)}.")
        if self.acoustic_delay not in (0, 1):
            raise InputError(f"acoustic_delay of the recovery model is 0 or 1, not {self.acoustic_delay}.")
        if self.acoustic_delay and self.sees_received:
            raise InputError("A recovery model with an acoustic delay cannot see a chunk before its first token.")
        if self.sees_received and not self.token_width:
            raise InputError("A recovery model that sees what was received needs a token_width.")
        if self.sees_coming and not self.sees_received:
            raise InputError("A recovery model sees of the next chunk only what it sees of the present one.")
        if self.other and len(self.other) != self.num_codebooks:
            raise InputError(f"other has {self.num_codebooks} tokens or none, not {len(self.other)}.")
