"""Mel: the one spectrogram that our own speech models speak (16 kHz, 80 bands, a hop of 16 ms), and back to sound.

Everything that makes a mel spectrogram, or makes sound of one, takes it from here, so that any of our networks can be
heard through any of our vocoders.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from genwright.core.errors import DataError

from .sound import Sound, log_mel, mel_filters, sound_of

RATE = 16_000  # samples a second
WINDOW = 1024  # samples that a frame sees
HOP = 256  # samples from frame to frame
BANDS = 80  # from 0 to 8 kHz
FLOOR = -11.512925  # of silence: ln 1e-5
_HALF_LN_10 = 1.1512925  # from log10 of power to ln of amplitude
_MOMENTUM = 0.99
_SHARING = 40  # rounds in which a band's power is shared out among its frequencies


def mel_of(sound: Sound) -> Any:
    """Natural logarithm of amplitude, float32 (frames, BANDS), never below FLOOR, of any sound: it is mixed down and
    resampled first. Frame i is centred on sample i · HOP, so there are 1 + samples // HOP."""
    return log_mel(sound.mono().at(RATE), bands=BANDS, window=WINDOW, hop=HOP) * _HALF_LN_10


def vocode(mel: Any, *, rounds: int = 48, seed: int = 0) -> Sound:
    """Sound of (frames, BANDS) as `mel_of` makes them, (frames - 1) · HOP samples at RATE: phases are found that agree
    with the amplitudes, from random ones (Griffin & Lim 1984, with the momentum of Perraudin et al. 2013).

    Raises DataError for another shape, or numbers that are none.
    """
    import numpy as np

    mel = np.asarray(mel, np.float32)
    if mel.ndim != 2 or mel.shape[1] != BANDS or len(mel) < 2 or not np.isfinite(mel).all():
        raise DataError(
            f"No sound can be made of an array of shape {mel.shape}.", f"Give finite numbers, (frames, {BANDS})."
        )
    amplitude = _amplitudes(mel)
    phase = np.exp(2j * np.pi * np.random.default_rng(seed).random(amplitude.shape)).astype(np.complex64)
    before = np.zeros_like(phase)
    for _ in range(rounds):
        now = _spectrum(_wave(amplitude * phase))
        phase = now + _MOMENTUM * (now - before)
        phase /= np.maximum(abs(phase), 1e-12)
        before = now
    return sound_of(_wave(amplitude * phase), RATE)


def _amplitudes(mel: Any) -> Any:
    """(frames, WINDOW // 2 + 1) amplitudes whose bands have the power that `mel` tells, as nearly as amplitudes that
    are not negative can (multiplicative updates of Lee & Seung 2001)."""
    import numpy as np

    power = np.exp(2 * np.minimum(mel, 20.0))
    triangles = mel_filters(RATE, WINDOW, BANDS).astype(np.float32)
    wanted = power @ triangles
    linear = wanted / np.maximum(triangles.sum(0), 1e-6)
    for _ in range(_SHARING):
        linear *= wanted / np.maximum(linear @ triangles.T @ triangles, 1e-12)
    return np.sqrt(linear)


def _wave(spectrum: Any) -> Any:
    """(samples,) of overlapping frames, weighted so that `_spectrum` of it is as near to `spectrum` as can be."""
    import numpy as np

    pieces = np.fft.irfft(spectrum, WINDOW, axis=1) * _hann()
    weights = np.broadcast_to(_hann() ** 2, pieces.shape)
    wave = _laid_over(pieces) / np.maximum(_laid_over(weights), 1e-3)
    return wave[WINDOW // 2 : -(WINDOW // 2)].astype(np.float32)


def _laid_over(pieces: Any) -> Any:
    import numpy as np

    frames, parts = len(pieces), WINDOW // HOP
    summed = np.zeros((frames + parts - 1, HOP), np.float32)
    for part in range(parts):
        summed[part : part + frames] += pieces[:, part * HOP : (part + 1) * HOP]
    return summed.ravel()


def _spectrum(wave: Any) -> Any:
    import numpy as np

    edge = np.pad(wave, WINDOW // 2, mode="reflect" if len(wave) > WINDOW // 2 else "constant")
    frames = np.lib.stride_tricks.sliding_window_view(edge, WINDOW)[::HOP]
    return np.fft.rfft(frames * _hann(), axis=1)


@cache
def _hann() -> Any:
    import numpy as np

    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)).astype(np.float32)
