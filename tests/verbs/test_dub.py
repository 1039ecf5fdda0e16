"""Subtitles and scripts said aloud: each cue in its time, each line by its voice, nothing cut, nothing said twice."""

import json
import os

import numpy as np
import pytest

from genwright.cli.main import main
from genwright.core import DataError, UsageError, choose, find_card
from genwright.media.sound import open_sound, save_sound, sound_of
from genwright.media.sound_label import read_label
from genwright.nn.voices import Speaker
from genwright.trust.ledger import Ledger
from genwright.verbs import ask
from genwright.verbs.dub import dub
from genwright.verbs.podcast import podcast
from genwright.verbs.script import read_script
from genwright.verbs.speaking import model_for
from genwright.verbs.subtitles import read_subtitles

HIBARI = pytest.mark.skipif(not find_card("hibari").is_here, reason="needs `genwright models pull hibari`")


class Tape:
    """A network that hums a tenth of a second for each letter: to test all that stands around one."""

    languages, voices = ("en", "zh"), ["anna", "ben"]

    def __init__(self):
        self.said = []

    def usual(self, language):
        return "anna"

    def limit(self):
        return 400

    def say(self, phonemes, blend, speed, seed):
        self.said.append((phonemes, *blend, speed))
        frames = np.arange(round(2400 * len(phonemes) / speed))
        return (0.2 * np.sin(frames / 9)).astype(np.float32)


class Letters:
    def of(self, text, language):
        return text


@pytest.fixture
def tape(tmp_path, monkeypatch):
    """Every model that is opened to speak is a tape."""
    monkeypatch.setenv("GENWRIGHT_HOME", str(tmp_path / "home"))
    tape = Tape()

    def opened(name, **_):
        return ask.Answerer(Speaker(tape, Letters()), name, marks=[choose("marks", "metadata")])

    monkeypatch.setattr(ask, "open_answerer", opened)
    return tape


