"""Token counts: how well the tokens of pictures are told by counting alone, which a model has to beat."""

from __future__ import annotations

import numpy as np


class TokenCounts:
    """Order 0 (how often a token comes) and order 1 (how often after the one before it), from rows (N, L) of tokens
    below `codes`. Order 0 adds a half to every count; order 1 is smoothed by Witten & Bell (1991)."""

    def __init__(self, rows: np.ndarray, codes: int):
        self.codes = codes
        self.counts = np.bincount(rows.reshape(-1), minlength=codes)
        pairs, self._pair_counts = np.unique(self._pairs(rows), return_counts=True)
        self._known = pairs
        self._after = np.bincount(rows[:, :-1].reshape(-1), minlength=codes)  # how often something follows
        self._kinds = np.bincount(pairs // codes, minlength=codes)  # how many different ones do

    @property
    def used(self) -> float:
        """The share of all tokens that occur at all."""
        return float((self.counts > 0).mean())

    def bits(self, rows: np.ndarray) -> dict[str, list[float]]:
        """Mean bits a token of each row (M, L), by order."""
        plain = (self.counts[rows] + 0.5) / (self.counts.sum() + 0.5 * self.codes)
        before, pairs = rows[:, :-1], self._pairs(rows)
        at = np.minimum(np.searchsorted(self._known, pairs), len(self._known) - 1)
        seen = np.where(self._known[at] == pairs, self._pair_counts[at], 0).reshape(before.shape)
        kinds, after = self._kinds[before], self._after[before]
        known = after > 0
        paired = np.where(known, (seen + kinds * plain[:, 1:]) / np.where(known, after + kinds, 1), plain[:, 1:])
        orders = {"order 0": plain, "order 1": np.concatenate([plain[:, :1], paired], 1)}
        return {name: (-np.log2(chances).mean(1)).tolist() for name, chances in orders.items()}

    def _pairs(self, rows: np.ndarray) -> np.ndarray:
        return (rows[:, :-1].astype(np.int64) * self.codes + rows[:, 1:]).reshape(-1)
