"""Packed rows through any transformers model: every segment attends to itself (and to a prefix) and to nothing else.

A model is told once (`use_packed_attention`) to ask us for attention, through transformers' public AttentionInterface.
`packed_hidden` then hands a `Segments` along with each forward; without one the model attends as it always did, so
generation with a key-value cache works on the same object.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genwright.core.errors import ModelError
from genwright.nn.losses import CHUNK, linear_cross_entropy
from genwright.nn.packing import IGNORE, Packed

NAME = "genwright_packed"
Prefix = Sequence[tuple[Tensor, Tensor]]  # per layer: keys and values, each (heads, P, head_dim)


@dataclass
class Segments:
    """Which tokens belong together in one forward pass, and what every segment may look at besides itself."""

    lengths: tuple[int, ...]
    prefix: Prefix | None = None
    masks: dict[tuple[Any, ...], Tensor] = field(default_factory=dict)
    calls: int = 0

    def runs(self) -> list[tuple[int, int]]:
        """Neighbours of equal length are computed as one batch: [(how many, length), …]."""
        return [(len(list(group)), length) for length, group in groupby(self.lengths)]


def use_packed_attention(model: nn.Module) -> None:
    """Let `model` (transformers, or PEFT around one) take packed rows. Does nothing the second time.

    Raises ModelError when the architecture does not take its attention from transformers' AttentionInterface.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, packed_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    inner = bare(model)
    if inner.config._attn_implementation == NAME:
        return
    if inner._supports_attention_backend:
        inner.set_attn_implementation(NAME)
    if inner.config._attn_implementation != NAME:
        raise ModelError(
            f"{type(inner).__name__} does not let its attention be chosen, so rows cannot be packed.",
            "Pick another architecture, or train with one sequence a row.",
        )


