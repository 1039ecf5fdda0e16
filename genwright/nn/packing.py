"""Packing: sequences of any length laid end to end, so that no padding ever reaches a linear layer."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genwright.core.errors import UsageError

IGNORE = -100  # the target of a position that is not supervised


@dataclass(frozen=True)
class Packed:
    """Segments end to end: `tokens`, `positions` and `targets` have one entry for each of the T tokens.

    `targets[i]` is what position i has to predict (a causal model: the next token), `IGNORE` where nothing is asked.
    `extra` holds further tensors: (T,) for one value a token, (S, …) for one value a segment.
    """

    tokens: Tensor
    positions: Tensor
    lengths: tuple[int, ...]
    targets: Tensor
    extra: dict[str, Tensor] = field(default_factory=dict)

    @property
    def starts(self) -> tuple[int, ...]:
        """Index of the first token of every segment."""
        return tuple(accumulate(self.lengths[:-1], initial=0)) if self.lengths else ()

    @property
    def segment_ends(self) -> tuple[int, ...]:
        """Index one past the last token of every segment."""
        return tuple(accumulate(self.lengths))

    @property
    def weight(self) -> int:
        """How many positions are supervised: what a sum of losses is divided by."""
        return int((self.targets != IGNORE).sum())

    def to(self, device: torch.device | str) -> Packed:
        """The same row on another device."""
        return replace(
            self,
            tokens=self.tokens.to(device),
            positions=self.positions.to(device),
            targets=self.targets.to(device),
            extra={name: value.to(device) for name, value in self.extra.items()},
        )


def pack(sequences: Iterable[Mapping[str, Any]]) -> Packed:
    """Lay sequences end to end.

    A sequence has `tokens` and `targets` of equal length (targets may be left out: nothing is supervised). Any other
    key becomes an entry of `extra`: a list as long as the tokens is one value a token, else one value a segment.

    Raises UsageError when a sequence is empty, its lengths disagree, or sequences have different keys.
    """
    items = list(sequences)
    if not items:
        raise UsageError("There is nothing to pack.", "Give at least one sequence.")
    tokens = [_integers(item["tokens"]) for item in items]
    targets = [
        _integers(item["targets"]) if "targets" in item else np.full(len(t), IGNORE)
        for item, t in zip(items, tokens, strict=True)
    ]
    lengths = tuple(len(t) for t in tokens)
    for number, (length, wanted) in enumerate(zip(lengths, targets, strict=True)):
        if not length:
            raise UsageError(f"Sequence {number} is empty.", "Drop empty sequences before packing.")
        if len(wanted) != length:
            raise UsageError(
                f"Sequence {number} has {length} tokens but {len(wanted)} targets.", "Give one target a token."
            )
    return Packed(
        tokens=torch.from_numpy(np.concatenate(tokens)),
        positions=torch.from_numpy(np.concatenate([np.arange(length) for length in lengths])),
        lengths=lengths,
        targets=torch.from_numpy(np.concatenate(targets)),
        extra=_extra(items, lengths),
    )


def causal_targets(tokens: Sequence[int], supervised: Sequence[bool] | None = None) -> np.ndarray:
    """Targets of a causal model: position i predicts token i + 1 where that token is supervised (all, if not told)."""
    ids = _integers(tokens)
    wanted = np.full(len(ids), IGNORE, dtype=np.int64)
    keep = np.ones(len(ids), dtype=bool) if supervised is None else np.asarray(supervised, dtype=bool)
    wanted[:-1] = np.where(keep[1:], ids[1:], IGNORE)
    return wanted


def plan_rows(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Which items share a row of at most `capacity` tokens: best-fit decreasing, the same plan for the same lengths.

    Longest first; each goes where it leaves the least room (the oldest such row), else into a new row. An item longer
    than a row gets one of its own. Within a row the order is by length, so that equal lengths are neighbours.
    """
    if capacity < 1:
        raise UsageError(f"A row of {capacity} tokens holds nothing.", "Give a capacity of at least 1.")
    rows: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # (room left, row), sorted
    for item in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        place = bisect_left(rooms, (lengths[item], -1))
        if place < len(rooms):
            room, row = rooms.pop(place)
        else:
            room, row = capacity, len(rows)
            rows.append([])
        rows[row].append(item)
        if room > lengths[item]:
            insort(rooms, (room - lengths[item], row))
    return rows


def _extra(items: list[Mapping[str, Any]], lengths: tuple[int, ...]) -> dict[str, Tensor]:
    names = set(items[0]) - {"tokens", "targets"}
    for number, item in enumerate(items):
        if set(item) - {"tokens", "targets"} != names:
            raise UsageError(f"Sequence {number} has other keys than the first.", "Give all sequences the same keys.")
    found = {}
    for name in sorted(names):
        values = [torch.as_tensor(item[name]) for item in items]
        per_token = all(v.dim() >= 1 and v.shape[0] == length for v, length in zip(values, lengths, strict=True))
        found[name] = torch.cat(values) if per_token else torch.stack(values)
    return found


def _integers(values: Any) -> np.ndarray:
    return np.asarray(values, dtype=np.int64).reshape(-1)
