"""Lines of a lyric stand on phrases of a tune: from bar lines, none over another, noted under their notes."""

from __future__ import annotations

import doctest
import io
import random
from xml.etree import ElementTree

import mido
import numpy as np
import pytest

from genwright.media import recitation
from genwright.media.abc import Note, Tune, bar_ticks, read_tune
from genwright.media.musicxml import musicxml_of
from genwright.media.performance import midi_of, unfolded
from genwright.media.recitation import BREATH, Line, Recital, lines_of, set_on, verses_of, word_ticks
from genwright.media.score import abc_of
from genwright.media.sound import Sound
from tests.nn.tunes import KESH, STEPS

HEAD = "X:1\nT:A\nM:4/4\nL:1/8\nK:C\n"
TEMPO = 120  # a bar of 4/4 is two seconds
FOUR = "|".join(["C2D2E2F2"] * 4)


def say(text: str, speed: float) -> Sound:
    """A tenth of a second for each letter."""
    return Sound(np.zeros((round(100 * len(text) / 10 / speed), 1), np.float32), 1000 // 10)


def tune(body: str) -> Tune:
    return read_tune(HEAD + body)


def lines(*texts: str) -> list[Line]:
    return [Line(text) for text in texts]


def starts(recital: Recital) -> list[float]:
    return [round(line.start, 3) for line in recital.lines]


def test_the_example_in_the_docstring_holds() -> None:
    assert doctest.testmod(recitation).failed == 0
    assert lines_of(" \n[Chorus]\n***\n") == []
    assert lines_of("a\tb\x00c\u2028d")[0].text == "a b c", "what cannot be seen goes"


def test_a_phrase_is_as_many_bars_as_the_usual_line_needs() -> None:
    body = "|".join(["C8"] * 16) + "||"
    for letters, bars in ((20, 2), (39, 4), (60, 4), (120, 8)):
        found = set_on(tune(body), lines(*["x" * letters] * 3), say, tempo=TEMPO, fastest=1)
        assert (found.bars, starts(found)) == (bars, [0, 2 * bars, 4 * bars]), letters
    assert [line.bar for line in found.lines] == [1, 9, 17]
    assert found.times == 2, "24 bars and a tune of 16"


def test_lines_begin_after_a_pickup_and_in_each_part_anew() -> None:
    found = set_on(tune("G2|C8|C8|C6:|G2|C8|C8|C8|C8|C6||"), lines(*["x" * 10] * 9), say, tempo=TEMPO)
    bars = [0.5 + 2 * bar for bar in (0, 2, 3, 5, 6, 8, 10)]
    assert starts(found)[:7] == bars, "a part of three bars is a phrase of two and one of one; a pickup belongs before"
    again = 22.0  # seconds of the tune
    assert starts(found)[7:] == [again + 0.5, again + 4.5]


def test_a_long_line_takes_two_phrases_or_is_said_faster_where_that_is_enough() -> None:
    body = FOUR + "|" + FOUR + "||"
    short, bit, long = "x" * 10, "x" * 44, "x" * 60
    found = set_on(tune(body), lines(short, short, bit, long, short), say, tempo=TEMPO, fastest=1.25)
    assert starts(found) == [0, 4, 8, 12, 20]
    assert [line.speed for line in found.lines] == [1, 1, pytest.approx(4.4 / 3.85, abs=0.03), 1, 1]
    assert found.lines[2].end <= 12 - BREATH
    slow = set_on(tune(body), lines(short, short, bit, long, short), say, tempo=TEMPO, fastest=1.05)
    assert starts(slow) == [0, 4, 8, 16, 24]
    assert {line.speed for line in slow.lines} == {1}, "not faster where that would not be enough"


def test_a_stanza_begins_with_a_part_where_one_is_near() -> None:
    lyric = [Line("x" * 10, True), Line("x" * 10), Line("x" * 10, True)]
    assert starts(set_on(tune(f"{FOUR}|{FOUR}:|"), lyric, say, tempo=TEMPO)) == [0, 4, 16]
    assert starts(set_on(tune("|".join([FOUR] * 4) + "||"), lyric, say, tempo=TEMPO)) == [0, 4, 8], "12 bars are far"


def test_whatever_is_said_keeps_to_bar_lines_and_is_never_talked_over() -> None:
    chance = random.Random(3)
    for number in range(60):
        one = read_tune((KESH, STEPS)[number % 2])
        lyric = [Line("x" * chance.randint(1, 90), chance.random() < 0.3) for _ in range(chance.randint(1, 12))]
        tempo, bar = chance.randint(60, 240), bar_ticks(one.metre)
        found = set_on(one, lyric, say, tempo=tempo)
        pickup = 24 if number % 2 == 0 else 0
        for line, after in zip(found.lines, [*found.lines[1:], None], strict=True):
            ticks = line.start * tempo / 60 * 48
            assert (ticks - pickup) % bar == pytest.approx(0, abs=1e-6) or (ticks - pickup) % bar > bar - 1e-6
            assert after is None or line.end + BREATH <= after.start + 1e-9
            assert 1 <= line.speed <= 1.25
        whole = sum(event.ticks for event in unfolded(one) if isinstance(event, Note)) / 48 * 60 / tempo
        assert (found.times - 1) * whole < found.lines[-1].end <= found.times * whole


def test_words_stand_under_the_notes_during_which_they_are_said() -> None:
    one = tune("C2D2E2F2|z4 G4:|A8|B8||")
    found = set_on(one, lines("ab cdefgh 100%", "x-y | z_", "你好，世界", "end"), say, tempo=TEMPO)
    verses = verses_of(one, found, tempo=TEMPO)
    assert abc_of(one, verses=verses).splitlines()[-6:] == [
        "C2 D2 E2 F2|z4 G4:|", "w: ab~cdefgh * 100\\%", "w: x\\-y z", "w: end", "A8|B8||", "w: 你好，世界",
    ]  # fmt: skip
    assert found.times == 2
    assert [sorted(verse) for verse in verses] == [[0, 2, 8], [0, 1], [0]], "by the place in the tune's events"


def test_scores_and_midi_hold_the_words() -> None:
    one = tune("C5 D3:|")
    found = set_on(one, lines("<one> & two", "three"), say, tempo=TEMPO)
    verses = verses_of(one, found, tempo=TEMPO)
    root = ElementTree.fromstring(musicxml_of(one, verses=verses).partition('.dtd">\n')[2])
    under = [[(w.get("number"), w.findtext("text")) for w in note.iter("lyric")] for note in root.iter("note")]
    assert under == [[("1", "<one> & two"), ("2", "three")], [], []], "the tied half of a note has none"
    words = list(word_ticks(found, tempo=TEMPO))
    file = mido.MidiFile(file=io.BytesIO(midi_of(one, tempo=TEMPO, times=found.times, words=words)))
    at, heard = 0, []
    for message in file.tracks[0]:
        at += message.time
        heard += [(at, message.text.strip())] if message.type == "lyrics" else []
    assert heard == words
    struck = [message for message in file.tracks[1] if message.type == "note_on"]
    assert len(struck) == 4 * found.times


def test_a_tune_without_words_is_written_as_ever() -> None:
    for text in (KESH, STEPS):
        one = read_tune(text)
        assert "w:" not in abc_of(one)
        assert "lyric" not in musicxml_of(one)
        assert read_tune(abc_of(one, verses=[{1: "X: no | header"}])).events == read_tune(abc_of(one)).events
