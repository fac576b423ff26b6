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
transformer together with the chunk before, and the depth transformer's context once more. With
`sees_coming` (nano) so does what the same packets carry of the next chunk: interleaving makes a
receiver wait for it anyway, and a gap with two banks is easier to bridge.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from semaphone.codec.attention import Window, advance, fresh_window, plan, self_attention
from semaphone.recovery import depth
from semaphone.recovery.base import TokenStatus
from semaphone.recovery.lone import Lone, LoneStepper, eligible
from semaphone.recovery.rq_config import RQTransformerConfig
from semaphone.recovery.rq_parts import fresh_parts
from semaphone.recovery.rq_state import ABSENT, GUESSED, HEARD, Filled, Late, RQState, Step, filled, merge_states
from semaphone.recovery.sampling import Sampling

MOSHI_TEXT_PAD = 3  # the text token of Moshi's vocabulary for a chunk in which no word begins


def delayed(x: Tensor, fill: int, delay: int) -> Tensor:
    """`RQTransformer.delayed` of a model with an acoustic delay of 0 or 1."""
    if not delay:
        return x
    edge = torch.full_like(x[:, :1], fill)
    return torch.cat([torch.cat([x, edge], 1)[..., :1], torch.cat([edge, x], 1)[..., 1:]], -1)


@dataclass(frozen=True)
class _Call:
    """The arguments of one `step`."""

    known: Tensor  # [B, N_Q] int64, received tokens; K: none
    wanted: Tensor  # [B, N_Q] bool, to be predicted
    status: Tensor  # [B, N_Q] TokenStatus
    sampling: Sampling
    all_logits: bool
    coming: tuple[Tensor, Tensor] | None  # tokens, TokenStatus [B, N_Q] of the next chunk


