"""ABC is read as it stands, becomes words and ABC again without loss, and the grammar keeps bars whole."""

from __future__ import annotations

import contextlib
import random
import time

import pytest

from genwright.core import DataError
from genwright.media.abc import Bar, Key, read_key, read_tune, tunes_of
from genwright.media.melody import runs
from genwright.media.score import (
    END,
    KINDS,
    TOLD,
    Grammar,
    abc_of,
    bars_of,
    closed,
    key_of,
    moved,
    told_of,
    tune_of,
    word_of,
    words_of_tune,
)
from genwright.media.tune_words import facts_in, sentence_of
from tests.nn.tunes import KESH, STEPS

HEAD = "X:1\nM:4/4\nL:1/8\nK:D\n"


def ticks(body: str, head: str = HEAD) -> list[int]:
    return [note.ticks for note in read_tune(head + body).notes]


def keys(body: str, head: str = HEAD) -> list[int | None]:
    return [note.midi for note in read_tune(head + body).notes]


def test_lengths_are_what_the_standard_says() -> None:
    assert ticks("A A2 A3/2 A/ A/2 A// A4|") == [24, 48, 36, 12, 12, 6, 96]
    assert ticks("A>B A<B A>>B|") == [36, 12, 12, 36, 42, 6]
    assert ticks("(3ABc (3A/B/c/|") == [16, 16, 16, 8, 8, 8]
    assert ticks("A2-A2 A2-B2|") == [96, 48, 48], "a tie joins equal notes only"
    assert ticks("A-|A|") == [24, 24], "over a bar line the note is struck again"
    assert ticks("A z2 [ceg]2|") == [24, 48, 48]
    assert ticks("[L:1/16]A A|") == [12, 12]
    assert ticks("A|", "X:1\nM:2/4\nK:D\n") == [12], "a short metre's unit is a sixteenth"


def test_accidentals_hold_to_the_end_of_their_bar() -> None:
    assert keys("f ^g g =f f|g f|") == [78, 80, 80, 77, 77, 79, 78]
    assert keys("C, C c c'|") == [49, 61, 73, 85]
    assert keys('[Ace] {bc}d "Am"e !trill!f (gf)|') == [76, 74, 76, 78, 79, 78], "the highest of a chord; no ornaments"


def test_signs_between_bars_are_known() -> None:
    tune = read_tune(HEAD + "|:D4 E4|1F8:|2G8||\nA8::B8:|\n|:c8|]")
    signs = [event.sign for event in tune.events if isinstance(event, Bar)]
    assert signs == ["|:", "|1", ":|2", "||", "::", "::", "||"]


@pytest.mark.parametrize(("written", "tonic", "mode", "fifths"), [
    ("G", "G", "major", 1), ("Gm", "G", "minor", -2), ("D dor", "D", "dorian", 0), ("F#min", "F#", "minor", 3),
    ("AMix", "A", "mixolydian", 2), ("Bb major", "Bb", "major", -2), ("HP", "A", "mixolydian", 2),
])  # fmt: skip
def test_keys_are_read(written: str, tonic: str, mode: str, fifths: int) -> None:
    key = read_key(written)
    assert (key, key.fifths) == (Key(tonic, mode), fifths)