def bare(model: nn.Module) -> Any:
    """The transformers model inside a PEFT wrapper, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]


def packed_hidden(
    model: nn.Module,
    packed: Packed,
    *,
    inputs_embeds: Tensor | None = None,
    virtual: Tensor | None = None,
    prefix: Prefix | None = None,
) -> Tensor:
    """Last hidden states (T, d) of the model without its head, segment by segment.

    inputs_embeds (T, d): used in place of the tokens' embeddings (`embed(model, tokens)`), for noise on embeddings.
    virtual (P, d): embeddings put in front of every segment (prompt tuning); their own hidden states are dropped.
    prefix: past keys and values that every segment attends to (prefix tuning), per layer (heads, P, head_dim).
    Positions of the real tokens start at P with either. A PEFT model with a prompt-learning adapter needs no argument:
    its prompt is taken from it.
    """
    if virtual is None and prefix is None:
        virtual, prefix = learned_prompt(model)
    if inputs_embeds is None and virtual is None and prefix is None:
        from genwright.nn import fused

        quick = fused.hidden(model, packed)
        if quick is not None:
            return quick
    if virtual is not None:
        return _with_virtual(
            model, packed, embed(model, packed.tokens) if inputs_embeds is None else inputs_embeds, virtual
        )
    positions = packed.positions + (prefix[0][0].shape[-2] if prefix else 0)
    segments = Segments(packed.lengths, prefix)
    return _forward(model, segments, positions, packed.tokens, inputs_embeds, packed.extra.get("token_type_ids"))


def embed(model: nn.Module, tokens: Tensor) -> Tensor:
    """Input embeddings (T, d) of tokens, as the model itself would look them up."""
    rows: Tensor = bare(model).get_input_embeddings()(tokens)
    return rows


def learned_prompt(model: nn.Module) -> tuple[Tensor | None, Prefix | None]:
    """(virtual embeddings, prefix) of a PEFT prompt-learning adapter; (None, None) without one, or when it is off."""
    config = getattr(model, "active_peft_config", None)
    if config is None or not config.is_prompt_learning or getattr(model, "_adapters_disabled", False):
        return None, None
    prompt = model.get_prompt(batch_size=1)  # type: ignore[operator]
    if isinstance(prompt, Tensor):
        return prompt[0], None
    layers = getattr(prompt, "self_attention_cache", prompt).layers
    return None, [(layer.keys[0], layer.values[0]) for layer in layers]


def head(model: nn.Module, hidden_rows: Tensor) -> Tensor:
    """Logits (N, V) of rows of hidden states, with the bias, scale and soft cap of the architecture."""
    parts = head_parts(model)
    logits: Tensor = parts.linear(parts.transform(hidden_rows.to(parts.linear.weight.dtype)))  # type: ignore[arg-type]
    if parts.scale != 1.0:
        logits = logits * parts.scale
    return torch.tanh(logits / parts.softcap) * parts.softcap if parts.softcap else logits


@dataclass(frozen=True)
class Head:
    """A language-model head taken apart: logits = cap(scale · linear(transform(hidden)))."""

    linear: nn.Module
    transform: Callable[[Tensor], Tensor] = lambda rows: rows
    scale: float = 1.0
    softcap: float | None = None


def head_parts(model: nn.Module) -> Head:
    """The parts of a causal or masked language-model head.

    Raises ModelError when the model has no such head.
    """
    inner = bare(model)
    linear = inner.get_output_embeddings()
    if linear is None:
        raise ModelError(f"{type(inner).__name__} has no language-model head.", "Load it with the head of its task.")
    config = inner.config.get_text_config()
    return Head(
        linear,
        _masked_lm_transform(inner),
        _logit_scale(inner, config),
        getattr(config, "final_logit_softcapping", None),
    )


def lm_loss(
    model: nn.Module, hidden: Tensor, targets: Tensor, *, label_smoothing: float = 0.0, chunk: int = CHUNK
) -> Tensor:
    """Sum of the cross-entropy at the supervised positions, (T, d) against (T,): the head sees no other row."""
    parts = head_parts(model)
    keep = (targets != IGNORE).nonzero().squeeze(1)
    rows, wanted = parts.transform(hidden.index_select(0, keep)), targets.index_select(0, keep)
    if isinstance(parts.linear, nn.Linear) and type(parts.linear) is nn.Linear:
        from genwright.nn import fused

        weight, bias = fused.frozen_copy(model, parts.linear.weight, rows.dtype), parts.linear.bias
        return linear_cross_entropy(
            rows, weight, wanted, bias=None if bias is None else bias.to(rows.dtype),
            label_smoothing=label_smoothing, softcap=parts.softcap, scale=parts.scale, chunk=chunk,
        )  # fmt: skip
    from genwright.nn.losses import cross_entropy_sum

    return cross_entropy_sum(head(model, hidden.index_select(0, keep)), wanted, label_smoothing)


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    segments: Segments | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers asks for it: query (B, H, T, D), key and value (B, G, T, D) → (B, T, H, D)."""
    if segments is None:
        return _plain_attention(module, query, key, value, attention_mask, dropout, scaling, kwargs)
    odd = [name for name in ("s_aux", "position_bias") if kwargs.get(name) is not None]
    if odd:
        raise ModelError(
            f"{type(module).__name__} uses {' and '.join(odd)}, which packed rows do not know.",
            "Pick another architecture, or train with one sequence a row.",
        )
    segments.calls += 1
    causal = kwargs.get("is_causal")
    causal = bool(getattr(module, "is_causal", True) if causal is None else causal)
    prefix = None if segments.prefix is None else segments.prefix[int(module.layer_idx)]  # type: ignore[arg-type]
    if prefix is None and _can_stack(segments, query, key, causal, dropout, kwargs):
        from genwright.nn.fused import PackedAttention, blocks

        scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
        return PackedAttention.apply(query, key, value, blocks(segments.lengths, causal), scaling), None
    sizes = [count * length for count, length in segments.runs()]
    parts = []
    for (count, length), q, k, v in zip(
        segments.runs(), query.split(sizes, 2), key.split(sizes, 2), value.split(sizes, 2), strict=True
    ):
        q, k, v = (_batch(x, count, length) for x in (q, k, v))
        if prefix is not None:
            k, v = (
                torch.cat([p.to(x.dtype).expand(count, -1, -1, -1), x], 2) for p, x in zip(prefix, (k, v), strict=True)
            )
        mask = _mask(segments, length, k.shape[2], causal, kwargs.get("sliding_window"), query.device)
        out = _attend(q, k, v, mask, causal and mask is None, dropout, scaling, kwargs.get("softcap"))
        parts.append(out.transpose(1, 2).reshape(1, count * length, out.shape[1], out.shape[3]))
    return torch.cat(parts, 1), None


def _can_stack(
    segments: Segments, query: Tensor, key: Tensor, causal: bool, dropout: float, kwargs: dict[str, Any]
) -> bool:
    """On a CPU the library's bf16 attention has a slow backward (3 times ours); in fp32 it is as good."""
    longest, window = max(segments.lengths), kwargs.get("sliding_window")
    plain = not dropout and not kwargs.get("softcap") and (window is None or window >= longest)
    return plain and query.device.type == "cpu" and query.dtype == key.dtype == torch.bfloat16


def _forward(
    model: nn.Module,
    segments: Segments,
    positions: Tensor,
    tokens: Tensor,
    inputs_embeds: Tensor | None,
    token_types: Tensor | None,
) -> Tensor:
    inner = bare(model)
    if inner.config._attn_implementation != NAME:
        use_packed_attention(model)
    core = inner.base_model
    inputs: dict[str, Any] = (
        {"input_ids": tokens[None]} if inputs_embeds is None else {"inputs_embeds": inputs_embeds[None]}
    )
    if token_types is not None:
        inputs["token_type_ids"] = token_types[None]
    # A mask of four dimensions is taken as it is: the model then builds none of its own, which would be (T, T).
    mask = torch.zeros(1, 1, 1, 1, device=tokens.device)
    hidden: Tensor = core(
        **inputs, position_ids=(positions + _first_position(core))[None], attention_mask=mask,
        use_cache=False, segments=segments,
    ).last_hidden_state[0]  # fmt: skip
    if not segments.calls:
        raise ModelError(
            f"{type(inner).__name__} does not hand packed segments to its attention.",
            "Pick another architecture, or train with one sequence a row.",
        )
    return hidden