class RQTransformer(nn.Module):
    """Temporal transformer, depth transformer, text stream; see the top of this file."""

    def __init__(self, config: RQTransformerConfig, parts: Mapping[str, nn.Module] | None = None) -> None:
        """`parts` are the `embed_tokens`, `decoder` and `depth_decoder` of a Moshi; without them they are made anew.

        Raises MissingExtraError without transformers.
        """
        super().__init__()
        self.config = config
        parts = fresh_parts(config) if parts is None else parts
        self.embed_tokens: Any = parts["embed_tokens"]  # a table a codebook (the other speaker's last), or one for all
        self.decoder: Any = parts["decoder"]  # MoshiForCausalLM: temporal transformer and text head
        self.depth_decoder: Any = parts["depth_decoder"]
        joined = config.num_codebooks * (config.token_width + 2)
        self.join = nn.Linear(joined, config.width, bias=False) if config.token_width else None
        self.see = nn.Linear(joined, config.width, bias=False) if config.sees_received else None
        self.foresee = nn.Linear(joined, config.width, bias=False) if config.sees_coming else None
        if self.foresee is not None:
            nn.init.zeros_(self.foresee.weight)
        self.points: Tensor | None = None  # [N_Q, K, C] float32, the codec's entries, for `expected_entries`
        self.lone: Lone | None = None  # see `prepare`
        self.dropout = nn.Dropout(0.0)  # of the temporal input and the depth context; training sets it
        self.checkpointing = False  # recompute the temporal layers in the backward pass: less memory, more time

    def prepare(self) -> None:
        """The weights change no more: a lone stream may take the fast way, if this model is one for it."""
        self.lone = Lone(self) if eligible(self) else None

    def train(self, mode: bool = True) -> RQTransformer:
        """As usual; weights that may change are no longer prepared."""
        if mode:
            self.lone = None
        return super().train(mode)

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

    def embed_seen(self, tokens: Tensor, status: Tensor, coming: tuple[Tensor, Tensor] | None = None) -> Tensor | None:
        """What arrived of the chunks that are being recovered: tokens, status [B, T, N_Q] → [B, T, width].

        coming: tokens and status [B, T, N_Q] of the chunk after each, as far as they are known when it is recovered.
        """
        if self.see is None:
            return None
        y: Tensor = self.see(self._arrived(tokens, status))
        if coming is None or self.foresee is None:
            return y
        known = (coming[1] == TokenStatus.RECEIVED).any(-1, keepdim=True)
        ahead: Tensor = self.foresee(self._arrived(*coming))
        return y + known * ahead

    def _arrived(self, tokens: Tensor, status: Tensor) -> Tensor:
        received = status == TokenStatus.RECEIVED
        ids = torch.where(received, tokens, self.config.codebook_size)
        return self._embed(ids, (received, status == TokenStatus.UNSENT))

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
        self,
        tokens: Tensor,
        status: Tensor,
        past: Tensor,
        heard: Tensor,
        text: Tensor,
        coming: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Temporal transformer over whole sequences, teacher-forced: A and the depth transformer's context.

        tokens, status [B, T, N_Q]: the chunks to recover and what is known of their tokens (used if `sees_received`);
        past, heard [B, T, N_Q]: the same chunks as later ones remember them (own guesses, K for none);
        text [B, T]; coming [B, T, N_Q]: what is known of the tokens of the chunk after each when it is recovered
        (used if `sees_coming`). All are in time steps: see `delayed`. Returns A [B, T, width] and A with what was
        seen added.
        """
        batch, steps, _ = tokens.shape
        config = self.config
        first = past.new_full((batch, 1, config.num_codebooks), config.codebook_size)
        past = torch.cat([first, past[:, :-1]], 1)
        heard = torch.cat([torch.full_like(first, ABSENT), heard[:, :-1]], 1)
        text = torch.cat([text.new_full((batch, 1), config.text_size), text[:, :-1]], 1)
        step = torch.arange(steps, device=past.device).expand(batch, steps)
        x = self.embed_past(past, heard, text, step)
        later = torch.cat([tokens[:, 1:], first], 1)
        seen = self.embed_seen(tokens, status, None if coming is None else (later, coming))
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
        coming: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Teacher-forced logits [B, T, N_Q, K] and text logits [B, T, text_size] of chunks [B, T, N_Q].

        Without `status` nothing of a chunk is seen before it is predicted; `past` and `heard` are what later chunks
        remember (default: the tokens, all heard); `text` [B, T] (default: padding); `coming` [B, T, N_Q] what is
        known of the chunk after each (default: nothing), for a model without an acoustic delay.
        """
        config = self.config
        status = torch.full_like(tokens, TokenStatus.LOST) if status is None else status
        past = tokens if past is None else past
        heard = torch.full_like(tokens, HEARD) if heard is None else heard
        text = torch.full_like(tokens[..., 0], config.text_pad) if text is None else text
        steps = [self.delayed(x, fill) for x, fill in self._delays(tokens, status, past, heard)]
        if config.acoustic_delay:
            text = torch.cat([text, torch.full_like(text[:, :1], config.text_pad)], 1)
        a, context = self.contexts(steps[0], steps[1], steps[2], steps[3], text, coming)
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
        return delayed(x, fill, self.config.acoustic_delay)

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
            return merge_states(streams, self.fresh_state(len(streams)), state)

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
        coming: tuple[Tensor, Tensor] | None = None,
    ) -> Step:
        """Recover one chunk (eq 8): tokens and TokenStatus [B, N_Q] → the chunk made whole.

        predict [B, N_Q] bool: the tokens to predict among those that were not received (default: all of them).
        look_ahead: with an acoustic delay, True gives this chunk at once, through a second depth pass that puts the
        model's own guess where the next chunk's semantic token will be; once that has arrived, what was guessed is
        guessed anew for the model's memory. False gives the chunk before, one chunk late (all absent at first).
        all_logits: compute the logits of every token of the chunk, not only where one is predicted.
        stepping [B] bool: the streams that move on (default: all); the others keep their state.
        coming: tokens and TokenStatus [B, N_Q] of the next chunk as far as they are known; not every model looks.

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
        call = _Call(torch.where(received, tokens, none), wanted, status, sampling or Sampling(), all_logits, coming)
        step = self._step_now(call, old) if old.late is None else self._step_late(call, old, old.late, look_ahead)
        return step if stepping is None else replace(step, state=merge_states(stepping, step.state, old))

    def _step_now(self, call: _Call, state: RQState) -> Step:
        """Without an acoustic delay: one temporal step, then the depth transformer."""
        coming = None if call.coming is None else (call.coming[0][:, None], call.coming[1][:, None])
        seen = self.embed_seen(call.known[:, None], call.status[:, None], coming)
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
        x = x if seen is None else x + seen
        if self.lone is not None and len(x) == 1 and state.window.together:
            a, window = self.lone.temporal(x, state.window)
        else:
            a, window = self.temporal(x, state.window)
        return (a if seen is None else a + seen)[:, 0], window

    def _fill(self, context: Tensor, known: Tensor, wanted: Tensor, position: Tensor, call: _Call) -> Filled:
        """The depth pass, down to the deepest codebook where some stream wants a token."""
        text = torch.full_like(known[:, 0], self.config.text_pad)
        needed = (wanted.any(0) | call.all_logits).tolist()
        ids = list(known.unbind(1))
        rows = known.new_zeros(len(known), self.config.codebook_size, dtype=torch.float32)
        logits = [rows] * len(ids)
        last = max((k for k, n in enumerate(needed) if n), default=-1)
        stepper = self._stepper(context, text) if last >= 0 else None
        for k in range(last + 1):
            assert stepper is not None
            hidden = stepper.step(ids[k - 1] if k else None)
            if needed[k]:
                logits[k] = stepper.logits(hidden).float()
                token = call.sampling.choose(logits[k], position, k)
                ids[k] = torch.where(wanted[:, k], token, ids[k])
        return filled(known, wanted, torch.stack(ids, 1), torch.stack(logits, 1))

    def _stepper(self, context: Tensor, text: Tensor) -> depth.Stepper | LoneStepper:
        if self.lone is not None and len(context) == 1:
            return self.lone.stepper(context, text)
        return depth.Stepper(self.depth_decoder, context, text)

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
            sees_coming=False,
            other=other,
        )
        parts = {name: getattr(model, name) for name in ("embed_tokens", "decoder", "depth_decoder")}
        return cls(config, parts)
