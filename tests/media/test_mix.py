"""Loudness by the standard, peaks that stay below a ceiling, and music that makes room for words."""

import math

import numpy as np
import pytest

from genwright.media.loudness import levelled, limited, loudness, true_peak
from genwright.media.mix import MixOptions, Placed, ducked, faded, looped, mixed, timeline, with_channels
from genwright.media.sound import sound_of

RATE = 24_000


def tone(seconds, level=-18.0, *, rate=RATE, hertz=1000, channels=1):
    wave = 10 ** (level / 20) * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)
    return sound_of(np.repeat(wave[:, None], channels, axis=1), rate)


def silence(seconds):
    return sound_of(np.zeros(round(RATE * seconds)), RATE)


def rms(sound, begin, end):
    piece = sound.samples[round(begin * sound.rate) : round(end * sound.rate)]
    return 10 * math.log10(float((piece.astype(float) ** 2).mean()) + 1e-12)


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
@pytest.mark.parametrize("level", [-23.0, -33.0])
def test_a_tone_in_both_channels_is_as_loud_as_the_standard_says(rate, level):
    assert loudness(tone(5, level, rate=rate, channels=2)) == pytest.approx(level, abs=0.1)  # EBU Tech 3341, 1 and 2
    assert loudness(tone(5, level, rate=rate)) == pytest.approx(level - 3.01, abs=0.1)


def test_what_is_much_softer_does_not_count():
    """EBU Tech 3341, case 3: -36, -23 and -36 dBFS for 10, 60 and 10 seconds are -23 LUFS."""
    parts = [tone(s, level, channels=2).samples for s, level in ((2, -36), (12, -23), (2, -36))]
    assert loudness(sound_of(np.concatenate(parts), RATE)) == pytest.approx(-23, abs=0.1)


def test_low_tones_count_less_and_high_ones_more():
    low, middle, high = (loudness(tone(2, hertz=hertz)) for hertz in (40, 1000, 8000))
    assert low < middle - 3 < middle + 3 < high + 0.5


def test_silence_and_a_moment_have_no_loudness():
    assert loudness(silence(2)) == loudness(tone(0.3)) == true_peak(silence(1)) == -math.inf
    assert np.array_equal(levelled(silence(1), -16).samples, silence(1).samples)


def test_peaks_between_samples_are_seen():
    wave = sound_of(np.sin(np.pi / 2 * np.arange(RATE) + np.pi / 4), RATE)
    assert abs(wave.samples).max() < 0.71
    assert true_peak(wave) == pytest.approx(0, abs=0.2)


@pytest.mark.parametrize("target", [-23.0, -14.0])
def test_a_sound_comes_to_its_loudness_and_no_peak_is_above_the_ceiling(target):
    noise = np.random.default_rng(0).normal(0, 0.02, RATE * 3)
    noise[::4000] = 0.9  # clicks
    made = levelled(sound_of(noise, RATE), target, ceiling=-1.5)
    assert loudness(made) == pytest.approx(target, abs=0.3)
    assert true_peak(made) <= -1.5 + 0.05


def test_what_is_below_the_ceiling_is_not_touched():
    quiet = tone(1)
    assert limited(quiet, -1.0) is quiet


def test_music_goes_down_for_words_before_they_begin_and_comes_up_after_them():
    voice = sound_of(np.concatenate([tone(1).samples, silence(0.3).samples, tone(1).samples]), RATE)
    made = ducked(tone(8, hertz=200), voice, start=3.0, depth=12, attack=0.2, release=0.6)
    before, soft, between, after = (rms(made, *span) for span in ((0, 2.7), (3.2, 3.8), (4.0, 4.3), (6.5, 8)))
    assert soft == pytest.approx(before - 12, abs=0.1)
    assert between == pytest.approx(soft, abs=0.1)  # it does not pump
    assert after == pytest.approx(before, abs=0.1)
    assert rms(made, 2.95, 3.0) < before - 8  # before the first word
    assert (
        abs(np.diff(made.samples[:, 0])).max() < 1.1 * abs(np.diff(tone(1, hertz=200).samples[:, 0])).max()
    )  # no click


def test_no_voice_no_ducking():
    bed = tone(2)
    assert np.allclose(ducked(bed, silence(1), depth=12).samples, bed.samples)


def test_fades_begin_and_end_in_nothing():
    made = faded(tone(2), 0.5, 1.0)
    assert abs(made.samples[0, 0]) < 1e-3 > abs(made.samples[-1, 0])
    assert rms(made, 0.6, 0.9) == pytest.approx(rms(tone(2), 0.6, 0.9), abs=0.01)
    assert len(faded(tone(0.1), 5, 5).samples) == len(tone(0.1).samples)


@pytest.mark.parametrize("seconds", [0.5, 3.0, 10.0])
def test_a_bed_is_as_long_as_asked_for_and_never_silent(seconds):
    made = looped(tone(3, hertz=200), seconds)
    assert len(made.samples) == round(seconds * RATE)
    assert min(rms(made, at, at + 0.25) for at in np.arange(0, seconds - 0.25, 0.25)) > rms(tone(3), 0, 3) - 6


def test_pieces_stand_where_they_were_placed():
    made = timeline([Placed(1.0, tone(1)), Placed(1.5, tone(1, channels=2))], rate=48_000, channels=2, seconds=4)
    assert (made.rate, made.channels, made.seconds) == (48_000, 2, 4.0)
    assert rms(made, 0, 0.9) < -100 > rms(made, 2.6, 4)
    assert rms(made, 1.6, 1.9) == pytest.approx(rms(made, 1.1, 1.4) + 6, abs=0.2)
    assert with_channels(tone(1, channels=2), 1).channels == 1


def test_every_option_of_a_mix_is_heard():
    voice, bed = tone(2), tone(3, hertz=300, rate=44_100, channels=2)
    usual = mixed(voice, bed, MixOptions())
    assert (usual.rate, usual.channels) == (44_100, 2)
    assert usual.seconds == pytest.approx(1.5 + 2 + 3)
    assert loudness(usual) == pytest.approx(-16, abs=0.3)
    seen = {usual.samples.tobytes()}
    for changed in (
        {"bed": -20}, {"duck": 0}, {"attack": 0.01}, {"release": 0.1}, {"lead": 0}, {"tail": 0}, {"fade_in": 0},
        {"fade_out": 0}, {"length": "bed", "tail": 0, "lead": 0}, {"loudness": -30}, {"peak": -19}, {"loudness": None},
    ):  # fmt: skip
        made = mixed(voice, bed, MixOptions(**changed)).samples.tobytes()
        assert made not in seen, changed
        seen.add(made)
    assert mixed(voice, bed, MixOptions(length="bed", lead=0, tail=0)).seconds == pytest.approx(3)
    assert mixed(voice, None, MixOptions(loudness=None)) is voice
