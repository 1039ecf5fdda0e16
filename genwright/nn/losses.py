"""Losses over rows, summed (the loop divides by the supervised count), with memory for one chunk of logits only."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

IGNORE = -100
CHUNK = 128  # rows of logits alive at once; 128 × 49k fp32 is 25 MB, which a last-level cache about holds


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    label_smoothing: float = 0.0,
    softcap: float | None = None,
    scale: float = 1.0,
    chunk: int = CHUNK,
) -> Tensor:
    """Sum over rows of the cross-entropy of softmax(cap(scale · (hidden Wᵀ + bias))) with the targets, in fp32.

    hidden (N, d), weight (V, d), targets (N,) with -100 for rows that do not count. Logits exist for `chunk` rows at a
    time only: the gradient is taken while they are at hand (as in Liger Kernel and Cut Your Losses, arXiv 2411.09009),
    and only for what needs it: a frozen head costs no weight gradient.
    """
    keep = targets != IGNORE
    if not bool(keep.all()):
        hidden, targets = hidden[keep], targets[keep]
    options = (label_smoothing, softcap, scale, chunk, torch.is_grad_enabled())
    kind = hidden.device.type
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        hidden, weight, bias = hidden.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    with torch.autocast(kind, enabled=False):
        loss: Tensor = _LinearCrossEntropy.apply(hidden, weight, bias, targets, *options)
    return loss


def cross_entropy_sum(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Sum of the cross-entropy of logits (N, V) with targets (N,), in fp32; -100 does not count."""
    return F.cross_entropy(
        logits.float(), targets, ignore_index=IGNORE, reduction="sum", label_smoothing=label_smoothing
    )


