"""The crew: processes that tune one model together, each on its share of the rows of every step.

What they add up is a sum over rows, divided once by the weight of the whole step, so a crew of any size does what one
process does with the same recipe, but for the order in which floating-point numbers are added.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from heapq import heapreplace
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn

_BUCKET = 32 << 20  # bytes that are summed in one go: enough to fill the line, and little memory beside the gradients


@dataclass(frozen=True)
class Crew:
    """One of `size` processes, the `rank`-th from 0. The default is the crew of one, whom nothing here costs time.

    More than one find each other by torch.distributed, which must have begun (executors/ray.py). All of them must call
    the same methods in the same order. They share the run's folder; only the first writes into it.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def found(cls) -> Crew:
        """The one that this process is in."""
        if not distributed.is_available() or not distributed.is_initialized():
            return cls()
        return cls(distributed.get_rank(), distributed.get_world_size())

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def share(self, sizes: np.ndarray) -> np.ndarray:
        """Which of these rows are mine: as even as can be by size, the same deal for everyone who asks."""
        if self.size == 1:
            return np.arange(len(sizes))
        loads = [(0, rank) for rank in range(self.size)]  # a heap: the least laden is on top
        owner = np.empty(len(sizes), dtype=np.int64)
        for row in np.argsort(-sizes, kind="stable"):
            load, rank = loads[0]
            owner[row] = rank
            heapreplace(loads, (load + int(sizes[row]), rank))
        return np.flatnonzero(owner == self.rank)

    def together(self, mine: dict[str, Any]) -> list[dict[str, Any]]:
        """What everyone says, in the order of rank. Plain data; floats arrive as they were."""
        if self.size == 1:
            return [mine]
        said = torch.frombuffer(bytearray(json.dumps(mine).encode()), dtype=torch.uint8)
        lengths = [torch.empty(1, dtype=torch.int64, device=_place()) for _ in range(self.size)]
        distributed.all_gather(lengths, torch.tensor([len(said)], device=_place()))
        longest = max(int(length) for length in lengths)
        room = [torch.empty(longest, dtype=torch.uint8, device=_place()) for _ in range(self.size)]
        distributed.all_gather(room, nn.functional.pad(said, (0, longest - len(said))).to(_place()))
        return [json.loads(bytes(r[: int(n)].cpu().numpy())) for r, n in zip(room, lengths, strict=True)]

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Each gradient becomes the sum of everyone's; one that nobody has stays away."""
        if self.size == 1:
            return
        known = list(parameters)
        has = torch.tensor([p.grad is not None for p in known], dtype=torch.int32, device=_place())
        distributed.all_reduce(has)
        wanted = [p for p, count in zip(known, has.tolist(), strict=True) if count]
        for parameter in wanted:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        for bucket in _buckets([p.grad for p in wanted if p.grad is not None]):
            flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
            distributed.all_reduce(flat)
            pieces = flat.split([gradient.numel() for gradient in bucket])
            torch._foreach_copy_(bucket, [p.view_as(g) for p, g in zip(pieces, bucket, strict=True)])

    @contextmanager
    def first_goes_first(self) -> Iterator[None]:
        """The first does it alone, then the others, who find what it has left."""
        if self.size > 1 and not self.is_first:
            distributed.barrier()
        yield
        if self.size > 1 and self.is_first:
            distributed.barrier()


def _place() -> torch.device:
    """Where the crew's messages lie: NCCL carries only what is on a GPU."""
    return torch.device("cuda" if distributed.get_backend() == "nccl" else "cpu")


def _buckets(gradients: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    size = 0
    for gradient in gradients:
        if bucket and (size + gradient.nbytes > _BUCKET or gradient.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(gradient)
        size += gradient.nbytes
    if bucket:
        yield bucket
