"""FFmpeg: what it writes and reads is the same sound; what is damaged or too long is told; without it the error says
what to do."""

import json
import shutil
import subprocess
from contextlib import suppress

import numpy as np
import pytest

from genwright.core import DataError, Part, Provenance, UsageError
from genwright.media import ffmpeg
from genwright.media.sound import (
    Limits,
    TooLong,
    encoded,
    open_sound,
    open_speech,
    save_sound,
    sound_facts,
    sound_of,
    writable,
)
from genwright.media.sound_label import can_carry, read_label, with_label
from genwright.trust.marks import audible
from genwright.trust.signing import kind_of

WITH = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg on the PATH")
RATE = 24_000
TONE = sound_of(0.5 * np.sin(2 * np.pi * 440 * np.arange(2 * RATE) / RATE), RATE)
LABEL = json.dumps({"AIGC": {"Label": "1"}})


def converted(folder, name, *how):
    """The tone as ffmpeg writes it in another program's file."""
    source = save_sound(TONE, folder / "tone.wav")
    subprocess.run(["ffmpeg", "-loglevel", "error", "-y", "-i", source, *how, folder / name], check=True)
    return folder / name


def hertz(sound):
    wave = sound.samples[len(sound.samples) // 4 : -len(sound.samples) // 4, 0]
    return np.argmax(abs(np.fft.rfft(wave * np.hanning(len(wave))))) * sound.rate / len(wave)


@WITH
@pytest.mark.parametrize(("name", "how"), [
    ("a.aac", ()), ("a.m4a", ("-ac", "2")), ("a.mp4", ("-movflags", "faststart")), ("a.webm", ()), ("a.mka", ()),
])  # fmt: skip
def test_what_phones_and_browsers_record_is_heard(name, how, tmp_path):
    path = converted(tmp_path, name, *how)
    for source in (path, path.read_bytes()):
        sound = open_sound(source)
        assert sound.channels == (2 if "2" in how else 1)
        assert sound.seconds == pytest.approx(2, abs=0.1)
        assert hertz(sound) == pytest.approx(440, abs=2)
        assert 0.3 < abs(sound.samples).max() < 0.7  # two channels of one are 3 dB softer
    assert open_speech(path, 16_000).seconds == pytest.approx(2, abs=0.1)
    assert sound_facts(path)["suffix"] == {"a.mp4": ".m4a", "a.mka": ".webm"}.get(name, path.suffix)


@WITH
def test_aac_is_written_and_pieces_of_it_are_one_file(tmp_path):
    path = save_sound(TONE, tmp_path / "a.aac")
    assert encoded(TONE, ".aac") == path.read_bytes()  # the same bytes again
    assert len(path.read_bytes()) < 2.5 * 64_000 / 8
    path.write_bytes(with_label(path, LABEL))
    assert can_carry(path)
    assert read_label(path) == LABEL
    assert hertz(open_sound(path)) == pytest.approx(440, abs=2)
    assert kind_of(path.read_bytes()) == ""  # the standard of signatures knows none in AAC
    both = open_sound(path.read_bytes() + path.read_bytes())  # a second tag in the middle
    assert both.seconds == pytest.approx(2 * open_sound(path).seconds, abs=0.05)


@WITH
def test_the_notice_stands_before_bytes_that_are_kept(tmp_path):
    path = save_sound(TONE, tmp_path / "a.aac")
    before = path.read_bytes()
    audible.apply(Part("audio", path=path), Provenance(), audible.Settings())
    assert path.read_bytes().endswith(before)
    notice = open_sound(audible.SOUNDS / "notice_en.opus").seconds
    assert open_sound(path).seconds == pytest.approx(2.4 + notice, abs=0.3)


@WITH
@pytest.mark.parametrize(("name", "how", "keep"), [
    ("a.m4a", (), 0.5), ("a.m4a", ("-movflags", "faststart"), 0.6), ("a.webm", (), 0.02), ("a.webm", (), 0.5),
])  # fmt: skip
def test_what_is_cut_off_is_told(name, how, keep, tmp_path):
    data = converted(tmp_path, name, *how).read_bytes()
    with pytest.raises(DataError, match=r"cut off|can be read"):
        open_sound(data[: int(keep * len(data))])


@WITH
def test_broken_files_are_errors_and_never_crash(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a.aac", "a.m4a", "a.webm"):
        whole = converted(tmp_path, name).read_bytes()
        for _ in range(8):
            data = bytearray(whole)
            for at in rng.integers(12, len(whole), 20):
                data[at] = int(rng.integers(0, 256))
            with suppress(DataError):
                assert len(open_sound(bytes(data)).samples)


@WITH
def test_limits_hold(tmp_path):
    path = converted(tmp_path, "a.m4a")
    with pytest.raises(TooLong, match="longer than 1 seconds"):
        open_sound(path, limits=Limits(seconds=1))
    with pytest.raises(TooLong, match="bytes"):
        open_sound(path, limits=Limits(bytes=1000))
    with pytest.raises(TooLong, match="channels"):
        open_sound(converted(tmp_path, "b.m4a", "-ac", "6"), limits=Limits(channels=2))
    silent = converted(tmp_path, "c.mp4", "-f", "lavfi", "-i", "color=size=16x16:duration=1", "-map", "1:v")
    with pytest.raises(DataError, match="no MPEG-4 sound") as told:
        open_sound(silent.read_bytes())
    assert "/" not in told.value.message  # no place on this machine


def test_without_it_the_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="none is on the PATH") as caught:
        writable([tmp_path / "a.aac"])
    assert "apt install ffmpeg" in caught.value.hint
    for head in (b"\0\0\0\x20ftypM4A ", b"\x1aE\xdf\xa3", b"\xff\xf1\x50\x80"):
        with pytest.raises(DataError, match="ffmpeg reads, and none is on the PATH") as told:
            open_sound(head + bytes(1000))
        assert "convert it" in told.value.hint


@pytest.mark.parametrize(("head", "kind"), [
    (b"", ""), (b"ID3", ""), (b"ID3\4\0\0\0\0\0\2ab\xff\xf9", "aac"), (b"\xff\xfb\x90", ""), (b"\xff\xf0", "aac"),
    (b"RIFF\0\0\0\0WAVE", ""), (b"\0\0\0\x18ftypisom", "mov"),
])  # fmt: skip
def test_kinds_are_told_by_first_bytes(head, kind):
    assert ffmpeg.kind_of(head) == kind