def kl_sum(p_logits: Tensor, q_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Sum over rows of KL(p ‖ q) · temperature², p the teacher: the scale of Hinton et al. (arXiv 1503.02531)."""
    p = F.log_softmax(p_logits.float() / temperature, dim=-1)
    q = F.log_softmax(q_logits.float() / temperature, dim=-1)
    return F.kl_div(q, p, reduction="sum", log_target=True) * temperature**2


def linear_kl(
    hidden: Tensor,
    weight: Tensor,
    teacher_hidden: Tensor,
    teacher_weight: Tensor,
    *,
    temperature: float = 1.0,
    chunk: int = CHUNK,
) -> Tensor:
    """`kl_sum` of a teacher's and a student's heads over rows of hidden states, logits for `chunk` rows at a time.

    No gradient reaches the teacher.
    """
    total = hidden.new_zeros((), dtype=torch.float32)
    for rows, teacher_rows in zip(hidden.split(chunk), teacher_hidden.split(chunk), strict=True):
        total = total + checkpoint(
            _kl_chunk, rows, weight, teacher_rows.detach(), teacher_weight.detach(), temperature, use_reentrant=False
        )
    return total


def sequence_log_probs(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    owners: Tensor,
    count: int,
    *,
    bias: Tensor | None = None,
    softcap: float | None = None,
    scale: float = 1.0,
    chunk: int = CHUNK,
) -> Tensor:
    """Log-probability of each segment's supervised tokens, (count,): what preference objectives (DPO, …) compare.

    `owners` (N,) says to which segment a row belongs. Rows with target -100 do not count.
    """
    keep = targets != IGNORE
    hidden, targets, owners = hidden[keep], targets[keep], owners[keep]
    parts = [
        checkpoint(_log_probs_chunk, h, weight, bias, t, softcap, scale, use_reentrant=False)
        for h, t in zip(hidden.split(chunk), targets.split(chunk), strict=True)
    ]
    sums = torch.zeros(count, dtype=torch.float32, device=hidden.device)
    return sums.index_add(0, owners, torch.cat(parts)) if parts else sums


def _kl_chunk(rows: Tensor, weight: Tensor, teacher_rows: Tensor, teacher_weight: Tensor, temperature: float) -> Tensor:
    return kl_sum(F.linear(teacher_rows, teacher_weight), F.linear(rows, weight), temperature)


def _log_probs_chunk(
    rows: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, softcap: float | None, scale: float
) -> Tensor:
    logits = F.linear(rows, weight, bias).float() * scale
    if softcap:
        logits = torch.tanh(logits / softcap) * softcap
    return -F.cross_entropy(logits, targets, reduction="none")


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        smoothing: float,
        softcap: float | None,
        scale: float,
        chunk: int,
        learning: bool,
    ) -> Tensor:
        needs = [learning and need for need in ctx.needs_input_grad]
        d_hidden = torch.empty_like(hidden) if needs[0] else None
        d_weight = torch.zeros_like(weight, dtype=torch.float32) if needs[1] else None
        d_bias = torch.zeros_like(bias, dtype=torch.float32) if bias is not None and needs[2] else None
        total = torch.zeros(
            (), dtype=torch.float64 if hidden.device.type == "cpu" else torch.float32, device=hidden.device
        )
        size = min(chunk, max(1, len(targets)))
        narrow = hidden.new_empty(size, len(weight))  # the same memory for every chunk: fresh pages cost time
        wide = narrow if hidden.dtype == torch.float32 else narrow.new_empty(narrow.shape, dtype=torch.float32)
        for start in range(0, len(targets), size):
            rows, wanted = hidden[start : start + size], targets[start : start + size]
            logits = torch.mm(rows, weight.t(), out=narrow[: len(rows)])
            if bias is not None:
                logits += bias
            chances = logits if wide is narrow else wide[: len(rows)].copy_(logits)
            total += _loss_and_slope(chances, wanted, smoothing, softcap, scale, any(needs[:3]))
            slope = chances if wide is narrow else logits.copy_(chances)
            if d_hidden is not None:
                torch.mm(slope, weight, out=d_hidden[start : start + size])
            if d_weight is not None:
                _add_product(d_weight, slope, rows)
            if d_bias is not None:
                d_bias += slope.sum(0, dtype=torch.float32)
        ctx.grads = (d_hidden, d_weight, d_bias)
        ctx.dtypes = (hidden.dtype, weight.dtype, None if bias is None else bias.dtype)
        return total.float()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        grads = [
            None if grad is None else (grad * slope.to(grad.dtype)).to(dtype)
            for grad, dtype in zip(ctx.grads, ctx.dtypes, strict=True)
        ]
        return (*grads, None, None, None, None, None, None)


def _loss_and_slope(
    logits: Tensor, targets: Tensor, smoothing: float, softcap: float | None, scale: float, want_slope: bool
) -> Tensor:
    """Summed loss of raw logits (rows, V) in fp32; they are overwritten with its slope where that is wanted."""
    if scale != 1.0:
        logits.mul_(scale)
    if softcap:
        logits.div_(softcap).tanh_().mul_(softcap)
    here = targets.unsqueeze(1)
    top = logits.amax(dim=1, keepdim=True)
    right = logits.gather(1, here)
    mean = logits.mean(dim=1, keepdim=True) if smoothing else None
    capped = logits.clone() if softcap and want_slope else None
    chances = logits.sub_(top).exp_()
    norm = chances.sum(dim=1, keepdim=True)
    lse = norm.log() + top
    loss = lse - right if mean is None else lse - (1 - smoothing) * right - smoothing * mean
    if want_slope:
        chances.mul_(1 / norm)
        if smoothing:
            chances.sub_(smoothing / logits.shape[1])
        chances.scatter_add_(1, here, torch.full_like(right, smoothing - 1))
        if capped is not None and softcap:
            chances.mul_(1 - (capped / softcap) ** 2)
        if scale != 1.0:
            chances.mul_(scale)
    return loss.sum()


def _add_product(total: Tensor, slope: Tensor, rows: Tensor) -> None:
    """total += slopeᵀ · rows, the sum kept in fp32 whatever the dtype of the factors."""
    if slope.dtype == torch.float32:
        torch.addmm(total, slope.t(), rows, out=total)
    else:
        total += slope.t() @ rows
