"""Companding: sound as 256 levels that lie close together where it is quiet (mu-law, ITU-T G.711), and back."""

from __future__ import annotations

from typing import Any

LEVELS = 256
SILENCE = 128  # the level of zero
_MU = LEVELS - 1


def levels_of(wave: Any) -> Any:
    """uint8 of the shape of `wave`, float from -1 to 1; what is louder is clipped.

    >>> levels_of([-1.0, 0.0, 0.01, 1.0]).tolist()
    [0, 128, 157, 255]
    """
    import numpy as np

    wave = np.clip(np.asarray(wave, np.float64), -1, 1)
    pressed = np.sign(wave) * np.log1p(_MU * abs(wave)) / np.log1p(_MU)
    return np.minimum(np.floor((pressed + 1) / 2 * _MU + 0.5), _MU).astype(np.uint8)


def wave_of(levels: Any) -> Any:
    """float32 from -1 to 1: what `levels_of` undoes, but for half a step.

    >>> wave_of([0, 128, 255]).round(5).tolist()
    [-1.0, 9e-05, 1.0]
    """
    import numpy as np

    pressed = 2 * np.asarray(levels, np.float64) / _MU - 1
    return (np.sign(pressed) * np.expm1(abs(pressed) * np.log1p(_MU)) / _MU).astype(np.float32)
