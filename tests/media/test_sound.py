"""Sound: what comes back is what was written; what lies about itself is refused before it is held in memory."""

import io
import struct

import numpy as np
import pytest

from genwright.core import DataError, UsageError
from genwright.media.sound import (
    LIMITS,
    WRITES,
    Limits,
    Sound,
    TooLong,
    encoded,
    joined,
    log_mel,
    mel_filters,
    open_sound,
    open_speech,
    peaks,
    save_sound,
    sound_facts,
    sound_of,
    without_length,
)


def tone(seconds=0.5, rate=16_000, hertz=440.0, channels=1):
    wave = 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)
    return sound_of(np.repeat(wave[:, None], channels, 1), rate)


def wav(frames=100, rate=8000, channels=1, claimed=None):
    body = b"\0\0" * frames * channels
    size = len(body) if claimed is None else claimed
    head = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", min(36 + size, 2**32 - 1), b"WAVE", b"fmt ", 16, 1, channels,
                       rate, rate * channels * 2 % 2**32, channels * 2 % 2**16, 16, b"data", size)  # fmt: skip
    return head + body


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_what_loses_nothing_comes_back_as_it_was(suffix, tmp_path):
    sound = tone(channels=2)
    path = save_sound(sound, tmp_path / "deep" / f"a{suffix}")
    back = open_sound(path)
    assert (back.rate, back.channels, len(back.samples)) == (16_000, 2, 8000)
    assert abs(back.samples - sound.samples).max() <= 1 / 32768 + 1e-6
    assert open_sound(path.read_bytes()).samples.tobytes() == back.samples.tobytes()
    assert sound_facts(path) == {"seconds": 0.5, "rate": 16_000, "channels": 2, "suffix": suffix}


@pytest.mark.parametrize("suffix", sorted(WRITES))
def test_every_kind_of_file_is_heard_as_the_same_tone(suffix, tmp_path):
    sound = tone(seconds=1.0)
    back = open_sound(save_sound(sound, tmp_path / f"a{suffix}"))
    wave = back.at(16_000).samples[2000:14_000, 0]
    spectrum = abs(np.fft.rfft(wave * np.hanning(len(wave))))
    assert abs(np.argmax(spectrum) * 16_000 / len(wave) - 440) < 2
    assert 0.3 < abs(wave).max() < 0.7
    assert sound_facts(tmp_path / f"a{suffix}")["suffix"] == suffix


def test_bare_samples_and_clipping():
    assert encoded(sound_of(np.array([0.0, 1.5, -1.5]), 8000), ".pcm") == struct.pack("<3h", 0, 32767, -32767)
    loud = open_sound(encoded(sound_of(np.array([0.0, 1.5, -1.5]), 8000), ".wav")).samples
    assert abs(loud).max() <= 1
    with pytest.raises(UsageError, match=r"cannot be written as \.wma"):
        encoded(tone(), ".wma")


def test_the_same_sound_gives_the_same_bytes():
    assert all(encoded(tone(), suffix) == encoded(tone(), suffix) for suffix in (".wav", ".flac", ".mp3"))


def test_resampling_keeps_what_can_be_kept_and_nothing_folds_back():
    low, high = tone(1.0, 48_000, 1000), tone(1.0, 48_000, 11_000)
    assert abs(low.at(16_000).samples[1000:-1000, 0]).max() == pytest.approx(0.5, abs=0.01)
    assert abs(high.at(16_000).samples[1000:-1000]).max() < 1e-3  # 11 kHz has no place below 8 kHz
    assert low.at(48_000) is low
    assert len(low.at(16_000).samples) == 16_000


@pytest.mark.parametrize(("file", "error", "words"), [
    (b"", DataError, "no sound"), (b"hello, I am no sound at all" * 9, DataError, "no sound"),
    (wav(rate=0), DataError, "claims no samples a second"), (wav(rate=1), DataError, "samples a second"),
    (wav(channels=1000), DataError, "channels|no sound"), (wav(frames=0), DataError, "0 seconds"),
    (wav(frames=8000 * 700), TooLong, "longer than 600 seconds"),
    (encoded(tone(2.0), ".flac")[:2000], DataError, "damaged|cut off"),
    (encoded(tone(), ".ogg")[:3000], DataError, "."),
])  # fmt: skip
def test_what_cannot_be_is_a_clear_error(file, error, words):
    with pytest.raises(error, match=words):
        open_sound(file)


