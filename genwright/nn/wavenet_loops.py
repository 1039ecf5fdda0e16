"""Loops over the samples of a WaveNet that numba compiles, once for a machine: see `wavenet_compiled.py`.

It must be imported inside a function, for it imports numba.
"""

from typing import Any

import numpy as np
from numba import njit

_ONE = 9.0  # from where on tanh is 1 in float32


@njit(fastmath=True, cache=True)
def _add(total: Any, x: Any, weights: Any) -> None:
    """total (n,) += x (k,) @ weights (k, n), four rows at a time so that `total` is fetched seldom."""
    k, n = weights.shape
    four = k - k % 4
    for i in range(0, four, 4):
        a, b, c, d = x[i], x[i + 1], x[i + 2], x[i + 3]
        for j in range(n):
            total[j] += a * weights[i, j] + b * weights[i + 1, j] + c * weights[i + 2, j] + d * weights[i + 3, j]
    for i in range(four, k):
        for j in range(n):
            total[j] += x[i] * weights[i, j]


@njit(fastmath=True, cache=True)
def _tanh(z: Any, above: Any, below: Any) -> None:
    for j in range(len(z)):
        x = min(max(z[j], np.float32(-_ONE)), np.float32(_ONE))
        square = x * x
        p, q = above[0], below[0]
        for i in range(1, len(above)):
            p = p * square + above[i]
        for i in range(1, len(below)):
            q = q * square + below[i]
        z[j] = x * p / q


@njit(fastmath=True, cache=True)
def _drawn(logits: Any, sharpness: Any, chance: Any) -> int:
    """One of the levels by its chance; the likeliest where `sharpness` is 0."""
    best = np.argmax(logits)
    if sharpness == 0:
        return int(best)
    total = np.float32(0)
    most = logits[best]
    for j in range(len(logits)):
        logits[j] = np.exp((logits[j] - most) * sharpness)
        total += logits[j]
    share, upto = chance * total, np.float32(0)
    for j in range(len(logits)):
        upto += logits[j]
        if upto > share:
            return j
    return len(logits) - 1


@njit(fastmath=True, cache=True)
def hop(found: Any, level: Any, waiting: Any, time: int, places: Any, steering: Any, chance: Any, sharpness: Any,
        then: Any, now: Any, out: Any, levels: Any, bias: Any, head: Any, head_bias: Any, last: Any,
        last_bias: Any, above: Any, below: Any) -> None:  # fmt: skip
    """Draw the levels `found` (T, B) by `chance` (T, B). `level` (B,) and the queues `waiting` (slots, B, d) are read
    and written; the weights are those of `wavenet_sampling._Fused`, the last two of `wavenet_compiled.fraction`."""
    layers, d, wide = now.shape
    rows, skip = len(level), len(bias)
    total = np.empty((rows, d + skip), np.float32)
    z, hidden, logits = np.empty(wide, np.float32), np.empty(skip, np.float32), np.empty(256, np.float32)
    for t in range(len(found)):
        for b in range(rows):
            total[b] = levels[level[b]]
        for layer in range(layers):
            place = places[(time + t) % len(places), layer]
            for b in range(rows):
                z[:] = steering[min(t, len(steering) - 1), layer, b]
                _add(z, waiting[place, b], then[layer])
                _add(z, total[b, :d], now[layer])
                waiting[place, b] = total[b, :d]
                _tanh(z, above, below)
                for j in range(d):
                    z[j] += z[j] * z[d + j]
                _add(total[b], z[:d], out[layer])
        for b in range(rows):
            hidden[:] = head_bias
            for j in range(skip):
                total[b, d + j] = max(total[b, d + j] + bias[j], np.float32(0))
            _add(hidden, total[b, d:], head)
            for j in range(skip):
                hidden[j] = max(hidden[j], np.float32(0))
            logits[:] = last_bias
            _add(logits, hidden, last)
            level[b] = found[t, b] = _drawn(logits, sharpness[b], chance[t, b])
