"""Loudness: how loud a sound is to a listener (ITU-R BS.1770-4, EBU R 128), and bringing it there without clipping.

The filters are those of the standard, made for any rate by the bilinear transform, and applied as products of spectra:
no loop over samples, and no library of filters for two of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from .sound import Sound

_CHUNK = 1 << 20  # frames filtered at once
_MARGIN = 1024  # frames around a piece that is looked at four times as finely
_SURROUND = (1.0, 1.0, 1.0, 0.0, 1.41, 1.41)  # of 5.1: left, right, centre, low frequencies, left and right behind
_GATE, _BELOW = -70.0, -10.0  # LUFS; LU under what is left
_SLICE = 0.005  # seconds in which the limiter holds one gain
_AHEAD = 4  # slices before a peak in which it goes down, and after it


def loudness(sound: Sound) -> float:
    """Integrated loudness in LUFS, gated; minus infinity for silence and for less than 0.4 seconds.

    A tone of 1 kHz whose peaks are at -18 dBFS is at -21 LUFS in one channel, at -18 in both.
    """
    import numpy as np

    steps = _powers(sound, max(1, round(sound.rate / 10)))
    if len(steps) < 4:
        return -math.inf
    blocks = (steps[:-3] + steps[1:-2] + steps[2:-1] + steps[3:]) / 4  # 400 ms each, a quarter new
    loud = blocks[_level(blocks) > _GATE]
    if not len(loud):
        return -math.inf
    loud = loud[_level(loud) > float(_level(np.mean(loud))) + _BELOW]
    return float(_level(np.mean(loud)))


def true_peak(sound: Sound) -> float:
    """The highest peak in dBTP, between the samples too (four times as finely); minus infinity for silence."""
    highest = max((float(found.max()) for found in _peaks(sound, max(1, round(sound.rate * _SLICE)))), default=0.0)
    return 20 * math.log10(highest) if highest else -math.inf


def levelled(sound: Sound, target: float, *, ceiling: float = -1.0) -> Sound:
    """The sound at `target` LUFS, with no peak above `ceiling` dBTP: what would be higher is turned down for a moment.

    Silence stays silence. Where peaks are many the target may be missed by some tenths of a LU; `loudness` tells.
    """
    found = loudness(sound)
    if found == -math.inf:
        return sound
    gain, made = target - found, sound
    for _ in range(3):
        made = limited(amplified(sound, gain), ceiling)
        if abs(missed := target - loudness(made)) < 0.05:
            break
        gain += missed
    return made


def amplified(sound: Sound, decibels: float) -> Sound:
    return Sound(sound.samples * 10 ** (decibels / 20), sound.rate)


def limited(sound: Sound, ceiling: float) -> Sound:
    """Turned down around peaks above `ceiling` dBTP, twenty milliseconds before and after; all else stays as it is."""
    import numpy as np

    hop = max(1, round(sound.rate * _SLICE))
    peaks = np.concatenate([*_peaks(sound, hop), np.zeros(0)])
    allowed = np.minimum(1.0, 10 ** (ceiling / 20) / np.maximum(peaks, 1e-9))
    if not len(allowed) or allowed.min() >= 1:
        return sound
    width = 2 * _AHEAD + 1
    least = np.lib.stride_tricks.sliding_window_view(np.pad(allowed, 2 * _AHEAD, mode="edge"), width).min(1)
    bell = np.hanning(width + 2)[1:-1]
    gains = np.convolve(least, bell / bell.sum(), mode="valid")  # a mean of gains that all suffice
    gains = np.minimum(gains, np.minimum(np.append(gains[1:], 1), np.insert(gains[:-1], 0, 1)))
    return Sound(sound.samples * spread(gains, hop, len(sound.samples))[:, None], sound.rate)


def spread(values: Any, hop: int, frames: int) -> Any:
    """(frames,) float32: values of slices of `hop` frames, drawn out by straight lines between their middles."""
    import numpy as np

    middles = (np.arange(len(values)) + 0.5) * hop
    return np.interp(np.arange(frames), middles, values).astype(np.float32)


# -- the standard ------------------------------------------------------------------------------------------------------


def _powers(sound: Sound, hop: int) -> Any:
    """Weighted power of each whole slice of `hop` frames, all channels together."""
    import numpy as np

    weights = _SURROUND if sound.channels == 6 else (1.0,) * sound.channels
    whole = len(sound.samples) // hop
    found = np.zeros(whole)
    for channel, weight in enumerate(weights):
        squares = weighted(sound.samples[:, channel], sound.rate)[: whole * hop] ** 2
        found += weight * squares.reshape(whole, hop).mean(1)
    return found


def weighted(wave: Any, rate: int) -> Any:
    """(frames,) as a listener's ear weighs it: the standard's shelf and high pass ("K"), float64."""
    import numpy as np

    tail = rate  # a second: by then what the high pass remembers is below 1e-100
    size = 1 << (min(len(wave), 4 * rate) + tail - 1).bit_length()
    step, response = size - tail, _response(rate, size)
    made = np.zeros(len(wave) + size)
    for at in range(0, len(wave), step):
        made[at : at + size] += np.fft.irfft(np.fft.rfft(wave[at : at + step], size) * response, size)
    return made[: len(wave)]


@lru_cache(maxsize=4)
def _response(rate: int, size: int) -> Any:
    """What both filters do to each frequency of a spectrum of `size` samples."""
    import numpy as np

    turn = np.exp(-2j * np.pi * np.arange(size // 2 + 1) / size)
    made = np.ones(len(turn), complex)
    for above, below in _filters(rate):
        made *= np.polyval(above[::-1], turn) / np.polyval(below[::-1], turn)
    return made


def _filters(rate: int) -> Iterator[tuple[list[float], list[float]]]:
    """Coefficients over and under the line of each of the two, for a rate (De Man 2014)."""
    high, quality, lift = (
        math.tan(math.pi * 1681.974450955533 / rate),
        0.7071752369554196,
        10 ** (3.999843853973347 / 20),
    )
    bent = lift**0.4996667741545416
    under = 1 + high / quality + high**2
    yield (
        [(lift + bent * high / quality + high**2) / under, 2 * (high**2 - lift) / under,
         (lift - bent * high / quality + high**2) / under],
        [1, 2 * (high**2 - 1) / under, (1 - high / quality + high**2) / under],
    )  # fmt: skip
    low, quality = math.tan(math.pi * 38.13547087602444 / rate), 0.5003270373238773
    under = 1 + low / quality + low**2
    yield [1, -2, 1], [1, 2 * (low**2 - 1) / under, (1 - low / quality + low**2) / under]


def _level(power: Any) -> Any:
    import numpy as np

    return -0.691 + 10 * np.log10(np.maximum(power, 1e-12))


def _peaks(sound: Sound, hop: int) -> Iterator[Any]:
    """The highest absolute value of each slice of `hop` frames, between samples too, piece by piece."""
    import numpy as np

    step = max(1, _CHUNK // hop) * hop
    for at in range(0, len(sound.samples), step):
        before = min(at, _MARGIN)
        piece = sound.samples[at - before : at + step + _MARGIN]
        fine = abs(Sound(piece, sound.rate).at(4 * sound.rate).samples).max(1)
        fine = np.maximum(fine[: 4 * len(piece)], np.repeat(abs(piece).max(1), 4)[: len(fine)])
        frames = min(step, len(sound.samples) - at)
        fine = fine[4 * before : 4 * (before + frames)]
        fine = np.pad(fine, (0, -len(fine) % (4 * hop)))
        yield fine.reshape(-1, 4 * hop).max(1)