def written(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def cues(*times):
    return "".join(f"{k}\n{begin} --> {end}\n{text}\n\n" for k, (begin, end, text) in enumerate(times, 1))


def spans(path, floor=0.01):
    """Where a sound is not silent: [begin, end) in seconds."""
    sound = open_sound(path)
    loud = abs(sound.samples).max(1).reshape(-1)[: len(sound.samples) // 240 * 240].reshape(-1, 240).max(1) > floor
    edges = np.flatnonzero(np.diff(np.concatenate([[0], loud.astype(int), [0]])))
    return [(begin / 100, end / 100) for begin, end in edges.reshape(-1, 2)]


def test_each_cue_is_said_at_its_time(tape, tmp_path):
    text = cues(("00:00:01,000", "00:00:02,000", "abcdefg"), ("00:00:05,500", "00:00:07,000", "[music] Ab cd ♪"),
                ("00:00:08,000", "00:00:09,000", "[door]"))  # fmt: skip
    found = dub(written(tmp_path / "a.srt", text), tmp_path / "out.wav")
    assert spans(tmp_path / "out.wav") == [pytest.approx((1.0, 1.7), abs=0.02), pytest.approx((5.5, 6.0), abs=0.02)]
    assert (found["cues"], found["silent"], found["misfits"]) == (2, 1, [])
    assert json.loads(read_label(tmp_path / "out.wav"))["Label"] == "1"
    assert not (tmp_path / ".out.wav.parts").exists()


def test_a_cue_that_is_too_long_is_said_faster_and_one_that_cannot_fit_is_told_and_never_cut(tape, tmp_path):
    text = cues(("00:00:00,000", "00:00:01,000", "x" * 20), ("00:00:02,000", "00:00:03,000", "y" * 40),
                ("00:00:04,000", "00:00:05,000", "z" * 5))  # fmt: skip
    found = dub(written(tmp_path / "a.vtt", "WEBVTT\n\n" + text), tmp_path / "out.wav", fastest=2.0)
    one, two, three = ([call for call in tape.said if call[0][0] == letter] for letter in "xyz")
    assert [call[2] for call in one] == [1.0, pytest.approx(2.0 / 1.5, abs=0.03)]  # 2 s into 1 s and the slack
    assert [call[2] for call in two] == [1.0, 2.0]  # 4 s into 1.5: no faster than allowed
    assert [call[2] for call in three] == [1.0]
    assert [(fit["text"][0], fit["late"], fit["over"]) for fit in found["misfits"]] == [
        ("y", 0.0, 0.5),
        ("z", 0.05, 0.0),
    ]
    assert spans(tmp_path / "out.wav")[-1] == pytest.approx((4.05, 4.55), abs=0.02)  # after the one before


def test_a_bed_plays_from_the_first_second_to_its_end(tape, tmp_path):
    bed = save_sound(sound_of(0.2 * np.sin(np.arange(24_000 * 6) / 30), 24_000), tmp_path / "bed.flac")
    found = dub(
        written(tmp_path / "a.srt", cues(("00:00:02,000", "00:00:03,000", "abcde"))), tmp_path / "o.mp3", bed=bed
    )
    assert found["seconds"] == pytest.approx(6, abs=0.1)
    assert [source["label"] for source in found["sources"]] == ["1", ""]


def test_a_killed_call_goes_on_with_the_lines_that_are_missing(tape, tmp_path, monkeypatch):
    script = written(tmp_path / "a.md", "Anna: one\nBen: two\nAnna: three\n")
    tape.say, say = None, tape.say

    def stops(phonemes, *more):
        if phonemes == "three":
            raise KeyboardInterrupt
        return say(phonemes, *more)

    tape.say = stops
    monkeypatch.setattr("genwright.verbs.script.CAST", ("anna", "ben"))
    with pytest.raises(KeyboardInterrupt):
        podcast(script, tmp_path / "a.wav")
    assert not (tmp_path / "a.wav").exists()
    tape.say = say
    podcast(script, tmp_path / "a.wav")
    assert [call[0] for call in tape.said] == ["one", "two", "three"]
    podcast(script, tmp_path / "b.wav")
    assert open_sound(tmp_path / "a.wav").samples.tobytes() == open_sound(tmp_path / "b.wav").samples.tobytes()


SCRIPT = """---
title: Tea & time
voices: {Anna: anna, Ben: {voice: ben, speed: 2}}
pause: 0.5
chapter_pause: 2
---
# First
<!-- not
said -->
Anna: Hello *there*. Remember: always
go on.
(pause 1.5)
**Ben:** See [this](http://x.y).

## Second
Anna: Bye.
"""


def test_a_podcast_has_voices_pauses_chapters_and_a_transcript(tape, tmp_path):
    found = podcast(written(tmp_path / "a.md", SCRIPT), tmp_path / "show.flac")
    assert [call[0:2] for call in tape.said] == [
        ("Hello there.", "anna"), ("Remember: always go on.", "anna"), ("See this.", "ben"), ("Bye.", "anna"),
    ]  # fmt: skip
    cues = read_subtitles((tmp_path / "show.vtt").read_text(encoding="utf-8"))
    first = 1.2 + 0.3 + 2.3  # two sentences
    times = [(cue["start"], cue["end"]) for cue in cues]
    begin = first + 1.5 + 0.5
    assert times == [pytest.approx((0, first), abs=0.01), pytest.approx((begin, begin + 0.45), abs=0.01),
                     pytest.approx((begin + 2.45, begin + 2.85), abs=0.01)]  # fmt: skip
    assert "<v Ben>See this." in (tmp_path / "show.vtt").read_text(encoding="utf-8")
    chapters = json.loads((tmp_path / "show.chapters.json").read_text(encoding="utf-8"))
    assert [(c["title"], c["startTime"]) for c in chapters["chapters"]] == [
        ("First", 0.0), ("Second", pytest.approx(begin + 2.45, abs=0.01)),
    ]  # fmt: skip
    assert (tmp_path / "show.txt").read_text(encoding="utf-8").startswith("Tea & time\n\n[00:00:00] Anna: Hello there.")
    assert found["lines"] == 3
    assert sorted(os.listdir(tmp_path)) == sorted(
        ["a.md", "home", "show.flac", "show.flac.genwright.json", "show.vtt", "show.txt", "show.chapters.json"]
    )


def test_the_same_podcast_as_yaml_with_music(tape, tmp_path):
    save_sound(sound_of(0.2 * np.sin(np.arange(24_000) / 30), 24_000), tmp_path / "bed.wav")
    text = """
voices: {Anna: anna}
bed: bed.wav
mix: {lead: 2, tail: 1}
script:
- chapter: One
- Anna: abcde
- pause: 1
- Anna: abcde
"""
    found = podcast(written(tmp_path / "a.yaml", text), tmp_path / "a.wav", options={"tail": 3})
    assert found["seconds"] == pytest.approx(2 + 0.5 + 1.4 + 0.5 + 3, abs=0.01)
    cues = read_subtitles((tmp_path / "a.vtt").read_text(encoding="utf-8"))
    assert [cue["start"] for cue in cues] == pytest.approx([2.0, 3.9], abs=0.01)  # behind the lead
    assert found["chapters"][0]["startTime"] == 0


@pytest.mark.parametrize(("name", "text", "words"), [
    ("a.md", "", "Nobody says"), ("a.md", "Hello.", "line 1: nobody says"),
    ("a.md", "---\nvoices: {Anna: anna}\n---\nAna: Hi.\n", "line 4: Ana has no voice"),
    ("a.md", "---\nvioces: {}\n---\nAnna: Hi.", "voices"),
    ("a.md", "---\nvoices: {Anna: {sped: 1}}\n---\nAnna: Hi.", "speed"),
    ("a.md", "---\nmix: {dukc: 3}\n---\nAnna: Hi.", "duck"), ("a.md", "Anna: Hi.\n(pause 99)", "pause of '99'"),
    ("a.yaml", "script: hello", "no list"), ("a.yaml", "script: [{Anna: a, Ben: b}]", "item 1"),
    ("a.yaml", "[", "no YAML"),
    ("a.yaml", "voices: {Anna: anna}\nscript: [{Ben: hi}]", "Ben has no voice"), ("a.yaml", "- 1", "no mapping"),
])  # fmt: skip
def test_what_is_wrong_in_a_script_is_told(name, text, words, tape, tmp_path):
    with pytest.raises(UsageError) as caught:
        podcast(written(tmp_path / name, text), tmp_path / "out.wav")
    assert words in caught.value.message + caught.value.hint
    assert not (tmp_path / "out.wav").exists()


def test_what_cannot_be_dubbed_is_told(tape, tmp_path):
    good = written(tmp_path / "a.srt", cues(("00:00:01,000", "00:00:02,000", "a")))
    for path, more, error in (
        (tmp_path / "none.srt", {}, DataError), (written(tmp_path / "b.srt", "hello"), {}, DataError),
        (written(tmp_path / "c.srt", cues(("00:00:01,000", "00:00:02,000", "[music]"))), {}, DataError),
        (good, {"fastest": 9}, UsageError), (good, {"options": {"dukc": 1}}, UsageError),
    ):  # fmt: skip
        with pytest.raises(error):
            dub(path, tmp_path / "out.wav", **more)
    (tmp_path / "d.srt").write_bytes(b"1\n00:00:01,000 --> 00:00:02,000\n\xff\xfe\n")
    with pytest.raises(DataError, match="UTF-8"):
        dub(tmp_path / "d.srt", tmp_path / "out.wav")


def test_long_scripts_of_odd_signs_are_read_in_no_time(tmp_path):
    for odd in ("<!--" * 40_000, "[" * 190_000, "A" * 190_000, "**" * 90_000, "_a" * 90_000, "---\n" * 40_000):
        with_name = written(tmp_path / "a.md", f"Anna: a {odd}\n")
        assert read_script(with_name).lines


def test_a_voice_is_found_for_a_text():
    assert model_for("Hello", None, None) == "hibari"
    assert [model_for(*one) for one in (("你好", None, None), ("Hello", None, "af_sky"))] == ["kokoro-82m"] * 2
    assert model_for("你好", "own", "x") == "own"


@HIBARI
def test_the_commands_dub_and_make_a_podcast_with_a_real_voice(tmp_path, capsys):
    text = cues(
        ("00:00:00,500", "00:00:03,000", "Good morning."),
        ("00:00:03,200", "00:00:03,500", "This can not be said so fast."),
    )
    srt, out = written(tmp_path / "a.srt", text), tmp_path / "a.wav"
    assert main(["dub", str(srt), "-o", str(out), "--quiet"]) == 0
    said = capsys.readouterr().out
    assert "1 of 2 cues" in said
    assert "s too long" in said
    assert spans(out, 0.02)[0][0] == pytest.approx(0.55, abs=0.15)
    script = written(tmp_path / "s.md", "---\nvoices: {Anna: {model: hibari}}\n---\nAnna: Hello.\n")
    assert main(["podcast", str(script), "-o", str(tmp_path / "s.mp3"), "--quiet"]) == 0
    assert json.loads(read_label(tmp_path / "s.mp3"))["Label"] == "1"
    row = list(Ledger().rows())[-1]
    assert (row["event"], row["model"]) == ("mix", "hibari")