def test_a_header_that_lies_of_its_length_costs_nothing():
    lying = wav(frames=100, claimed=2**32 - 2)
    assert len(open_sound(lying).samples) == 100
    day = io.BytesIO()
    import soundfile

    with soundfile.SoundFile(day, "w", 8000, 1, "PCM_16", format="FLAC") as out:
        for _ in range(20):
            out.write(np.zeros(8000 * 60, np.int16))
    assert len(day.getvalue()) < 100_000
    with pytest.raises(TooLong, match="longer"):
        open_sound(day.getvalue())
    assert open_sound(day.getvalue(), limits=Limits(seconds=3600)).seconds == 1200


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_what_is_listened_to_is_resampled_as_it_is_decoded(rate):
    rng = np.random.default_rng(0)
    data = encoded(sound_of(np.cumsum(rng.normal(0, 0.01, (5 * rate, 2)), 0).clip(-0.9, 0.9), rate), ".wav")
    whole = open_sound(data).mono().at(16_000)
    heard = open_speech(data, 16_000)
    assert heard.rate == 16_000
    assert heard.samples.shape == whole.samples.shape
    assert np.abs(heard.samples - whole.samples).max() < 1e-4
    with pytest.raises(TooLong, match="longer than 4 seconds"):
        open_speech(data, 16_000, limits=Limits(seconds=4))
    with pytest.raises(DataError, match="0 seconds"):
        open_speech(wav(0), 16_000)


@pytest.mark.parametrize("rate", [8000, 16_000, 24_000, 44_100])
def test_pieces_of_mp3_play_on_as_one(rate, tmp_path):
    pieces = [save_sound(tone(1.0, rate), tmp_path / f"{k}.mp3", piece=True).read_bytes() for k in range(3)]
    whole = open_sound(b"".join(pieces))
    assert whole.rate == rate
    assert whole.seconds == pytest.approx(3, abs=0.5)
    assert without_length(b"RIFFxxxx") == b"RIFFxxxx"


def test_limits_are_kept():
    with pytest.raises(TooLong, match="bytes"):
        open_sound(wav(), limits=Limits(bytes=10))
    with pytest.raises(TooLong, match="channels"):
        open_sound(wav(channels=2), limits=Limits(channels=1))
    assert TooLong.status == 413
    assert LIMITS.seconds == 600


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="no file"):
        open_sound(tmp_path / "none.wav")


def test_one_channel_is_the_mean_and_joining_leaves_pauses():
    both = Sound(np.array([[1.0, 0.0], [0.5, 0.5]], np.float32), 10)
    assert both.mono().samples.ravel().tolist() == [0.5, 0.5]
    assert joined([both.mono(), both.mono()], pause=0.2).samples.ravel().tolist() == [0.5, 0.5, 0, 0, 0.5, 0.5]


def test_peaks_hold_the_least_and_the_greatest_of_each_column():
    assert peaks(sound_of(np.array([0.0, 0.5, -0.5, 0.25]), 8000), 2).tolist() == [[0.0, 0.5], [-0.5, 0.25]]
    assert peaks(sound_of(np.array([0.5]), 8000), 3).tolist() == [[0.5, 0.5]] * 3


def test_a_tone_lies_in_its_mel_band():
    bands = log_mel(tone(1.0, hertz=1000), bands=40)
    filters = mel_filters(16_000, 400, 40)
    assert bands.shape == (101, 40)
    assert filters.shape == (40, 201)
    assert int(bands.mean(0).argmax()) == int(filters[:, round(1000 / 40)].argmax())
    areas = filters.sum(1) * 40  # triangles of equal area: those wide enough to be sampled well have area 1
    assert areas[-10:] == pytest.approx(1.0, rel=0.05)


def test_a_spectrogram_is_a_picture_that_is_dark_where_a_tone_is() -> None:
    import io

    from PIL import Image

    from genwright.media.sound import spectrogram

    times = np.arange(16_000) / 16_000
    picture = Image.open(io.BytesIO(spectrogram(sound_of(np.sin(2 * np.pi * 1000 * times), 16_000), 120)))
    assert picture.size == (120, 80)
    rows = np.asarray(picture).mean(1)
    assert abs(int(rows.argmin()) - (79 - 26)) <= 1, "1000 Hz lies in the 27th of 80 mel bands"
    assert rows.min() < 10
    assert rows.max() > 240
    for few in (1, 3, 500):
        assert Image.open(io.BytesIO(spectrogram(sound_of(np.zeros(few), 16_000), 480))).size == (480, 80)
