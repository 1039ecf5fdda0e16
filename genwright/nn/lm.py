"""Language models' shared arithmetic: rows of logits, losses and log-probabilities at supervised positions only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from genwright.core.model import Encoded
from genwright.nn.attention import head, head_parts
from genwright.nn.packing import IGNORE, Packed

PASS = 4096  # tokens that pass through the model at once when likelihoods are taken


def supervised(hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of hidden states (N, d) and the targets (N,) where something is asked."""
    keep = (targets != IGNORE).nonzero().squeeze(1)
    return hidden.index_select(0, keep), targets.index_select(0, keep)


def sums_by_segment(module: nn.Module, hidden: Tensor, packed: Packed) -> Tensor:
    """Log-probability of each segment's supervised tokens, (S,), fp32, with a graph."""
    owners = torch.repeat_interleave(
        torch.arange(len(packed.lengths), device=hidden.device), torch.tensor(packed.lengths, device=hidden.device)
    )
    keep = (packed.targets != IGNORE).nonzero().squeeze(1)
    rows, targets, owners = (
        hidden.index_select(0, keep),
        packed.targets.index_select(0, keep),
        owners.index_select(0, keep),
    )
    parts = head_parts(module)
    if type(parts.linear) is nn.Linear:
        from genwright.nn.losses import sequence_log_probs

        rows = parts.transform(rows)
        weight, bias = parts.linear.weight.to(rows.dtype), parts.linear.bias
        return sequence_log_probs(
            rows, weight, targets, owners, len(packed.lengths), bias=None if bias is None else bias.to(rows.dtype),
            softcap=parts.softcap, scale=parts.scale,
        )  # fmt: skip
    each = -torch.nn.functional.cross_entropy(head(module, rows).float(), targets, reduction="none")
    return torch.zeros(len(packed.lengths), device=hidden.device).index_add(0, owners, each)


def plan(items: Sequence[Encoded], most: int = PASS) -> Iterator[list[int]]:
    """Rows to pass together: neighbours in size, at most `most` slots in all (one alone may be larger)."""
    order = sorted(range(len(items)), key=lambda i: (items[i].size, i))
    batch: list[int] = []
    slots = 0
    for index in order:
        if batch and slots + items[index].size > most:
            yield batch
            batch, slots = [], 0
        batch.append(index)
        slots += items[index].size
    if batch:
        yield batch
