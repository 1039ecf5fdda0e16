"""Sounds go to a file and come back, are checked before they are learned from, and are shown safely."""

import base64
import re

import numpy as np
import pytest

from genwright.core import DataError, Part, shelves
from genwright.media.sound import encoded, open_sound, sound_of
from genwright.modalities import audio


def tone(hertz=440, seconds=1.0, rate=16_000, loud=0.5):
    return sound_of(loud * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate), rate)


def test_a_sound_comes_back_as_it_was_saved(tmp_path):
    modality = shelves["modalities"].load("audio").modality
    part = modality.save(tone(), tmp_path / "deep" / f"a{modality.suffix}")
    assert part.kind == modality.name == "audio"
    assert abs(modality.read(part).samples - tone().samples).max() < 1e-4
    pair = modality.save((np.zeros(10, np.float32), 8000), tmp_path / "b.wav")
    assert modality.read(pair).rate == 8000
    with pytest.raises(DataError, match="no file"):
        modality.read(Part("audio"))


def test_what_is_counted_of_a_sound(tmp_path):
    data = encoded(tone(seconds=3), ".wav")
    facts = {"suffix": ".wav", "length": "2–5 s", "rate": "16,000 Hz", "channels": "1"}
    assert audio.check(data) == facts
    (tmp_path / "a.wav").write_bytes(data)
    assert audio.check(tmp_path / "a.wav") == facts
    with pytest.raises(DataError):
        audio.check(encoded(tone(seconds=3), ".flac")[:3000])


def test_a_page_plays_the_sound_and_nothing_of_its_words_is_markup(tmp_path):
    part = audio.save(tone(seconds=40), tmp_path / "a.wav")
    shown = audio.html(Part("audio", '"><script>', part.path))
    assert "<script>" not in shown
    held = base64.b64decode(re.search(r'audio/flac;base64,([^"]+)', shown)[1])
    assert open_sound(held).seconds == 30
    assert "40.0 s" in shown
    assert audio.html(Part("audio", path=tmp_path / "none.wav")).startswith("<em>")


def test_an_overview_draws_every_wave_under_its_caption(tmp_path):
    parts = [audio.save(tone(seconds=0.1 * k), tmp_path / f"{k}.wav") for k in (1, 2)]
    sheet = audio.overview(parts, ["one <b>", "two"], tmp_path / "more")
    drawn = sheet.read_text(encoding="utf-8")
    assert drawn.count("<path") == 2
    assert "one &lt;b&gt; (0.1 s)" in drawn
    assert audio.overview([], [], tmp_path) is None


def test_a_terminal_shows_where_it_is_loud(tmp_path):
    quiet, loud = tone(loud=0.1).samples, tone(loud=1.0).samples
    part = audio.save((np.concatenate([quiet, loud]), 16_000), tmp_path / "a.wav")
    line = audio.terminal(part, {}, 40)
    assert line.endswith(" 2.0 s\n")
    assert line[5] < line[25] == "█"
    assert audio.terminal(Part("audio"), {}, 40) == ""


def test_a_copy_lies_near_and_another_sound_does_not(tmp_path):
    rng = np.random.default_rng(0)
    sweep = np.sin(np.cumsum(np.linspace(0.05, 0.8, 16_000)))
    first = audio.save((0.5 * sweep, 16_000), tmp_path / "a.wav")
    copy = audio.save((0.2 * sweep + 0.0005 * rng.standard_normal(16_000), 16_000), tmp_path / "b.ogg")
    other = audio.save((0.5 * sweep[::-1], 16_000), tmp_path / "c.wav")
    of = [audio.views(part)[0] for part in (first, copy, other)]
    near = shelves["modalities"].load("audio").modality.near
    print(np.linalg.norm(of[0] - of[1]), np.linalg.norm(of[0] - of[2]))
    assert np.linalg.norm(of[0] - of[1]) < near < np.linalg.norm(of[0] - of[2])
