"""Mel: the one definition of our speech models' spectrogram, and the way back to sound."""

from __future__ import annotations

import numpy as np
import pytest

from genwright.core import DataError
from genwright.media.mel import BANDS, FLOOR, HOP, RATE, mel_of, vocode
from genwright.media.sound import Sound, sound_of


def voice(seconds: float = 1.0, rate: int = RATE) -> Sound:
    """A buzz with gliding pitch under two formants, as loud as speech."""
    t = np.arange(round(seconds * rate)) / rate
    phase = 2 * np.pi * np.cumsum(120 + 40 * np.sin(2 * np.pi * 1.5 * t)) / rate
    wave = sum(np.sin(n * phase) * (np.exp(-(((n * 130 - 700) / 400) ** 2)) + 0.05) for n in range(1, 30))
    return sound_of(0.1 * wave * (1 + np.sin(2 * np.pi * 3 * t)), rate)


def test_a_frame_stands_every_hop_and_silence_is_the_floor() -> None:
    assert mel_of(voice()).shape == (1 + RATE // HOP, BANDS)
    assert mel_of(sound_of(np.zeros(RATE), RATE)) == pytest.approx(FLOOR, abs=1e-4)


def test_twice_as_loud_is_ln_2_more_and_a_tone_lies_in_its_band() -> None:
    t = np.arange(RATE) / RATE
    low, high = (mel_of(sound_of(0.2 * np.sin(2 * np.pi * hertz * t), RATE)) for hertz in (500, 3000))
    assert low[30].argmax() < high[30].argmax()
    loud = mel_of(sound_of(0.4 * np.sin(2 * np.pi * 500 * t), RATE))
    assert (loud - low)[30].max() == pytest.approx(np.log(2), abs=1e-3)


def test_any_rate_and_number_of_channels_give_the_same_mel() -> None:
    plain = voice(rate=RATE)
    other = Sound(np.repeat(voice(rate=32_000).samples, 2, axis=1), 32_000)
    difference = abs(mel_of(plain) - mel_of(other))[5:-5]
    assert float(np.median(difference)) < 0.02


def test_what_is_vocoded_sounds_as_its_mel_says() -> None:
    wanted = mel_of(voice())
    made = vocode(wanted)
    assert made.rate == RATE
    assert len(made.samples) == (len(wanted) - 1) * HOP
    loud = wanted > wanted.max() - 5
    assert float(abs(mel_of(made) - wanted)[loud].mean()) < 0.25
    few = float(abs(mel_of(vocode(wanted, rounds=1)) - wanted)[loud].mean())
    assert few > 1.3 * float(abs(mel_of(made) - wanted)[loud].mean())


def test_the_same_mel_gives_the_same_sound_and_another_seed_another() -> None:
    mel = mel_of(voice(0.3))
    assert np.array_equal(vocode(mel, rounds=4).samples, vocode(mel, rounds=4).samples)
    assert not np.array_equal(vocode(mel, rounds=4).samples, vocode(mel, rounds=4, seed=1).samples)


@pytest.mark.parametrize(
    "wrong", [np.zeros((10, 79)), np.zeros(80), np.full((10, BANDS), np.nan), np.zeros((1, BANDS))]
)
def test_what_is_no_mel_is_refused(wrong: np.ndarray) -> None:
    with pytest.raises(DataError, match="No sound can be made"):
        vocode(wrong)
