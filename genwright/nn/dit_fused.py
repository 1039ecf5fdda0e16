"""Fused: what stands between the matrix products of a block, each as one step forward and one backward.

As plain operations these would be a fifth of the products in arithmetic and take as long as they do: each reads and
writes everything once. Sums and norms are in fp32, whatever comes in; what goes on is in the precision of the products.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

EPS = 1e-6


def modulated(h: Tensor, shift: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """rms_norm(h) · (1 + scale) + shift in `dtype`; h (B, T, d), shift and scale (B, 1, d)."""
    if not torch.is_grad_enabled():
        normed = h * rms(h)
        return torch.addcmul(shift, normed, 1 + scale, out=normed).to(dtype)
    found: Tensor = _Modulated.apply(h, shift, scale, dtype)
    return found


def looked(qkv: Tensor, q_weight: Tensor, k_weight: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    """Attention of every token to every other, (B, T, d), from (B, T, 3 d); queries and keys RMS-normed a head and
    scaled by weights (d / heads,). `mask` (T, T) is added to the scores: -inf where a row must not look. Without
    gradients `qkv` is used up."""
    if not torch.is_grad_enabled() and qkv.dtype == torch.float32:
        return _looked_in_place(qkv, q_weight, k_weight, heads, mask)
    found: Tensor = _Looked.apply(qkv, q_weight, k_weight, heads, mask)
    return found


def gated(both: Tensor) -> Tensor:
    """silu(a) · b of the halves of (…, 2 h). Without gradients `both` is used up."""
    if not torch.is_grad_enabled():
        a, b = both.chunk(2, -1)
        return F.silu(a, inplace=True).mul_(b)
    found: Tensor = _Gated.apply(both)
    return found


def _looked_in_place(qkv: Tensor, q_weight: Tensor, k_weight: Tensor, heads: int, mask: Tensor | None) -> Tensor:
    """For answering: nothing is copied, and one weight, on the queries, does for both."""
    b, t, three = qkv.shape
    parts = qkv.view(b, t, 3, heads, three // 3 // heads)
    both = parts[:, :, :2]
    both.mul_(rms(both))
    parts[:, :, 0].mul_(q_weight * k_weight)
    q, k, v = parts.permute(2, 0, 3, 1, 4).unbind()
    return F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).reshape(b, t, three // 3)


class _Modulated(Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor, shift: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
        norm = rms(h)
        normed = h * norm
        ctx.save_for_backward(normed, norm, scale)
        return torch.addcmul(shift, normed, 1 + scale).to(dtype)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        normed, norm, scale = ctx.saved_tensors
        slope = slope.to(normed.dtype)
        both, widen = slope * normed, 1 + scale
        inner = torch.bmm(both, widen.transpose(1, 2)).div_(normed.shape[-1])
        dh = (slope * widen).addcmul_(normed, inner, value=-1).mul_(norm)
        return dh, slope.sum(1, keepdim=True), both.sum(1, keepdim=True), None


class _Looked(Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, q_weight: Tensor, k_weight: Tensor, heads: int, mask: Tensor | None) -> Tensor:
        b, t, three = qkv.shape
        size = three // 3 // heads
        parts = qkv.view(b, t, 3, heads, size).permute(2, 0, 3, 1, 4)
        normed = torch.empty(2, b, heads, t, size, dtype=_wide(qkv.dtype), device=qkv.device).copy_(parts[:2])
        norm = rms(normed)
        normed.mul_(norm)
        weights = torch.stack([q_weight * size**-0.5, k_weight])[:, None, None, None].to(normed.dtype)
        q, k = (normed * weights).to(qkv.dtype).view(2, b * heads, t, size)
        v = parts[2].reshape(b * heads, t, size)
        scores = torch.bmm(q, k.transpose(1, 2))
        chances = torch.softmax(scores if mask is None else scores.add_(mask), -1)
        ctx.save_for_backward(normed, norm, weights, q, k, v, chances)
        seen = torch.bmm(chances, v).view(b, heads, t, size)
        return seen.transpose(1, 2).reshape(b, t, heads * size)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        normed, norm, weights, q, k, v, chances = ctx.saved_tensors
        _, b, heads, t, size = normed.shape
        here = slope.view(b, t, heads, size).transpose(1, 2).reshape(b * heads, t, size).to(v.dtype)
        scores = torch._softmax_backward_data(torch.bmm(here, v.transpose(1, 2)), chances, -1, chances.dtype)
        found = torch.stack([torch.bmm(scores, k), torch.bmm(scores.transpose(1, 2), q)])
        dn = found.view(2, b, heads, t, size).to(normed.dtype)
        dw = (dn * normed).sum((1, 2, 3))
        dn = dn * weights
        inner = (dn * normed).sum(-1, keepdim=True).div_(size)
        dn.addcmul_(normed, inner, value=-1).mul_(norm)
        dqkv = torch.empty(b, t, 3, heads, size, dtype=v.dtype, device=v.device)
        into = dqkv.permute(2, 0, 3, 1, 4)
        into[:2].copy_(dn)
        into[2].copy_(torch.bmm(chances.transpose(1, 2), here).view(b, heads, t, size))
        return dqkv.view(b, t, -1), dw[0] * size**-0.5, dw[1], None, None


class _Gated(Function):
    @staticmethod
    def forward(ctx: Any, both: Tensor) -> Tensor:
        a, b = both.chunk(2, -1)
        active = F.silu(a)
        ctx.save_for_backward(both, active)
        return active * b

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        both, active = ctx.saved_tensors
        a, b = both.chunk(2, -1)
        found = torch.empty_like(both)
        da, db = found.chunk(2, -1)
        torch.mul(slope, active, out=db)
        torch.ops.aten.silu_backward.grad_input(slope * b, a, grad_input=da)
        return found


def rms(x: Tensor) -> Tensor:
    """1 / root mean square over the last dimension, (…, 1)."""
    return torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(EPS).rsqrt_()


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
