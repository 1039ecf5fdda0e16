"""Samples: bits a sample of raw sound by means that learn no network: by counting, and by linear prediction.

All count on training sounds and tell held-out ones, of the same 256 levels (mu-law) that a model of raw sound draws.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from genwright.media.companding import LEVELS, SILENCE, levels_of, wave_of

ORDER = 16  # samples that a linear prediction is made of
_WINDOW, _BLOCK = 512, 64  # samples that coefficients are found from, and that they then foretell
_BEFORE, _KINDS = 16, 16  # kinds of moments, by how far predictions were off in so many samples before
_UNSEEN = 0.02  # times that everything counts as seen


def baselines(train: Sequence[np.ndarray], held_out: Sequence[np.ndarray]) -> dict[str, float]:
    """Bits a sample of `held_out` (levels, uint8) by `unigram`, how often each level comes; `bigram`, how often after
    the one before; `LPC-16`, how far off a linear prediction is, by how far it was off just before.

    Its coefficients are found anew every 64 samples from the 512 before, as in ITU-T G.728, so nothing need be sent.
    """
    return {
        "unigram": _counted([_alone(one) for one in train], [_alone(one) for one in held_out]),
        "bigram": _counted([_after(one) for one in train], [_after(one) for one in held_out]),
        f"LPC-{ORDER}": _foretold([_off(one) for one in train], [_off(one) for one in held_out]),
    }


_Moments = tuple[np.ndarray, np.ndarray]  # kinds of moments, and what came


def _alone(levels: np.ndarray) -> _Moments:
    return np.zeros(len(levels), np.int64), levels.astype(np.int64)


def _after(levels: np.ndarray) -> _Moments:
    levels = levels.astype(np.int64)
    return np.concatenate([[SILENCE], levels[:-1]]), levels


def _counted(train: Sequence[_Moments], held_out: Sequence[_Moments]) -> float:
    counts = sum((np.bincount(kind * LEVELS + level, minlength=LEVELS**2) for kind, level in train), _UNSEEN)
    chances = np.reshape(counts, (LEVELS, LEVELS)) / np.reshape(counts, (LEVELS, LEVELS)).sum(1, keepdims=True)
    return _mean([-np.log2(chances[kind, level]) for kind, level in held_out])


# -- linear prediction -------------------------------------------------------------------------------------------------


def _off(levels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Kinds of moments, levels foretold, and how far off these were (-255 to 255)."""
    told = foretold(levels)
    off = levels.astype(np.int64) - told
    recent = np.convolve(abs(off), np.ones(_BEFORE) / _BEFORE)[: len(off)]
    recent = np.concatenate([[0.0], recent[:-1]])
    return np.minimum((2 * np.log2(1 + recent)).astype(int), _KINDS - 1), told, off


def foretold(levels: np.ndarray) -> np.ndarray:
    """The level (T,) that a linear prediction of order 16 from the samples before it says of each."""
    blocks = -(-len(levels) // _BLOCK)
    wave = np.zeros(_WINDOW + blocks * _BLOCK)
    wave[_WINDOW : _WINDOW + len(levels)] = wave_of(levels)
    views = np.lib.stride_tricks.sliding_window_view
    power = abs(np.fft.rfft(views(wave, _WINDOW)[::_BLOCK][:blocks] * np.hanning(_WINDOW), 2 * _WINDOW)) ** 2
    alike = np.fft.irfft(power)[:, : ORDER + 1]
    alike[:, 0] += 1e-4 * alike[:, 0] + 1e-7
    lags = abs(np.arange(ORDER)[:, None] - np.arange(ORDER))
    weights = np.linalg.solve(alike[:, lags], alike[:, 1:, None])
    past = views(wave[_WINDOW - ORDER :], ORDER)[: blocks * _BLOCK, ::-1].reshape(blocks, _BLOCK, ORDER)
    return levels_of((past @ weights).ravel()[: len(levels)]).astype(np.int64)


def _foretold(train: Sequence[tuple[np.ndarray, ...]], held_out: Sequence[tuple[np.ndarray, ...]]) -> float:
    """Chances are shared out among what is possible: a level is from 0 to 255."""
    span = 2 * LEVELS - 1
    seen = sum(
        (np.bincount(kind * span + off + LEVELS - 1, minlength=_KINDS * span) for kind, _, off in train), _UNSEEN
    )
    counts = np.reshape(seen, (_KINDS, span))
    upto = np.concatenate([np.zeros((_KINDS, 1)), counts.cumsum(1)], 1)
    each = []
    for kind, told, off in held_out:
        possible = upto[kind, 2 * LEVELS - 1 - told] - upto[kind, LEVELS - 1 - told]
        each.append(-np.log2(counts[kind, off + LEVELS - 1] / possible))
    return _mean(each)


def _mean(each: Sequence[np.ndarray]) -> float:
    return float(sum(one.sum() for one in each) / max(1, sum(len(one) for one in each)))
