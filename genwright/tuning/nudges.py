"""Nudges: change what the embeddings give, during some passes, segment by segment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from genwright.core import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    Change = Callable[[Tensor, int], Tensor]


@contextmanager
def nudged(learner: Any, change: Change) -> Iterator[None]:
    """Within it, every look-up of token embeddings gives `change(rows, number of the look-up)` instead of `rows`.

    A model before tuning that is asked for comparison (not in training mode) is left alone.
    Raises ModelError when the model never looked anything up: then nothing would be regularised.
    """
    calls = 0

    def hook(module: Any, inputs: Any, rows: Tensor) -> Tensor:
        nonlocal calls
        if not module.training:
            return rows
        calls += 1
        return change(rows, calls - 1)

    table = learner.embeddings()
    handle = table.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
    if not calls and table.training:
        raise ModelError(
            f"{type(learner.module).__name__} does not look up its embeddings where they can be changed.",
            "Leave out neftune, fgm and pgd for this model.",
        )


def segments_of(batch: Any, rows: Tensor) -> tuple[int, ...]:
    """How many of the looked-up rows (…, d) belong to each sequence, in order."""
    count = rows[..., 0].numel()
    lengths = getattr(batch, "lengths", ())
    if sum(lengths) == count:
        return tuple(int(length) for length in lengths)
    return (rows.shape[1],) * rows.shape[0] if rows.dim() == 3 else (count,)


def owners_of(lengths: tuple[int, ...], like: Tensor) -> Tensor:
    """Number of the segment of each row, shaped like `like` without its last axis."""
    import torch

    sizes = torch.tensor(lengths, device=like.device)
    return torch.repeat_interleave(torch.arange(len(lengths), device=like.device), sizes).view(like.shape[:-1])


def norms(rows: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """Euclidean norm of each segment, given back for each of its rows: (…, 1)."""
    import torch

    owners = owners_of(lengths, rows)
    squares = torch.zeros(len(lengths), dtype=torch.float32, device=rows.device)
    squares.index_add_(0, owners.flatten(), rows.detach().float().square().sum(-1).flatten())
    return squares.sqrt()[owners].unsqueeze(-1).to(rows.dtype)


def unit(rows: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """The rows scaled so that every segment has norm 1; a segment of zeros stays."""
    import torch

    return rows / norms(rows, lengths).clamp_min(torch.finfo(rows.dtype).tiny)