def _with_virtual(model: nn.Module, packed: Packed, embeds: Tensor, virtual: Tensor) -> Tensor:
    """Put the virtual embeddings in front of every segment, run, and keep the rows of the real tokens."""
    extra, device = virtual.shape[0], embeds.device
    virtual = virtual.to(embeds.dtype)
    rows = torch.cat([part for piece in embeds.split(packed.lengths) for part in (virtual, piece)])
    lengths = tuple(length + extra for length in packed.lengths)
    positions = torch.cat([torch.arange(length, device=device) for length in lengths])
    types = packed.extra.get("token_type_ids")
    if types is not None:
        zeros = types.new_zeros(extra)
        types = torch.cat([part for piece in types.split(packed.lengths) for part in (zeros, piece)])
    hidden = _forward(model, Segments(lengths), positions, positions, rows, types)
    return hidden[positions >= extra]


def _first_position(core: nn.Module) -> int:
    """RoBERTa and its kin count positions from padding_idx + 1."""
    embeddings = getattr(core, "embeddings", None)
    if hasattr(embeddings, "create_position_ids_from_input_ids"):
        return int(embeddings.padding_idx) + 1  # type: ignore[union-attr]
    return 0


def _batch(x: Tensor, count: int, length: int) -> Tensor:
    """(1, H, count · length, D) → (count, H, length, D), a view where it can be."""
    return x if count == 1 else x[0].unflatten(1, (count, length)).transpose(0, 1)


def _mask(
    segments: Segments, rows: int, columns: int, causal: bool, window: int | None, device: torch.device
) -> Tensor | None:
    """Which of `columns` keys (a prefix first) each of `rows` queries sees; None where the plain rule does."""
    window = window if window is not None and window < columns else None
    if window is None and (not causal or rows == columns):
        return None
    key = (rows, columns, causal, window)
    if key not in segments.masks:
        back = torch.arange(columns - rows, columns, device=device)[:, None] - torch.arange(columns, device=device)
        seen = back >= 0 if causal else torch.ones_like(back, dtype=torch.bool)
        segments.masks[key] = seen if window is None else seen & (back.abs() < window)
    return segments.masks[key]


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    causal: bool,
    dropout: float,
    scaling: float | None,
    softcap: float | None,
) -> Tensor:
    if not softcap:
        gqa = q.shape[1] != k.shape[1]
        return F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            dropout_p=dropout,
            is_causal=causal and q.shape[2] > 1,
            scale=scaling,
            enable_gqa=gqa,
        )
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    scores = q @ k.transpose(2, 3) * (q.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = torch.tanh(scores / softcap) * softcap
    if causal and mask is None:
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril(k.shape[2] - q.shape[2])
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
    weights = F.dropout(torch.softmax(scores, -1, dtype=torch.float32).to(q.dtype), dropout)
    return weights @ v


def _plain_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    dropout: float,
    scaling: float | None,
    kwargs: dict[str, Any],
) -> tuple[Tensor, None]:
    """What the model does on its own: transformers' sdpa, or the written-out formula where scores are soft-capped."""
    softcap = kwargs.pop("softcap", None)
    if softcap:
        causal = mask is None and query.shape[2] > 1 and bool(getattr(module, "is_causal", True))
        out = _attend(query, key, value, mask, causal, dropout, scaling, softcap)
        return out.transpose(1, 2).contiguous(), None
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    result: tuple[Tensor, None] = sdpa_attention_forward(
        module, query, key, value, mask, dropout=dropout, scaling=scaling, **kwargs
    )
    return result


def _logit_scale(inner: Any, config: Any) -> float:
    """Cohere multiplies its logits, Granite divides them."""
    if getattr(inner, "logit_scale", None) is not None and isinstance(inner.logit_scale, (int, float)):
        return float(inner.logit_scale)
    return 1.0 / float(getattr(config, "logits_scaling", None) or 1.0)


def _masked_lm_transform(inner: Any) -> Callable[[Tensor], Tensor]:
    """What a masked language model does to a hidden state before the vocabulary."""
    if hasattr(inner, "cls") and hasattr(inner.cls, "predictions"):  # BERT
        return inner.cls.predictions.transform
    if hasattr(getattr(inner, "lm_head", None), "layer_norm"):  # RoBERTa
        return lambda rows: inner.lm_head.layer_norm(F.gelu(inner.lm_head.dense(rows)))
    if hasattr(inner, "vocab_transform"):  # DistilBERT
        return lambda rows: inner.vocab_layer_norm(inner.activation(inner.vocab_transform(rows)))
    if hasattr(inner, "generator_predictions"):  # ELECTRA
        return inner.generator_predictions
    if hasattr(inner, "head") and hasattr(inner, "decoder"):  # ModernBERT
        return inner.head
    return lambda rows: rows
