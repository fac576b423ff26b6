"""The language model that fills what was lost: an RQ-Transformer in two sizes (LargeSC eqs 8, 14-17, Fig 3).

A temporal transformer reads the chunks so far; a depth transformer goes through the tokens of one
chunk, codebook by codebook. Both are transformers' Moshi classes, small and trained here (`nano`)
or Kyutai's (`moshi`); the layers are driven directly, so that a stream's state is a value.

    step = model.step(tokens, status, state)      # one chunk of B streams: [B, N_Q] → [B, N_Q]
    state = step.state

What was received is forced, token by token; only the rest is predicted, and the depth transformer
stops after the deepest token that has to be.

Two properties set the sizes apart. With `acoustic_delay` 1 (Moshi, eq 16) the acoustic tokens of a
chunk belong to the time step after it; see `step`. With `sees_received` (nano) whatever arrived of
a chunk, however deep, is known before its first token is predicted: it enters the temporal
transformer together with the chunk before, and the depth transformer's context once more.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from semaphone.codec.attention import Window, advance, fresh_window, merge, plan, select, self_attention
from semaphone.errors import InputError, MissingExtraError
from semaphone.files import write_whole
from semaphone.recovery import depth
from semaphone.recovery.base import TokenStatus
from semaphone.recovery.sampling import Sampling

FORMAT = "semaphone recovery 1"

SCALE = "/scale"  # what is added to the name of an 8-bit tensor for its scales
MOSHI_TEXT_PAD = 3  # the text token of Moshi's vocabulary for a chunk in which no word begins

# What the temporal transformer is told of a token of the past.
HEARD, GUESSED, ABSENT = 0, 1, 2


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
        if self.other and len(self.other) != self.num_codebooks:
            raise InputError(f"other has {self.num_codebooks} tokens or none, not {len(self.other)}.")


@dataclass(frozen=True)
class RQState:
    """What the model remembers of B streams; the batch is always the first dimension."""

    window: Window  # of the temporal transformer
    past: Tensor  # [B, N_Q] int64, tokens of the last time step; K: none
    heard: Tensor  # [B, N_Q] int64, HEARD, GUESSED or ABSENT
    text: Tensor  # [B] int64, text token of the last time step
    late: Late | None = None  # with an acoustic delay


@dataclass(frozen=True)
class Late:
    """What an acoustic delay adds to the state: a chunk whose acoustic tokens belong to the coming time step."""

    context: Tensor  # [B, width], A_n of the coming time step
    known: Tensor  # [B, N_Q] int64, the chunk's tokens as received; K: none
    wanted: Tensor  # [B, N_Q] bool, which of them are to be predicted
    semantic: Filled  # the chunk's first token, already decided


@dataclass(frozen=True)
class Filled:
    """The outcome of a depth pass over n codebooks of B streams."""

    ids: Tensor  # [B, n] int64; K: neither received nor predicted
    probability: Tensor  # [B, n], of each token under the model; 1 for received ones, 0 for absent ones
    logits: Tensor  # [B, n, K]; 0 where they were not needed

    def columns(self, first: int, last: int | None = None) -> Filled:
        """Some of the codebooks."""
        part = slice(first, last)
        return Filled(self.ids[:, part], self.probability[:, part], self.logits[:, part])

    def then(self, other: Filled) -> Filled:
        """These codebooks, then the other ones."""
        return Filled(
            torch.cat([self.ids, other.ids], 1),
            torch.cat([self.probability, other.probability], 1),
            torch.cat([self.logits, other.logits], 1),
        )


@dataclass(frozen=True)
class Step:
    """One chunk of B streams made whole."""

    tokens: Tensor  # [B, N_Q] int64; where nothing was received and nothing predicted: 0
    guessed: Tensor  # [B, N_Q] bool, the model's own tokens
    absent: Tensor  # [B, N_Q] bool, neither received nor predicted
    probability: Tensor  # [B, N_Q], of each guessed token under the model; 1 for received ones, 0 for absent ones
    logits: Tensor  # [B, N_Q, K]; 0 where they were not needed
    state: RQState


@dataclass(frozen=True)
class _Call:
    """The arguments of one `step`."""

    known: Tensor  # [B, N_Q] int64, received tokens; K: none
    wanted: Tensor  # [B, N_Q] bool, to be predicted
    status: Tensor  # [B, N_Q] TokenStatus
    sampling: Sampling
    all_logits: bool


class RQTransformer(nn.Module):
    """Temporal transformer, depth transformer, text stream; see the top of this file."""

    def __init__(self, config: RQTransformerConfig, parts: Mapping[str, nn.Module] | None = None) -> None:
        """`parts` are the `embed_tokens`, `decoder` and `depth_decoder` of a Moshi; without them they are made anew.

        Raises MissingExtraError without transformers.
        """
        super().__init__()
        self.config = config
        parts = _fresh_parts(config) if parts is None else parts
        self.embed_tokens: Any = parts["embed_tokens"]  # a table a codebook (the other speaker's last), or one for all
        self.decoder: Any = parts["decoder"]  # MoshiForCausalLM: temporal transformer and text head
        self.depth_decoder: Any = parts["depth_decoder"]
        joined = config.num_codebooks * (config.token_width + 2)
        self.join = nn.Linear(joined, config.width, bias=False) if config.token_width else None
        self.see = nn.Linear(joined, config.width, bias=False) if config.sees_received else None
        self.dropout = nn.Dropout(0.0)  # of the temporal input and the depth context; training sets it
        self.checkpointing = False  # recompute the temporal layers in the backward pass: less memory, more time

    # The two inputs of the temporal transformer.

    def _embed(self, ids: Tensor, flags: tuple[Tensor, Tensor]) -> Tensor:
        """Tokens [B, T, N_Q] (K: none) and two flags a token → [B, T, N_Q * (token_width + 2)]."""
        table = self.embed_tokens[0]  # one for all codebooks: a single look-up
        first = torch.arange(self.config.num_codebooks, device=ids.device) * (self.config.codebook_size + 1)
        rows = table(ids + first).flatten(-2)
        return torch.cat([rows, *(f.to(rows.dtype) for f in flags)], -1)

    def embed_past(self, ids: Tensor, heard: Tensor, text: Tensor, step: Tensor) -> Tensor:
        """V of eq 14: tokens [B, T, N_Q], what is known of them, text [B, T] → [B, T, width].

        `step` [B, T] are the time steps the tokens belong to (0: before the beginning).
        """
        x: Tensor = self.decoder.model.embed_tokens(text)
        if self.join is not None:
            y: Tensor = self.join(self._embed(ids, (heard == HEARD, heard == GUESSED)))
            return x + y
        tables = self.embed_tokens
        for k in range(self.config.num_codebooks):
            x = x + tables[k](ids[..., k])
        for k, token in enumerate(self.config.other):  # silence, from time step 1 on; its acoustic tokens come later
            on = step > (0 if k == 0 else self.config.acoustic_delay)
            silent = torch.where(on, token, self.config.codebook_size)
            x = x + tables[self.config.num_codebooks + k](silent)
        return x

    def embed_seen(self, tokens: Tensor, status: Tensor) -> Tensor | None:
        """What arrived of the chunks that are being recovered: tokens, status [B, T, N_Q] → [B, T, width]."""
        if self.see is None:
            return None
        received = status == TokenStatus.RECEIVED
        ids = torch.where(received, tokens, self.config.codebook_size)
        y: Tensor = self.see(self._embed(ids, (received, status == TokenStatus.UNSENT)))
        return y

    def temporal(self, x: Tensor, window: Window, stepping: Tensor | None = None) -> tuple[Tensor, Window]:
        """T time steps through the temporal transformer: x [B, T, width] → A [B, T, width] and the next state."""
        body = self.decoder.model
        frequencies = body.layers[0].self_attn.rotary_emb.inv_freq
        now = plan(window, x.shape[1], frequencies, self.config.window, stepping)
        keys, values = [], []

        def layer_step(layer: Any, x: Tensor, past: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
            y, key, value = self_attention(layer.self_attn, depth.rms_norm(layer.input_layernorm, x), past, now)
            x = x + y
            return x + layer.mlp(depth.rms_norm(layer.post_attention_layernorm, x)), key, value

        for layer, past in zip(body.layers, zip(window.keys, window.values, strict=True), strict=True):
            if self.checkpointing and torch.is_grad_enabled():
                x, key, value = torch.utils.checkpoint.checkpoint(layer_step, layer, x, past, use_reentrant=False)
            else:
                x, key, value = layer_step(layer, x, past)
            keys.append(key)
            values.append(value)
        return depth.rms_norm(body.norm, x), advance(window, keys, values, x.shape[1], stepping)

    # Whole sequences, for training.

    def contexts(
        self, tokens: Tensor, status: Tensor, past: Tensor, heard: Tensor, text: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Temporal transformer over whole sequences, teacher-forced: A and the depth transformer's context.

        tokens, status [B, T, N_Q]: the chunks to recover and what is known of their tokens (used if `sees_received`);
        past, heard [B, T, N_Q]: the same chunks as later ones remember them (own guesses, K for none);
        text [B, T]. All are in time steps: see `delayed`. Returns A [B, T, width] and A with what was seen added.
        """
        batch, steps, _ = tokens.shape
        config = self.config
        first = past.new_full((batch, 1, config.num_codebooks), config.codebook_size)
        past = torch.cat([first, past[:, :-1]], 1)
        heard = torch.cat([torch.full_like(first, ABSENT), heard[:, :-1]], 1)
        text = torch.cat([text.new_full((batch, 1), config.text_size), text[:, :-1]], 1)
        step = torch.arange(steps, device=past.device).expand(batch, steps)
        x = self.embed_past(past, heard, text, step)
        seen = self.embed_seen(tokens, status)
        if seen is not None:
            x = x + seen
        a, _ = self.temporal(self.dropout(x), fresh_window(self.decoder.model.layers, batch))
        return a, self.dropout(a if seen is None else a + seen)

    def mixed_contexts(
        self, tokens: Tensor, arrival: Tensor, sent: Tensor, text: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """`contexts` where tokens arrive in part, for training what decides about them.

        tokens [B, T, N_Q]; arrival a in [0, 1] and sent in [0, 1], both [B, T, N_Q], in time steps (see `delayed`).
        What is seen of a chunk and what later ones remember is a e(token) + (1 - a) e(no token); `sent` is what the
        table of contents says of it. Both have gradients. With ones and zeros it is `contexts` with gaps in the past.
        """
        config = self.config
        none = torch.full_like(tokens, config.codebook_size)
        text = torch.full_like(tokens[..., 0], config.text_pad) if text is None else text
        first = torch.zeros_like(tokens[:, :1])
        before, share = torch.cat([first, tokens[:, :-1]], 1), torch.cat([first.to(arrival), arrival[:, :-1]], 1)
        text = torch.cat([text.new_full((len(text), 1), config.text_size), text[:, :-1]], 1)
        step = torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape[:2])
        x = self.embed_past(none, torch.full_like(none, ABSENT), text, step)
        if self.join is not None:
            x = x + self._mixed(self.join, before, share, torch.zeros_like(share))
        else:
            for k, table in enumerate(self.embed_tokens[: config.num_codebooks]):
                x = x + share[..., k, None] * (table(before[..., k]) - table(none[..., k]))
        seen = self.embed_seen(none, torch.full_like(none, TokenStatus.LOST))
        if seen is not None:
            assert self.see is not None
            seen = seen + self._mixed(self.see, tokens, arrival, 1 - sent)
            x = x + seen
        a, _ = self.temporal(x, fresh_window(self.decoder.model.layers, len(tokens)))
        return a, a if seen is None else a + seen

    def _mixed(self, layer: nn.Linear, ids: Tensor, share: Tensor, flag: Tensor) -> Tensor:
        """What a share of tokens, with a second flag, adds to the layer's output without any."""
        first = torch.arange(self.config.num_codebooks, device=ids.device) * (self.config.codebook_size + 1)
        table = self.embed_tokens[0]
        rows = table(ids + first) - table(self.config.codebook_size + first)
        y: Tensor = layer(torch.cat([(share[..., None] * rows).flatten(-2), share, flag], -1))
        return y

    def depth_hidden(self, context: Tensor, ids: Tensor, text: Tensor) -> Tensor:
        """Depth transformer over M whole chunks, teacher-forced: context [M, width], ids [M, N_Q], text [M].

        Returns hidden [M, N_Q, depth width]; `depth.head` makes logits of it.
        """
        return depth.run(self.depth_decoder, ids, text, context)

    def text_logits(self, a: Tensor) -> Tensor:
        """l_{n,1} of §III-C: A [..., width] → [..., text_size]."""
        logits: Tensor = self.decoder.lm_head(a)
        return logits

    def forward(
        self,
        tokens: Tensor,
        status: Tensor | None = None,
        past: Tensor | None = None,
        heard: Tensor | None = None,
        text: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Teacher-forced logits [B, T, N_Q, K] and text logits [B, T, text_size] of chunks [B, T, N_Q].

        Without `status` nothing of a chunk is seen before it is predicted; `past` and `heard` are what later chunks
        remember (default: the tokens, all heard); `text` [B, T] (default: padding).
        """
        config = self.config
        status = torch.full_like(tokens, TokenStatus.LOST) if status is None else status
        past = tokens if past is None else past
        heard = torch.full_like(tokens, HEARD) if heard is None else heard
        text = torch.full_like(tokens[..., 0], config.text_pad) if text is None else text
        steps = [self.delayed(x, fill) for x, fill in self._delays(tokens, status, past, heard)]
        if config.acoustic_delay:
            text = torch.cat([text, torch.full_like(text[:, :1], config.text_pad)], 1)
        a, context = self.contexts(steps[0], steps[1], steps[2], steps[3], text)
        flat = context.flatten(0, 1)
        hidden = self.depth_hidden(flat, steps[0].flatten(0, 1), text.flatten())
        logits = depth.per_codebook(self.depth_decoder.lm_heads, hidden, 0)
        logits = logits.view(*context.shape[:2], config.num_codebooks, -1)
        return self.undelayed(logits), self.text_logits(a)[:, : tokens.shape[1]]

    def _delays(self, tokens: Tensor, status: Tensor, past: Tensor, heard: Tensor) -> list[tuple[Tensor, int]]:
        none = self.config.codebook_size
        return [(tokens, none), (status, TokenStatus.UNSENT), (past, none), (heard, ABSENT)]

    def delayed(self, x: Tensor, fill: int) -> Tensor:
        """From chunks to time steps (eq 16): acoustic entries of x [B, T, N_Q] move on by one, with `fill` before.

        One time step more comes out; without an acoustic delay x itself does.
        """
        if not self.config.acoustic_delay:
            return x
        edge = torch.full_like(x[:, :1], fill)
        return torch.cat([torch.cat([x, edge], 1)[..., :1], torch.cat([edge, x], 1)[..., 1:]], -1)

    def undelayed(self, x: Tensor) -> Tensor:
        """From time steps back to chunks: the inverse of `delayed` for x [B, T, N_Q, ...]."""
        if not self.config.acoustic_delay:
            return x
        return torch.cat([x[:, :-1, :1], x[:, 1:, 1:]], 2)

    # One chunk at a time.

    def fresh_state(self, batch: int) -> RQState:
        """The state of `batch` streams that have not begun."""
        config = self.config
        window = fresh_window(self.decoder.model.layers, batch)
        device = window.position.device
        none = torch.full((batch, config.num_codebooks), config.codebook_size, device=device)
        text = torch.full((batch,), config.text_size, device=device)
        state = RQState(window, none, torch.full_like(none, ABSENT), text)
        if not config.acoustic_delay:
            return state
        a, window = self._time_step(state, None)
        zero = torch.zeros(batch, 1, device=device)
        semantic = Filled(none[:, :1], zero, zero[..., None].expand(-1, -1, config.codebook_size))
        return replace(state, window=window, late=Late(a, none, torch.zeros_like(none, dtype=torch.bool), semantic))

    def restart(self, state: RQState, streams: Tensor) -> RQState:
        """The same state with some streams ([B] bool) made fresh, for a new call in an old place of the batch."""
        with torch.no_grad():
            return _merge(streams, self.fresh_state(len(streams)), state)

    @torch.no_grad()
    def step(
        self,
        tokens: Tensor,
        status: Tensor,
        state: RQState | None = None,
        *,
        predict: Tensor | None = None,
        sampling: Sampling | None = None,
        look_ahead: bool = True,
        all_logits: bool = False,
        stepping: Tensor | None = None,
    ) -> Step:
        """Recover one chunk (eq 8): tokens and TokenStatus [B, N_Q] → the chunk made whole.

        predict [B, N_Q] bool: the tokens to predict among those that were not received (default: all of them).
        look_ahead: with an acoustic delay, True gives this chunk at once, through a second depth pass that puts the
        model's own guess where the next chunk's semantic token will be; once that has arrived, what was guessed is
        guessed anew for the model's memory. False gives the chunk before, one chunk late (all absent at first).
        all_logits: compute the logits of every token of the chunk, not only where one is predicted.
        stepping [B] bool: the streams that move on (default: all); the others keep their state.

        Raises ValueError if shapes do not fit.
        """
        count, none = self.config.num_codebooks, self.config.codebook_size
        if tokens.dim() != 2 or tokens.shape[1] != count or tokens.shape != status.shape:
            raise ValueError(f"Tokens, status are [B, {count}], not {list(tokens.shape)}, {list(status.shape)}.")
        old = self.fresh_state(tokens.shape[0]) if state is None else state
        received = status == TokenStatus.RECEIVED
        wanted = ~received if predict is None else predict & ~received
        if stepping is not None:
            wanted = wanted & stepping[:, None]
        call = _Call(torch.where(received, tokens, none), wanted, status, sampling or Sampling(), all_logits)
        step = self._step_now(call, old) if old.late is None else self._step_late(call, old, old.late, look_ahead)
        return step if stepping is None else replace(step, state=_merge(stepping, step.state, old))

    def _step_now(self, call: _Call, state: RQState) -> Step:
        """Without an acoustic delay: one temporal step, then the depth transformer."""
        seen = self.embed_seen(call.known[:, None], call.status[:, None])
        context, window = self._time_step(state, seen)
        filled = self._fill(context, call.known, call.wanted, state.window.position, call)
        return self._step(filled, call.known, self._remember(window, call.known, filled))

    def _step_late(self, call: _Call, state: RQState, late: Late, look_ahead: bool) -> Step:
        """With an acoustic delay: this chunk's semantic token and the last one's acoustic tokens share a time step."""
        known = torch.cat([call.known[:, :1], late.known[:, 1:]], 1)
        wanted = torch.cat([call.wanted[:, :1], late.wanted[:, 1:]], 1)
        now = self._fill(late.context, known, wanted, state.window.position, call)
        after = self._remember(state.window, known, now)
        context, window = self._time_step(after, None)
        semantic = now.columns(0, 1)
        after = replace(after, window=window, late=Late(context, call.known, call.wanted, semantic))
        if not look_ahead:
            return self._step(late.semantic.then(now.columns(1)), late.known, after)
        known, wanted = call.known.clone(), call.wanted.clone()
        known[:, 0] = self.config.codebook_size  # the next chunk's semantic token: a guess, if any is needed
        wanted[:, 0] = wanted[:, 1:].any(1)
        ahead = self._fill(context, known, wanted, window.position, call)
        return self._step(semantic.then(ahead.columns(1)), call.known, after)

    def _time_step(self, state: RQState, seen: Tensor | None) -> tuple[Tensor, Window]:
        """The context of the next depth pass, [B, width]."""
        step = state.window.position[:, None]
        x = self.embed_past(state.past[:, None], state.heard[:, None], state.text[:, None], step)
        a, window = self.temporal(x if seen is None else x + seen, state.window)
        return (a if seen is None else a + seen)[:, 0], window

    def _fill(self, context: Tensor, known: Tensor, wanted: Tensor, position: Tensor, call: _Call) -> Filled:
        """The depth pass, down to the deepest codebook where some stream wants a token."""
        text = torch.full_like(known[:, 0], self.config.text_pad)
        needed = (wanted.any(0) | call.all_logits).tolist()
        ids = list(known.unbind(1))
        rows = known.new_zeros(len(known), self.config.codebook_size, dtype=torch.float32)
        logits = [rows] * len(ids)
        last = max((k for k, n in enumerate(needed) if n), default=-1)
        stepper = depth.Stepper(self.depth_decoder, context, text) if last >= 0 else None
        for k in range(last + 1):
            assert stepper is not None
            hidden = stepper.step(ids[k - 1] if k else None)
            if needed[k]:
                logits[k] = stepper.logits(hidden).float()
                token = call.sampling.choose(logits[k], position, k)
                ids[k] = torch.where(wanted[:, k], token, ids[k])
        return _filled(known, wanted, torch.stack(ids, 1), torch.stack(logits, 1))

    def _remember(self, window: Window, known: Tensor, filled: Filled) -> RQState:
        """The state after a time step, of whose tokens `known` were received."""
        none = self.config.codebook_size
        heard = torch.where(known != none, HEARD, torch.where(filled.ids != none, GUESSED, ABSENT))
        return RQState(window, filled.ids, heard, torch.full_like(known[:, 0], self.config.text_pad))

    def _step(self, filled: Filled, known: Tensor, state: RQState) -> Step:
        none = self.config.codebook_size
        absent = filled.ids == none
        tokens = filled.ids.masked_fill(absent, 0)
        return Step(tokens, (known == none) & ~absent, absent, filled.probability, filled.logits, state)

    @classmethod
    def from_moshi(cls, model: Any, codec: str, other: tuple[int, ...]) -> RQTransformer:
        """Kyutai's model: the parts of a transformers `MoshiForConditionalGeneration`, shared, not copied.

        codec: the fingerprint of its Mimi; other: tokens [N_Q] of silence, the other speaker's stream.
        """
        facts, inner = model.config, model.config.depth_decoder_config
        config = RQTransformerConfig(
            num_codebooks=facts.num_codebooks,
            codebook_size=facts.audio_vocab_size,
            codec=codec,
            width=facts.hidden_size,
            layers=facts.num_hidden_layers,
            heads=facts.num_attention_heads,
            ffn=facts.ffn_dim,
            depth_width=inner.hidden_size,
            depth_layers=inner.num_hidden_layers,
            depth_heads=inner.num_attention_heads,
            depth_ffn=inner.ffn_dim,
            token_width=0,
            text_size=facts.vocab_size,
            text_pad=min(MOSHI_TEXT_PAD, facts.vocab_size - 1),
            window=facts.sliding_window,
            acoustic_delay=1,
            sees_received=False,
            other=other,
        )
        parts = {name: getattr(model, name) for name in ("embed_tokens", "decoder", "depth_decoder")}
        return cls(config, parts)


def _filled(known: Tensor, wanted: Tensor, ids: Tensor, logits: Tensor) -> Filled:
    """With the probability of each token: known, wanted, ids [B, n], logits [B, n, K]."""
    chosen = ids.clamp(max=logits.shape[-1] - 1)[..., None]
    chance = (logits.gather(-1, chosen)[..., 0] - logits.logsumexp(-1)).exp()
    received = (known < logits.shape[-1]).float()
    return Filled(ids, torch.where(wanted, chance, received), logits)


def _merge(streams: Tensor, new: RQState, old: RQState) -> RQState:
    """The state of `new` for some streams ([B] bool), of `old` for the others."""

    def both(a: Tensor, b: Tensor) -> Tensor:
        return select(streams, a, b)

    late = None
    if new.late is not None and old.late is not None:
        a, b = new.late, old.late
        semantic = Filled(
            both(a.semantic.ids, b.semantic.ids),
            both(a.semantic.probability, b.semantic.probability),
            both(a.semantic.logits, b.semantic.logits),
        )
        late = Late(both(a.context, b.context), both(a.known, b.known), both(a.wanted, b.wanted), semantic)
    return RQState(
        merge(streams, new.window, old.window),
        both(new.past, old.past),
        both(new.heard, old.heard),
        both(new.text, old.text),
        late,
    )


def _fresh_parts(config: RQTransformerConfig) -> dict[str, nn.Module]:
    """Randomly initialised Moshi classes of the configured sizes."""
    try:
        from transformers import MoshiConfig
        from transformers.models.moshi import modeling_moshi
    except ImportError as error:
        raise MissingExtraError("The recovery model", "large") from error
    classes: Any = modeling_moshi
    inner = {
        "hidden_size": config.depth_width,
        "num_hidden_layers": config.depth_layers,
        "num_attention_heads": config.depth_heads,
        "ffn_dim": config.depth_ffn,
        "sliding_window": config.num_codebooks,
        "max_position_embeddings": config.num_codebooks + 1,
    }
    facts = MoshiConfig(
        vocab_size=config.text_size,
        hidden_size=config.width,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        audio_vocab_size=config.codebook_size,
        max_position_embeddings=config.window,
        sliding_window=config.window,
        ffn_dim=config.ffn,
        num_codebooks=config.num_codebooks,
        audio_encoder_config={"num_quantizers": max(32, config.num_codebooks)},
        depth_decoder_config=inner,
    )
    tables, rows, width = config.num_codebooks * (2 if config.other else 1), config.codebook_size + 1, config.width
    if config.token_width:
        tables, rows, width = 1, config.num_codebooks * rows, config.token_width
    parts: dict[str, nn.Module] = {
        "embed_tokens": nn.ModuleList(nn.Embedding(rows, width) for _ in range(tables)),
        "decoder": classes.MoshiForCausalLM(facts),
        "depth_decoder": classes.MoshiDepthDecoder(facts.depth_decoder_config),
    }
    for part in parts.values():
        _initialise(part, config)
    return parts


def _initialise(part: nn.Module, config: RQTransformerConfig) -> None:
    """Unit gain in every product, small embeddings and heads, residual branches that add up to one layer's worth.

    (transformers draws the depth decoder's weights from N(0, 1), which no training from scratch survives.)
    """
    for name, value in part.named_parameters():
        if value.dim() == 1:
            continue
        std = value.shape[-1] ** -0.5
        if "embed" in name or isinstance(part, nn.ModuleList):
            std = 0.1
        elif "head" in name:
            std = 0.02
        elif "o_proj" in name or "fc2" in name:
            std /= (2 * max(config.layers, config.depth_layers)) ** 0.5
        nn.init.normal_(value, std=std)


def save(model: RQTransformer, path: str | Path, storage: str = "int8") -> None:
    """Write weights and configuration as one safetensors file, whole or not at all.

    storage: "float32", "float16", or "int8" (tables and matrices in 8 bits with a float16 scale a row).
    """
    from safetensors.torch import save as packed

    if storage not in ("float32", "float16", "int8"):
        raise ValueError(f"storage is float32, float16 or int8, not {storage}.")
    kept: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        value = value.detach().float().cpu().contiguous()
        if value.dim() < 2 or storage == "float32":
            kept[name] = value
        elif storage == "float16":
            kept[name] = value.half()
        else:
            scale = (value.abs().amax(-1, keepdim=True) / 127).clamp(min=6e-8).half()
            kept[name] = (value / scale.float()).round().clamp(-127, 127).to(torch.int8)
            kept[name + SCALE] = scale
    write_whole(path, packed(kept, {"format": FORMAT, "config": json.dumps(asdict(model.config))}))


def load(path: str | Path, codec: str | None = None) -> RQTransformer:
    """Read what `save` wrote; `codec` is the fingerprint of the codec in use.

    Raises InputError if the file is not a recovery model, or one for another codec.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), "pt") as file:
            facts = file.metadata() or {}
            kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InputError(f"The recovery model '{path}' cannot be read: {error}.") from error
    config = _read_config(path, facts)
    if codec and config.codec and codec != config.codec:
        raise InputError(
            f"The recovery model '{path}' was trained on the tokens of another codec ({config.codec[:12]}), "
            f"not of the one in use ({codec[:12]})."
        )
    model = RQTransformer(config)
    weights = {n: v.float() * kept[n + SCALE].float() if v.dtype == torch.int8 else v.float() for n, v in kept.items()}
    try:
        model.load_state_dict({n: v for n, v in weights.items() if not n.endswith(SCALE)})
    except RuntimeError as error:
        raise InputError(f"The weights in '{path}' do not fit its configuration.") from error
    return model.eval()


def _read_config(path: str | Path, facts: Mapping[str, str]) -> RQTransformerConfig:
    if facts.get("format") != FORMAT:
        raise InputError(f"'{path}' is not a recovery model of this version.")
    try:
        values = json.loads(facts["config"])
        values["other"] = tuple(values["other"])
        return RQTransformerConfig(**{f.name: values[f.name] for f in fields(RQTransformerConfig)})
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"The configuration in '{path}' cannot be read.") from error
