"""The fast way through models whose layers we know: fewer passes over memory, the same numbers.

`speed_up(model)` changes no module and no parameter. It remembers, beside the model, that packed rows may take a second
reading of the same weights: decoder layers of the Llama family (Llama, SmolLM, Mistral, Qwen 2 and 3), written here as
two autograd functions a layer with their backward by hand, plain or with LoRA adapters. Anything else about a layer
(dropout, DoRA, hooks, a window narrower than a segment …) sends the whole row the model's own way.

What it saves on a CPU: projections that read the same input are one matrix product; a LoRA adapter rides along as a few
more columns of it, (x, xAᵀ) · (W, sB)ᵀ, forward and backward; frozen weights are cast once, with no gradient; attention
is a handful of batched products a segment, grouped heads stacked; normalisation and residuals stay in fp32 for free.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genwright.nn.packing import Packed
from genwright.nn.pages import let_go

FAMILIES = frozenset({"llama", "mistral", "qwen2", "qwen3"})
BLOCK = 128  # query tokens that attend at once: half of a long segment's future is then never computed


def speed_up(model: nn.Module, dtype: torch.dtype | None = None) -> None:
    """Let packed rows take the fast way through `model` (transformers, or PEFT around one), computing in `dtype`.

    dtype: bf16 or fp32; that of the embeddings if not told. Trainable parameters keep their own dtype (fp32 masters)
    and get gradients in it. A model of another family is left as it is. `slow_down` undoes it.
    """
    core = _core(model)
    embeddings = core.get_input_embeddings()
    if embeddings is not None:
        object.__setattr__(core, "_genwright_fast", _Fast(dtype or embeddings.weight.dtype))


def slow_down(model: nn.Module) -> None:
    """Forget what `speed_up` remembered."""
    if _fast(model) is not None:
        object.__delattr__(_core(model), "_genwright_fast")


def takes_the_fast_way(model: nn.Module, packed: Packed) -> bool:
    """Whether `packed_hidden` would compute this row here."""
    fast = _fast(model)
    return fast is not None and _read_layers(model, packed) is not None


def hidden(model: nn.Module, packed: Packed) -> Tensor | None:
    """Last hidden states (T, d) by the fast way; None when the model or the row has to take its own."""
    fast = _fast(model)
    layers = None if fast is None else _read_layers(model, packed)
    if fast is None or layers is None:
        return None
    core, kind = _core(model), packed.tokens.device.type
    with torch.autocast(kind, enabled=False):  # precisions are chosen here, one by one
        x = core.embed_tokens(packed.tokens).float()
        cos, sin = (t[0, :, : t.shape[-1] // 2] for t in core.rotary_emb(x, packed.positions[None]))
        row = Row(cos.contiguous(), sin.contiguous(), blocks(packed.lengths, causal=True), fast.dtype)
        for layer in layers:
            fast.refresh(layer)
            x = _Attention.apply(x, layer, row, *layer.attention_parameters())
            x = _GatedMlp.apply(x, layer, row, *layer.mlp_parameters())
        out: Tensor = _Norm.apply(x, core.norm.weight, core.norm.variance_epsilon, fast.dtype)
    return out


def frozen_copy(model: nn.Module, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """`weight` in another dtype: cast once for a frozen one, at each call (with a gradient) for a trainable one."""
    fast = _fast(model)
    if weight.dtype == dtype or weight.requires_grad or fast is None:
        return weight.to(dtype)
    return fast.copy(weight, dtype)


@dataclass
class Row:
    """What all layers share about one packed row: rotary tables (T, D/2), attention blocks, compute dtype."""

    cos: Tensor
    sin: Tensor
    blocks: list[Block]
    dtype: torch.dtype


@dataclass(frozen=True)
class Block:
    """Queries [first, last) of a segment that begins at `start`; they look at the `seen` first of its tokens."""

    start: int
    first: int
    last: int
    seen: int
    causal: bool


def blocks(lengths: Iterable[int], causal: bool, size: int = BLOCK) -> list[Block]:
    """Cut every segment's queries into blocks of about `size`, equal within a segment."""
    found, start = [], 0
    for length in lengths:
        count = -(-length // size)
        edges = [length * i // count for i in range(count + 1)] if causal else [0, length]
        for first, last in pairwise(edges):
            found.append(Block(start, first, last, last if causal else length, causal))
        start += length
    return found


# ---- attention over packed rows ------------------------------------------------------------------------------------


def attend(q: Tensor, k: Tensor, v: Tensor, plan: Sequence[Block]) -> tuple[Tensor, list[Tensor]]:
    """Attention of stacked heads, and the probabilities of each block for the backward.

    q (G, T · R, D), already scaled: the R query heads that share a key head stand next to each other for each token;
    k and v (G, T, D). Probabilities are computed in fp32 and kept in the dtype of q.
    """
    groups, stack = q.shape[0], q.shape[1] // k.shape[1]
    out, kept = torch.empty_like(q), []
    future = _future(max(b.last - b.first for b in plan), q.dtype, q.device)
    for b in plan:
        rows, size = slice((b.start + b.first) * stack, (b.start + b.last) * stack), b.last - b.first
        keys = slice(b.start, b.start + b.seen)
        scores = torch.bmm(q[:, rows], k[:, keys].transpose(1, 2))
        if b.causal and size > 1:
            scores.view(groups, size, stack, b.seen)[..., b.first :].add_(future[:size, None, :size])
        chances = torch.softmax(scores, -1)
        torch.bmm(chances, v[:, keys], out=out[:, rows])
        kept.append(chances)
    return out, kept


def attend_backward(
    slope: Tensor, q: Tensor, k: Tensor, v: Tensor, kept: Sequence[Tensor], plan: Sequence[Block]
) -> tuple[Tensor, Tensor, Tensor]:
    """Slopes at q, k and v of `attend`, from the slope at its output, all in its layouts."""
    stack = q.shape[1] // k.shape[1]
    dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    for b, chances in zip(plan, kept, strict=True):
        rows = slice((b.start + b.first) * stack, (b.start + b.last) * stack)
        keys = slice(b.start, b.start + b.seen)
        here = slope[:, rows]
        raw = torch._softmax_backward_data(torch.bmm(here, v[:, keys].transpose(1, 2)), chances, -1, chances.dtype)
        torch.bmm(raw, k[:, keys], out=dq[:, rows])
        _gather(dv, keys, b, torch.bmm(chances.transpose(1, 2), here))
        _gather(dk, keys, b, torch.bmm(raw.transpose(1, 2), q[:, rows]))
    return dq, dk, dv


def _gather(total: Tensor, keys: slice, b: Block, part: Tensor) -> None:
    """Blocks of a segment see ever more keys: the first block's are new, of later ones the last are."""
    old = b.first if b.causal else 0
    if old:
        total[:, keys][:, :old] += part[:, :old]
    total[:, keys][:, old:] = part[:, old:]


def _future(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.full((size, size), float("-inf"), dtype=dtype, device=device).triu_(1)


class PackedAttention(torch.autograd.Function):
    """Attention of a packed row for layers we do not know: q (1, H, T, D), k and v (1, G, T, D) → (1, T, H, D)."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, plan: Sequence[Block], scaling: float) -> Tensor:
        _, heads, length, size = q.shape
        groups = k.shape[1]
        stacked = (q[0] * scaling).view(groups, heads // groups, length, size).transpose(1, 2)
        stacked = stacked.reshape(groups, -1, size)
        keys, values = k[0].contiguous(), v[0].contiguous()
        out, kept = attend(stacked, keys, values, plan)
        ctx.save_for_backward(stacked, keys, values, *kept)
        ctx.plan, ctx.scaling, ctx.shape = plan, scaling, (groups, length, heads // groups, size)
        return out.view(ctx.shape).transpose(0, 1).reshape(1, length, heads, size)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        groups, length, stack, size = ctx.shape
        q, k, v, *kept = ctx.saved_tensors
        stacked = slope.view(length, groups, stack, size).transpose(0, 1).reshape(groups, -1, size)
        dq, dk, dv = attend_backward(stacked, q, k, v, kept, ctx.plan)
        dq = dq.view(groups, length, stack, size).transpose(1, 2).reshape(1, -1, length, size) * ctx.scaling
        return dq, dk[None], dv[None], None, None


# ---- one decoder layer ---------------------------------------------------------------------------------------------


class _Attention(torch.autograd.Function):
    """x + o(attend(rope(qkv(norm(x)))))"""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Layer, row: Row, *parameters: Tensor) -> Tensor:
        scale, wide = _norm_into(x, layer.norm_1, layer.qkv)
        qkv = layer.qkv.forward(wide)
        q, k, v, extra = layer.split_heads(qkv, row)
        out, kept = attend(q, k, v, row.blocks)
        wide_o, inside = layer.o.room(len(x))
        layer.o.image(layer.merge_heads(out, inside, wide_o))
        ctx.save_for_backward(x, scale, wide, q, k, v, wide_o, *extra, *kept)
        ctx.layer, ctx.row, ctx.extra = layer, row, len(extra)
        ctx.weights = (layer.norm_1, layer.qkv.snapshot(), layer.o.snapshot())
        return x + layer.o.forward(wide_o)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        layer, row = ctx.layer, ctx.row
        x, scale, wide, q, k, v, wide_o, *rest = ctx.saved_tensors
        extra, kept = rest[: ctx.extra], rest[ctx.extra :]
        norm, qkv, o = ctx.weights
        needs = iter(ctx.needs_input_grad[3:])
        norm_needs, head_needs = next(needs), [next(needs) for _ in layer.head_norms()]
        qkv_needs, o_needs = [[next(needs) for _ in group.parameters()] for group in (layer.qkv, layer.o)]
        narrow = slope.to(row.dtype)
        d_out, o_grads = o.backward(narrow, wide_o, o_needs, True)
        dq, dk, dv = attend_backward(layer.stack_heads(d_out), q, k, v, kept, row.blocks)
        d_qkv, head_grads = layer.join_heads(dq, dk, dv, row, extra, head_needs)
        below = ctx.needs_input_grad[0] or norm_needs
        d_y, qkv_grads = qkv.backward(d_qkv, wide, qkv_needs, below)
        dx, d_norm = _norm_backward(d_y, x, scale, norm, slope, norm_needs) if below else (None, None)
        return dx, None, None, d_norm, *head_grads, *qkv_grads, *o_grads


class _GatedMlp(torch.autograd.Function):
    """x + down(silu(gate(norm(x))) · up(norm(x)))"""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Layer, row: Row, *parameters: Tensor) -> Tensor:
        scale, wide = _norm_into(x, layer.norm_2, layer.gate_up)
        both = layer.gate_up.forward(wide)
        gate, up = both.chunk(2, dim=1)
        active = F.silu(gate)
        wide_down, inside = layer.down.room(len(x))
        torch.mul(active, up, out=inside)
        layer.down.image(wide_down)
        ctx.save_for_backward(x, scale, wide, both, active, wide_down[:, layer.down.width :].contiguous())
        ctx.layer, ctx.row = layer, row
        ctx.weights = (layer.norm_2, layer.gate_up.snapshot(), layer.down.snapshot())
        return x + layer.down.forward(wide_down)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        layer, row = ctx.layer, ctx.row
        x, scale, wide, both, active, low = ctx.saved_tensors
        norm, gate_up, down = ctx.weights
        needs = iter(ctx.needs_input_grad[3:])
        norm_needs = next(needs)
        up_needs, down_needs = [[next(needs) for _ in group.parameters()] for group in (layer.gate_up, layer.down)]
        gate, up = both.chunk(2, dim=1)
        wide_down = None
        if any(down_needs):  # the widest tensor of a layer is computed again rather than kept
            wide_down, inside = down.room(len(x))
            torch.mul(active, up, out=inside)
            wide_down[:, down.width :] = low
        d_h, down_grads = down.backward(slope.to(row.dtype), wide_down, down_needs, True)
        d_both = torch.empty_like(both)
        d_gate, d_up = d_both.chunk(2, dim=1)
        torch.mul(d_h, active, out=d_up)
        torch.ops.aten.silu_backward.grad_input(d_h * up, gate, grad_input=d_gate)
        below = ctx.needs_input_grad[0] or norm_needs
        d_y, up_grads = gate_up.backward(d_both, wide, up_needs, below)
        dx, d_norm = _norm_backward(d_y, x, scale, norm, slope, norm_needs) if below else (None, None)
        return dx, None, None, d_norm, *up_grads, *down_grads


class _Norm(torch.autograd.Function):
    """Root-mean-square normalisation in fp32, the result in `dtype`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        scale = _rms(x, eps)
        ctx.save_for_backward(x, scale, weight)
        return (x * scale).mul_(weight).to(dtype)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, weight = ctx.saved_tensors
        dx, d_weight = _norm_backward(slope, x, scale, weight, None, ctx.needs_input_grad[1])
        return dx, d_weight, None, None


def _rms(x: Tensor, eps: float) -> Tensor:
    """1 / root mean square over the last dimension, (…, 1)."""
    return torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()


def _norm_into(x: Tensor, weight: Tensor, group: Group) -> tuple[Tensor, Tensor]:
    """Normalise x (T, d) in fp32, into the input of a group of projections: (scale, wide input)."""
    scale = _rms(x, group.eps)
    wide, inside = group.room(len(x))
    inside.copy_((x * scale).mul_(weight))
    return scale, group.image(wide)


def _norm_backward(
    slope: Tensor, x: Tensor, scale: Tensor, weight: Tensor, carried: Tensor | None, weight_needs: bool
) -> tuple[Tensor, Tensor | None]:
    """Slope at x of weight · x · scale, plus the slope carried past it by the residual; and that at the weight."""
    unit = x * scale
    steep = slope.float() if slope.dtype != torch.float32 else slope
    d_weight = (steep * unit).flatten(0, -2).sum(0).to(weight.dtype) if weight_needs else None
    steep = steep * weight
    mean = (steep * unit).sum(-1, keepdim=True).div_(-x.shape[-1])
    dx = steep.addcmul_(unit, mean)
    return dx.mul_(scale) if carried is None else torch.addcmul(carried, dx, scale), d_weight


# ---- reading a layer -----------------------------------------------------------------------------------------------


@dataclass
class Part:
    """One projection: weight (out, in), frozen or not, perhaps a bias, perhaps a LoRA pair a (r, in), b (out, r)."""

    weight: Tensor
    bias: Tensor | None
    a: Tensor | None = None
    b: Tensor | None = None
    scale: float = 1.0

    @property
    def rank(self) -> int:
        return 0 if self.a is None else int(self.a.shape[0])


@dataclass
class Group:
    """Projections that read the same input, as one: weight (N, d + R) with the scaled LoRA b's in its last columns."""

    parts: list[Part]
    eps: float = 0.0
    weight: Tensor = field(default_factory=lambda: torch.empty(0))
    a: Tensor | None = None
    bias: Tensor | None = None

    def parameters(self) -> list[Tensor]:
        """Every tensor that a gradient may be asked for, in the order `backward` returns them."""
        return [t for p in self.parts for t in (p.weight, p.bias, p.a, p.b) if t is not None]

    @property
    def width(self) -> int:
        return int(self.parts[0].weight.shape[1])

    @property
    def rank(self) -> int:
        return sum(p.rank for p in self.parts)

    def snapshot(self) -> Group:
        """The weights as they are now: a later forward may refresh them before this one's backward."""
        return Group(self.parts, self.eps, self.weight, self.a, self.bias)

    def room(self, length: int) -> tuple[Tensor, Tensor]:
        """An empty wide input (T, d + R), and the part of it where the input itself (T, d) is to be written."""
        wide = self.weight.new_empty(length, self.width + self.rank)
        return wide, wide[:, : self.width]

    def image(self, wide: Tensor) -> Tensor:
        """Write the low-rank image of a wide input beside it."""
        if self.a is not None:
            wide[:, self.width :] = F.linear(wide[:, : self.width], self.a)
        return wide

    def forward(self, wide: Tensor) -> Tensor:
        return F.linear(wide, self.weight, self.bias)

    def backward(
        self, slope: Tensor, wide: Tensor | None, needs: Sequence[bool], below: bool
    ) -> tuple[Tensor, list[Tensor | None]]:
        """Slope at the input (where `below` asks for it), and those of the parameters that `needs` marks."""
        d, a = self.width, self.a
        dy = low = slope
        if below:
            dy = slope @ self.weight
            if a is not None:
                dy, low = dy[:, :d], dy[:, d:]
                dy = (low @ a).add_(dy)
        elif a is not None:
            low = slope @ self.weight[:, d:]
        return dy, self._parameter_slopes(slope, low, wide, needs) if any(needs) else [None] * len(needs)

    def _parameter_slopes(
        self, slope: Tensor, low: Tensor, wide: Tensor | None, needs: Sequence[bool]
    ) -> list[Tensor | None]:
        assert wide is not None
        ask, grads = iter(needs), list[Tensor | None]()
        y, image = wide[:, : self.width], wide[:, self.width :]
        d_a = low.t() @ y if self.a is not None else None
        out, rank = 0, 0
        for p in self.parts:
            mine = slope[:, out : out + p.weight.shape[0]]
            grads.append((mine.t() @ y).to(p.weight.dtype) if next(ask) else None)
            if p.bias is not None:
                grads.append(mine.sum(0, dtype=torch.float32).to(p.bias.dtype) if next(ask) else None)
            if p.a is not None and p.b is not None and d_a is not None:
                grads.append(d_a[rank : rank + p.rank].to(p.a.dtype) if next(ask) else None)
                d_b = mine.t() @ image[:, rank : rank + p.rank] if next(ask) else None
                grads.append(None if d_b is None else d_b.to(p.b.dtype).mul_(p.scale))
            out, rank = out + p.weight.shape[0], rank + p.rank
        return grads


@dataclass
class Layer:
    """A decoder layer as read from its modules: parameters in groups, and the shape of its heads."""

    norm_1: Tensor
    norm_2: Tensor
    qkv: Group
    o: Group
    gate_up: Group
    down: Group
    groups: int
    stack: int
    size: int
    scaling: float
    norm_q: Tensor | None = None
    norm_k: Tensor | None = None
    eps: float = 0.0

    def head_norms(self) -> list[Tensor]:
        return [t for t in (self.norm_q, self.norm_k) if t is not None]

    def attention_parameters(self) -> list[Tensor]:
        return [self.norm_1, *self.head_norms(), *self.qkv.parameters(), *self.o.parameters()]

    def mlp_parameters(self) -> list[Tensor]:
        return [self.norm_2, *self.gate_up.parameters(), *self.down.parameters()]

    def split_heads(self, qkv: Tensor, row: Row) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        """(T, …) → q (G, T · R, D) turned and scaled, k (G, T, D) turned, v (G, T, D); what backward needs besides."""
        length, extra = qkv.shape[0], list[Tensor]()
        heads = qkv.view(length, -1, self.size)
        q, k, v = heads.split([self.groups * self.stack, self.groups, self.groups], dim=1)
        q, k = q.float(), k.float()
        for name, weight in (("q", self.norm_q), ("k", self.norm_k)):
            if weight is not None:
                x = q if name == "q" else k
                scale = _rms(x, self.eps)
                extra += [x, scale]
                x = (x * scale).mul_(weight)
                q, k = (x, k) if name == "q" else (q, x)
        turned_q = _turn(q, row.cos * self.scaling, row.sin * self.scaling)
        turned_q = turned_q.view(length, self.groups, self.stack, self.size).transpose(0, 1)
        turned_k = _turn(k, row.cos, row.sin).transpose(0, 1)
        stacked = torch.empty((self.groups, length, self.stack, self.size), dtype=row.dtype, device=qkv.device)
        stacked.copy_(turned_q)
        keys = torch.empty((self.groups, length, self.size), dtype=row.dtype, device=qkv.device).copy_(turned_k)
        return stacked.view(self.groups, -1, self.size), keys, v.transpose(0, 1).contiguous(), extra

    def merge_heads(self, out: Tensor, inside: Tensor, wide: Tensor) -> Tensor:
        """(G, T · R, D) → (T, H · D), written `inside` the wide input, which is returned."""
        heads = out.view(self.groups, -1, self.stack * self.size).transpose(0, 1)
        inside.unflatten(1, (self.groups, -1)).copy_(heads)
        return wide

    def stack_heads(self, slope: Tensor) -> Tensor:
        """(T, H · D) → (G, T · R, D)"""
        wide = slope.unflatten(1, (self.groups, -1)).transpose(0, 1)
        return wide.reshape(self.groups, -1, self.size)

    def join_heads(
        self, dq: Tensor, dk: Tensor, dv: Tensor, row: Row, extra: Sequence[Tensor], needs: Sequence[bool]
    ) -> tuple[Tensor, list[Tensor | None]]:
        """Slopes at q, k, v of `split_heads` → slope at its input (T, …), and those of the heads' norms."""
        length = dk.shape[1]
        joined = torch.empty((length, self.groups * (self.stack + 2), self.size), dtype=row.dtype, device=dk.device)
        edge = self.groups * self.stack
        back_q = dq.view(self.groups, length, self.stack, self.size).transpose(0, 1).float().flatten(1, 2)
        back_q = _turn(back_q, row.cos * self.scaling, row.sin * -self.scaling)
        back_k = _turn(dk.transpose(0, 1).float(), row.cos, -row.sin)
        grads, saved, ask = list[Tensor | None](), iter(extra), iter(needs)
        if self.norm_q is not None:
            back_q, grad = _norm_backward(back_q, next(saved), next(saved), self.norm_q, None, next(ask))
            grads.append(grad)
        if self.norm_k is not None:
            back_k, grad = _norm_backward(back_k, next(saved), next(saved), self.norm_k, None, next(ask))
            grads.append(grad)
        joined[:, :edge] = back_q
        joined[:, edge : edge + self.groups] = back_k
        joined[:, edge + self.groups :] = dv.transpose(0, 1)
        return joined.flatten(1), grads


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding of x (T, H, D) by tables (T, D/2), halves as in GPT-NeoX and Llama."""
    cos, sin, half = cos[:, None], sin[:, None], x.shape[-1] // 2
    left, right = x[..., :half], x[..., half:]
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    torch.mul(left, cos, out=out[..., :half]).addcmul_(right, sin, value=-1)
    torch.mul(right, cos, out=out[..., half:]).addcmul_(left, sin)
    return out


class _Fast:
    """What is remembered beside a sped-up model: compute dtype, cast weights, and what they were cast from."""

    def __init__(self, dtype: torch.dtype):
        self.dtype = dtype
        # By identity of what was cast: (its state then, the copy, itself, so that no other takes its identity).
        self.copies: dict[tuple[int, ...], tuple[tuple[Any, ...], Tensor, list[Tensor | None]]] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> _Fast:
        return _Fast(self.dtype)

    def copy(self, weight: Tensor, dtype: torch.dtype) -> Tensor:
        state = _state([weight])
        known = self.copies.get((id(weight),))
        if known is None or known[0] != state:
            known = self.copies[(id(weight),)] = (state, weight.detach().to(dtype), [weight])
            let_go([weight])
        return known[1]

    def refresh(self, layer: Layer) -> None:
        """Bring the merged weights of a layer up to date: the frozen part only when it changed, adapters each time."""
        for group in (layer.qkv, layer.o, layer.gate_up, layer.down):
            self._merge(group)

    @torch.no_grad()
    def _merge(self, group: Group) -> None:
        weights = [p.weight for p in group.parts]
        group.a = torch.cat([p.a for p in group.parts if p.a is not None]).to(self.dtype) if group.rank else None
        if any(p.bias is not None for p in group.parts):
            biases = [p.weight.new_zeros(len(p.weight)) if p.bias is None else p.bias for p in group.parts]
            group.bias = torch.cat(biases).to(self.dtype)
        if len(weights) == 1 and not group.rank:
            weight = weights[0]
            group.weight = weight.to(self.dtype) if weight.requires_grad else self.copy(weight, self.dtype)
            return
        # An adapter has its own copy: another one (a reference model's) may be switched on before this one's backward.
        sources = [t for p in group.parts for t in (p.weight, p.b)]
        key, state = tuple(id(t) for t in sources), _state(weights)
        known = self.copies.get(key)
        if known is None or known[0] != state or any(w.requires_grad for w in weights):
            merged = torch.zeros(
                sum(len(w) for w in weights), group.width + group.rank, dtype=self.dtype, device=weights[0].device
            )
            _stack(weights, merged)
            known = self.copies[key] = (state, merged, sources)
            let_go(w for w in weights if not w.requires_grad)
        group.weight = _with_adapters(group, known[1])


def _stack(weights: Sequence[Tensor], merged: Tensor) -> None:
    row = 0
    for w in weights:
        merged[row : row + len(w), : w.shape[1]] = w
        row += len(w)


def _with_adapters(group: Group, merged: Tensor) -> Tensor:
    """Write the scaled b of every adapter into its columns."""
    row, column = 0, group.width
    for p in group.parts:
        if p.b is not None:
            merged[row : row + len(p.weight), column : column + p.rank] = p.b * p.scale
        row, column = row + len(p.weight), column + p.rank
    return merged


def _state(weights: Sequence[Tensor]) -> tuple[Any, ...]:
    return tuple((w.data_ptr(), w._version, tuple(w.shape)) for w in weights)


def _core(model: nn.Module) -> Any:
    inner: Any = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    return inner.base_model


def _fast(model: nn.Module) -> _Fast | None:
    return getattr(_core(model), "_genwright_fast", None)


def _read_layers(model: nn.Module, packed: Packed) -> list[Layer] | None:
    """The decoder layers of a model we know; None as soon as anything about one is not known."""
    core = _core(model)
    config = core.config
    if config.model_type not in FAMILIES or getattr(core, "gradient_checkpointing", False):
        return None
    if config.hidden_act != "silu" or core._forward_hooks or core._forward_pre_hooks:
        return None
    if packed.tokens.device.type != "cpu" or core._compiled_call_impl is not None:
        return None  # a graphics card is kept busy by the model's own kernels; who compiled wants what was compiled
    layers = []
    for module in core.layers[: config.num_hidden_layers]:
        layer = _read_layer(module, max(packed.lengths))
        if layer is None:
            return None
        layers.append(layer)
    return layers


def _read_layer(module: Any, longest: int) -> Layer | None:
    attention, mlp = module.self_attn, module.mlp
    window = attention.sliding_window if hasattr(attention, "sliding_window") else None
    if attention.config.model_type == "mistral":
        window = attention.config.sliding_window
    narrow = window is not None and window < longest
    dropping = attention.attention_dropout > 0 and attention.training
    watched = any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in module.modules())
    parts = [_read_part(m) for m in (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj)]
    parts += [_read_part(m) for m in (mlp.gate_proj, mlp.up_proj, mlp.down_proj)]
    known = [p for p in parts if p is not None]
    if narrow or dropping or watched or len(known) < len(parts):
        return None
    q, k, v, o, gate, up, down = known
    size = attention.head_dim
    groups = k.weight.shape[0] // size
    norm_1, norm_2 = module.input_layernorm, module.post_attention_layernorm
    return Layer(
        norm_1=norm_1.weight, norm_2=norm_2.weight,
        qkv=Group([q, k, v], norm_1.variance_epsilon), o=Group([o]),
        gate_up=Group([gate, up], norm_2.variance_epsilon), down=Group([down]),
        groups=groups, stack=q.weight.shape[0] // size // groups, size=size, scaling=attention.scaling,
        norm_q=attention.q_norm.weight if hasattr(attention, "q_norm") else None,
        norm_k=attention.k_norm.weight if hasattr(attention, "k_norm") else None,
        eps=attention.q_norm.variance_epsilon if hasattr(attention, "q_norm") else 0.0,
    )  # fmt: skip


def _read_part(module: Any) -> Part | None:
    """A projection we can compute: a plain linear layer, or PEFT's LoRA around one without dropout or variants."""
    if type(module) is nn.Linear:
        return Part(module.weight, module.bias)
    base = getattr(module, "base_layer", None)
    if type(base) is not nn.Linear or not hasattr(module, "lora_A"):
        return None
    names = [name for name in module.active_adapters if name in module.lora_A]
    if module.merged:  # PEFT merges into the data behind autograd's back: a copy would not notice
        return None
    if module.disable_adapters or not names:
        return Part(base.weight, base.bias)
    name = names[0]
    dropout, variants = module.lora_dropout[name], getattr(module, "lora_variant", {})
    dropping = getattr(dropout, "p", 0.0) > 0 and module.training
    if len(names) > 1 or dropping or name in variants or name in getattr(module, "lora_embedding_A", {}):
        return None
    a, b = module.lora_A[name], module.lora_B[name]
    if type(a) is not nn.Linear or type(b) is not nn.Linear or a.bias is not None or b.bias is not None:
        return None
    return Part(base.weight, base.bias, a.weight, b.weight, float(module.scaling[name]))