@pytest.mark.parametrize(("text", "reason"), [
    ("", "no key"), ("X:1\nM:4/4\nK:D\n", "no notes"), ("X:1\nK:D\nA", "no metre"), ("X:1\nM:free\nK:D\nA|", "metre"),
    (HEAD + "(5ABcde|", "group of 5"), (HEAD + "A|[M:3/4]A|", "changes its metre"), (HEAD + "A\nK:G\nB|", "its key"),
    (HEAD + "V:2\nA|", "several voices"), (HEAD + "A&B|", "not read"), (HEAD + "A/0|", "length"),
    (HEAD + "[]2|", "chord"),
    (HEAD + "A///////|", "not read|short"), (HEAD + "A999|", "too long"), (HEAD + "A" * 50_000, "more than"),
    ("X:1\nM:99/7\nK:D\nA|", "metre"), ("X:1\nM:4/4\nK:D#\nA|", "more than seven"), (HEAD + ">A|", "without a note"),
])  # fmt: skip
def test_what_cannot_be_read_is_said(text: str, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        read_tune(text)


def test_long_nonsense_is_read_in_no_time() -> None:
    start = time.process_time()
    for piece in ("(", "[", '"', "{", "!", "[A", "A-", "|:", "::", "(3", "^", "A/", "1", "-[", "y"):
        with contextlib.suppress(DataError):
            read_tune(HEAD + piece * (36_000 // len(piece)))
    facts_in("in A " * 10_000 + "1/" * 10_000 + "A flat " * 10_000)
    assert time.process_time() - start < 5


def test_words_become_the_same_tune_again() -> None:
    for text in (KESH, STEPS):
        tune = read_tune(text)
        words, told = words_of_tune(tune), told_of(tune, rhythm="jig", region="Ireland")
        again = read_tune(abc_of(tune_of(told, words, title="T")))
        assert (again.key, again.metre, again.events) == (tune.key, tune.metre, tune.events)
        assert again.facts["R"] + again.facts["O"] == ("jig", "Ireland")


def test_a_tune_is_the_same_words_in_every_key() -> None:
    tune = read_tune(KESH)
    words, told = words_of_tune(tune), told_of(tune)
    for tonic in range(12):
        there = moved(words, told["tonic"], tonic)
        other = tune_of({**told, "tonic": tonic}, there)
        apart = {b.midi - a.midi for a, b in zip(tune.notes, other.notes, strict=True)}
        assert len(apart) == 1
        assert abs(apart.pop()) <= 6
        assert set(runs(other, 8)) == set(runs(tune, 8))
        assert moved(there, tonic, told["tonic"]) == words
    assert str(key_of(1, "major")) == "Db major"


def test_the_grammar_counts_bars() -> None:
    assert (bars_of(read_tune(KESH)).all, bars_of(read_tune(KESH)).wrong) == (18, 0)
    assert bars_of(read_tune(HEAD + "A8|A7|A9|A8||")).wrong == 2
    grammar = Grammar()
    tune = read_tune(KESH)
    for kind, value in told_of(tune, rhythm="jig", region="Ireland").items():
        assert grammar.allowed[[word_of(k, KINDS[k][1]) for k in KINDS]].any()
        grammar.put(word_of(kind, value))
    for word in words_of_tune(tune):
        assert grammar.allowed[word]
        grammar.put(word)
    assert grammar.is_done


def test_whatever_is_chosen_among_allowed_words_makes_whole_bars() -> None:
    for seed in range(40):
        chance, grammar, words = random.Random(seed), Grammar(), list[int]()
        while not grammar.is_done and len(words) < 300:
            may = grammar.allowed.nonzero()[0].tolist()
            assert may, "there is always a way on"
            words.append(chance.choice(may))
            grammar.put(words[-1])
        notes = [word for word in words if word < TOLD]
        tune = read_tune(abc_of(tune_of(grammar.told, notes if notes[-1] == END else closed(grammar.told, notes))))
        assert bars_of(tune).wrong == 0
        assert grammar.wrong == 0


def test_files_of_many_tunes_are_cut_where_they_begin() -> None:
    found = list(tunes_of("% a book\n" + KESH + "\n" + STEPS + "X:3\nT:no notes\n"))
    assert [number for number, _ in found] == [2, 14, 22]
    assert found[0][1].startswith("X:1")


@pytest.mark.parametrize(("words", "facts"), [
    ("a slip jig in E dorian, Irish", {"rhythm": "slip jig", "region": "Ireland", "mode": "dorian", "tonic": 4}),
    ("in F# minor", {"mode": "minor", "tonic": 6}), ("in a minor key", {}),
    ("Bb reel, 4/4", {"rhythm": "reel", "metre": "4/4"}),
    ("用降B大调写一首吉格舞曲, 16小节", {"rhythm": "jig", "mode": "major", "tonic": 10, "bars": 16}), ("hello", {}),
])  # fmt: skip
def test_words_are_understood(words: str, facts: dict[str, object]) -> None:
    assert facts_in(words) == facts


def test_what_is_said_of_a_tune_is_understood_again() -> None:
    told = {"rhythm": "jig", "metre": "6/8", "mode": "mixolydian", "tonic": 9, "region": "United States", "bars": 32}
    assert facts_in(sentence_of(told)) == told
