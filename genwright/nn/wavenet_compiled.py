"""The queues of a WaveNet with their loops compiled by numba: on a CPU no time is lost between small operations.

It draws what `wavenet_sampling.Queues` draws, to rounding.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from genwright.core.errors import MissingExtra

from .wavenet_sampling import Queues

_TERMS = 13  # of the continued fraction of tanh (Lambert 1770)


class Compiled(Queues):
    """Queues whose hops are drawn without torch in between. Raises MissingExtra without numba."""

    def __init__(self, net: Any, wishes: Any):
        super().__init__(net, wishes)
        try:
            from .wavenet_loops import hop
        except ImportError:
            raise MissingExtra("numba", "wavenet") from None
        fused, head, out = self.fused, net.head[1], net.out
        self._loop: Any = hop
        self._weights = tuple(
            np.ascontiguousarray(one.detach().numpy(), np.float32)
            for one in (fused.then, torch.stack(fused.now), torch.stack(fused.out), fused.levels, fused.bias,
                        head.weight.T, head.bias, out.weight.T, out.bias)
        )  # fmt: skip
        self._tanh = fraction()

    def hop(self, chance: Tensor) -> Tensor:
        """The next HOP levels (HOP, B), drawn by `chance` (HOP, B) from 0 to 1."""
        found = np.zeros(chance.shape, np.int64)
        level, self.waiting = self.level.numpy().copy(), self.waiting.contiguous()
        self._loop(found, level, self.waiting.numpy(), self.time, self.fused.places.numpy(),
                   self.steering().contiguous().numpy(), chance.contiguous().numpy(),
                   self.sharpness[:, 0].contiguous().numpy(), *self._weights, *self._tanh)  # fmt: skip
        self.time += len(found)
        self.level = torch.from_numpy(level)
        return torch.from_numpy(found)


def fraction() -> tuple[np.ndarray, np.ndarray]:
    """tanh x = x · P(x²) / Q(x²) up to 3e-7 where |x| < 9, with these coefficients of P and Q, highest powers first."""
    above, below, before = np.poly1d([0.0]), np.poly1d([1.0]), (np.poly1d([1.0]), np.poly1d([0.0]))
    for number in range(_TERMS):
        rise, odd = np.poly1d([1.0, 0.0] if number else [1.0]), 2 * number + 1
        above, below, before = odd * above + rise * before[0], odd * below + rise * before[1], (above, below)
    return tuple((one.coeffs / below.coeffs[-1]).astype(np.float32) for one in (above, below))
