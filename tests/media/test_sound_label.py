"""A label inside a sound: every kind of file keeps its samples and one label, and what is broken is told."""

import json

import numpy as np
import pytest

from genwright.core import DataError
from genwright.media.sound import WRITES, open_sound, save_sound, sound_of
from genwright.media.sound_label import can_carry, read_label, with_label

LABEL = json.dumps({"AIGC": {"Label": "1", "ContentProducer": "x" * 27}})


@pytest.fixture(params=sorted(WRITES))
def file(request, tmp_path):
    wave = 0.5 * np.sin(np.arange(24_000) / 9)
    return save_sound(sound_of(wave, 24_000), tmp_path / f"a{request.param}")


def test_a_label_goes_in_and_no_sample_changes(file):
    before = open_sound(file).samples
    assert can_carry(file)
    assert read_label(file) == ""
    file.write_bytes(with_label(file, LABEL))
    assert json.loads(read_label(file)) == json.loads(LABEL)
    assert np.array_equal(open_sound(file).samples, before)


def test_a_second_label_takes_the_place_of_the_first(file):
    file.write_bytes(with_label(file, LABEL))
    once = len(file.read_bytes())
    file.write_bytes(with_label(file, "{}" + " " * (len(LABEL) - 2)))
    assert read_label(file).strip() == "{}"
    assert len(file.read_bytes()) == once
    assert file.read_bytes().count(b"Label") == 0


def test_a_broken_file_is_told_and_never_crashes(file):
    file.write_bytes(with_label(file, LABEL))
    whole = file.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(60):
        data = bytearray(whole[: int(rng.integers(1, len(whole)))])
        data[int(rng.integers(0, min(len(data), 400)))] = int(rng.integers(0, 256))
        file.write_bytes(data)
        try:
            read_label(file)
            with_label(file, LABEL)
        except DataError:
            pass


def test_other_files_carry_none(tmp_path):
    (tmp_path / "a.pcm").write_bytes(bytes(100))
    assert not can_carry(tmp_path / "a.pcm")
    assert not can_carry(tmp_path / "none")
    with pytest.raises(DataError, match="no WAV"):
        read_label(tmp_path / "a.pcm")
