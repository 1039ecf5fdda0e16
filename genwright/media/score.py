"""Score: a tune as small numbers that a language model reads and writes, and their grammar.

First come six words that say what kind of tune it is (rhythm, metre, mode, tonic, region, bars), in any order. Then
each note is one word, by its place in the scale of its key, so that all twelve keys are one; a length is a word where
it changes, a bar line is one. The grammar knows how much of the bar is left: who keeps to it writes whole bars. Short
may be the first bar of a section (a pickup), and its last, by as much as a pickup takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from genwright.core.errors import DataError

from .abc import LETTERS, MODES, SEMITONES, Bar, Key, Note, Tune, bar_ticks, beat_ticks

METRES = ("2/4", "3/4", "4/4", "2/2", "3/8", "6/8", "9/8", "12/8", "3/2", "6/4")
RHYTHMS = ("", "jig", "reel", "hornpipe", "slip jig", "strathspey", "air", "march", "waltz", "polka", "slide", "minuet",
           "fling", "clog", "quickstep", "gavotte", "country dance", "song")  # fmt: skip
REGIONS = ("", "Ireland", "Scotland", "England", "Wales", "United States", "Germany", "France", "Luxembourg", "China",
           "Sweden", "Italy", "Poland", "Hungary", "Netherlands", "Austria", "Switzerland")  # fmt: skip
BARS = (4, 8, 12, 16, 20, 24, 32, 40, 48, 64)  # the nearest of them is said
TONICS = tuple(range(12))  # semitones above C
KINDS: dict[str, tuple[Any, ...]] = {"rhythm": RHYTHMS, "metre": METRES, "mode": MODES, "tonic": TONICS,
                                     "region": REGIONS, "bars": BARS}  # fmt: skip
SIGNS = ("|", "||", ":|", "::", "|1", ":|2")
_LAST_SIGNS = ("||", ":|")
LENGTHS = (6, 12, 18, 24, 36, 42, 48, 60, 72, 84, 96, 108, 120, 144, 180, 192)
TRIPLETS = (4, 8, 16)  # each three of which fill a length
TICKS = (*LENGTHS, *TRIPLETS)
LOWEST, HIGHEST = -12, 18  # letters from the tonic above middle C
_ALTERED = (-1, 0, 1)

END = 0
SIGN = 1
LENGTH = SIGN + len(SIGNS)
REST = LENGTH + len(TICKS)
PITCH = REST + 1
TOLD = PITCH + len(_ALTERED) * (HIGHEST - LOWEST + 1)  # the first word of what is told
WORDS = TOLD + sum(map(len, KINDS.values()))
_FIRST = {kind: TOLD + sum(len(KINDS[k]) for k in list(KINDS)[:place]) for place, kind in enumerate(KINDS)}
_USUAL = TICKS.index(24)  # the length with which a tune begins: an eighth
_MOST_LEFT = 64  # sixths of … a bar of 4/2
KNOWN = {"left": _MOST_LEFT + 2, "length": len(TICKS), "bar": 33, "section": 8, "triplet": 3}  # sizes
_SHORTEST = 2  # bars of a tune


def word_of(kind: str, value: Any) -> int:
    """The word that tells a value. Raises ValueError for one that there is none for."""
    return _FIRST[kind] + KINDS[kind].index(value)


def told_by(word: int) -> tuple[str, Any]:
    """(kind, value) of a word that tells what a tune is."""
    kind = next(kind for kind in reversed(KINDS) if word >= _FIRST[kind])
    return kind, KINDS[kind][word - _FIRST[kind]]


def key_of(tonic: int, mode: str) -> Key:
    """The spelling with the fewest accidentals.

    >>> str(key_of(10, "major"))
    'Bb major'
    """
    found = (Key(letter + sign, mode) for letter in LETTERS for sign in ("", "#", "b")
             if (SEMITONES[LETTERS.index(letter)] + {"": 0, "#": 1, "b": -1}[sign]) % 12 == tonic)  # fmt: skip
    return min(found, key=lambda key: (abs(key.fifths), key.fifths))


def tonic_of(key: Key) -> int:
    """Semitones above C."""
    return (SEMITONES[LETTERS.index(key.tonic[0])] + key.tonic.count("#") - key.tonic.count("b")) % 12


# -- the grammar -------------------------------------------------------------------------------------------------------


class Grammar:
    """Where a tune stands after some words, and which may follow. Whole bars are kept to when it is `strict`, and then
    the tune ends with the bar that is the `asked`-th, pickups not counted; real tunes may break the rule, and what is
    known of a place is told all the same."""

    def __init__(self, *, strict: bool = True, asked: int | None = None) -> None:
        self.strict, self.asked = strict, asked
        self.told: dict[str, Any] = {}
        self.full = self.left = 0
        self.length = _USUAL
        self.triplet = 0  # notes still to come of three
        self.bar = self.section = self.bars = 0
        self.pickup, self.owed = 0, 0  # ticks of the section's pickup; that the next must have
        self._first = True  # of the section
        self._last = TOLD
        self.is_done = self.is_first_ending = False
        self.wrong = 0  # bars that are none

    def put(self, word: int) -> None:
        """One word more."""
        if word >= TOLD:
            kind, value = told_by(word)
            self.told[kind] = value
            if kind == "metre":
                self.full = self.left = bar_ticks(value)
        elif word == END:
            self.is_done = True
        elif word < LENGTH:
            self._close(SIGNS[word - SIGN])
        elif word < REST:
            self.length, self.triplet = word - LENGTH, 0
        else:
            ticks = TICKS[self.length]
            if ticks in TRIPLETS:
                self.triplet = self.triplet - 1 if self.triplet else 2
            self.left -= ticks
        self._last = word

    def _close(self, sign: str) -> None:
        used = self.full - self.left
        if not self._may_close(sign):
            self.wrong += 1
        ends = sign not in ("|", "|1", ":|2")
        if self._first and self.left > 0:
            self.pickup = used
        self.owed = self.left if ends and self.left > 0 and self.left != self.pickup else 0
        self.bars += not (self._first and self.left > 0)
        self.bar = 0 if ends else self.bar + (not (self._first and self.left > 0))
        if ends:
            self.section, self.pickup = self.section + 1, 0
        self._first, self.left, self.triplet = ends, self.full, 0
        self.is_first_ending = sign == "|1" or (self.is_first_ending and sign == "|")

    def _may_close(self, sign: str) -> bool:
        return sign in self._signs

    @property
    def _signs(self) -> tuple[str, ...]:
        """With which signs the bar may end here."""
        return _closing(self.left, self.full, self.triplet, self._first, self.owed, self.pickup)

    @property
    def may_end_with_bar(self) -> bool:
        """Whether the bar that is under way may be a tune's last."""
        return self._may_close("||") and self.left in (0, self.pickup)

    @property
    def known(self) -> tuple[int, ...]:
        """What is known of the place, in the order and below the sizes of `KNOWN`."""
        if len(self.told) < len(KINDS):
            return (0,) * len(KNOWN)
        left = _MOST_LEFT + 1 if self.left < 0 else min(_MOST_LEFT, -(-self.left // 6))
        return (left, self.length, min(32, self.bar), min(7, self.section), self.triplet)

    @property
    def allowed(self) -> Any:
        """Which words may follow: numpy bool (WORDS,), not to be written to."""
        if len(self.told) < len(KINDS):
            return _tellable(tuple(kind for kind in KINDS if kind not in self.told))
        if not self.strict:
            return _anything(LENGTH <= self._last < REST, SIGN <= self._last < LENGTH)
        ended = SIGN < self._last < LENGTH and SIGNS[self._last - SIGN] in _LAST_SIGNS
        may_end = ended and self.bars >= (self.asked or _SHORTEST) and not self.owed
        room = self.left if not (self._first and self.owed) else self.left - (self.full - self.owed)
        signs = self._signs
        still = (self.asked or 0) - self.bars  # bars to be written, this one among them
        if self.asked and not (self._first and self.left):  # no pickup
            if still == 1:
                signs = _LAST_SIGNS if self.may_end_with_bar else ()
            elif still == 2:  # a first ending wants its second
                signs = tuple(s for s in signs if s == ":|2" or not (self.is_first_ending or s == "|1"))
        if self.asked and still == 0:
            room, signs = 0, ()
        return _followers(room, self.length, self.triplet, LENGTH <= self._last < REST, signs, may_end)


@lru_cache(maxsize=65536)
def _closing(left: int, full: int, triplet: int, first: bool, owed: int, pickup: int) -> tuple[str, ...]:
    """The signs with which a bar may end of which `left` ticks are left: any where it is full, a plain one after a
    pickup, one that ends a section where the rest was its pickup, or will be the next one's."""
    if left < 0 or triplet or left == full:
        return ()
    if first and owed:
        return ("|",) if left == full - owed else ()
    if left == 0:
        return SIGNS
    if first:
        return ("|",)
    short = left == pickup or (not pickup and left < full / 2)
    return tuple(sign for sign in SIGNS if sign not in ("|", "|1")) if short else ()


@lru_cache(maxsize=4096)
def _tellable(kinds: tuple[str, ...]) -> Any:
    """The words of the first kind that is not told yet; not that it is unknown."""
    import numpy as np

    mask = np.zeros(WORDS, bool)
    first = _FIRST[kinds[0]]
    mask[first : first + len(KINDS[kinds[0]])] = True
    if KINDS[kinds[0]][0] == "":
        mask[first] = False
    return mask


@lru_cache(maxsize=65536)
def _followers(room: int, length: int, triplet: int, after_length: bool, signs: tuple[str, ...], may_end: bool) -> Any:
    """`room` is how many ticks the bar still takes."""
    import numpy as np

    mask = np.zeros(WORDS, bool)
    ticks = TICKS[length]
    mask[REST:TOLD] = bool(triplet) or _needs(ticks) <= room
    if not triplet and not after_length:
        mask[LENGTH:REST] = [_needs(one) <= room and place != length for place, one in enumerate(TICKS)]
        mask[[SIGN + SIGNS.index(sign) for sign in signs]] = True
        mask[END] = may_end
    return mask


@lru_cache(maxsize=4)
def _anything(after_length: bool, after_sign: bool) -> Any:
    """Notes and lengths; a bar line after a note, the end after a bar line."""
    import numpy as np

    mask = np.zeros(WORDS, bool)
    mask[(REST if after_length else LENGTH) : TOLD] = True
    mask[SIGN:LENGTH] = not after_length and not after_sign
    mask[END] = after_sign
    return mask


def _needs(ticks: int) -> int:
    return 3 * ticks if ticks in TRIPLETS else ticks


# -- reading and writing -----------------------------------------------------------------------------------------------


def told_of(tune: Tune, **known: Any) -> dict[str, Any]:
    """What the words before a tune tell of it; `known` is taken for `rhythm` and `region`. Raises DataError for a
    metre that there is no word for."""
    if tune.metre not in METRES:
        raise DataError(f"There is no word for the metre {tune.metre}.", f"Known are {', '.join(METRES)}.")
    count = sum(isinstance(event, Bar) for event in tune.events)
    return {"rhythm": known.get("rhythm") or "", "metre": tune.metre, "mode": tune.key.mode,
            "tonic": tonic_of(tune.key), "region": known.get("region") or "", "bars": nearest_bars(count)}  # fmt: skip


def nearest_bars(count: int) -> int:
    return min(BARS, key=lambda bars: (abs(bars - count), bars))


def words_of_tune(tune: Tune) -> list[int]:
    """The words of its notes and bars, with the end. Raises DataError for lengths and notes that there is none for."""
    base, words, length = LETTERS.index(tune.key.tonic[0]), list[int](), _USUAL
    events = list(tune.events)
    while events and isinstance(events[0], Bar):
        events.pop(0)
    for place, event in enumerate(events):
        if isinstance(event, Bar):
            sign = {"|:": "||"}.get(event.sign, event.sign)
            if place == len(events) - 1:
                sign = ":|" if sign in (":|", "::") else "||"
            words.append(SIGN + SIGNS.index(sign))
            continue
        if (event.ticks in TRIPLETS) != event.triplet or event.ticks not in TICKS:
            raise DataError(f"There is no word for a length of {event.ticks}/{4 * 48}.", "Usual lengths are known.")
        if TICKS[length] != event.ticks:
            length = TICKS.index(event.ticks)
            words.append(LENGTH + length)
        words.append(REST if event.step is None else _pitch(event.step - base, _beside(event, tune.key)))
    return [*words, END]


def _beside(note: Note, key: Key) -> int:
    assert note.step is not None
    return note.alteration - key.alteration(note.step)


def _pitch(step: int, beside: int) -> int:
    if not (LOWEST <= step <= HIGHEST and beside in _ALTERED):
        raise DataError("There is no word for a note so high, low or altered.", "Three octaves around the tonic are.")
    return PITCH + (step - LOWEST) * len(_ALTERED) + beside + 1


def moved(words: Sequence[int], old: int, new: int) -> list[int]:
    """The words in another tonic, moved by at most half an octave. Raises DataError where that leaves the range."""
    octave = 7 * ((new - old < -6) - (new - old > 6))
    if not octave:
        return list(words)
    return [_pitch(*_unpitch(w, octave)) if PITCH <= w < TOLD else w for w in words]


def _unpitch(word: int, octave: int = 0) -> tuple[int, int]:
    step, beside = divmod(word - PITCH, len(_ALTERED))
    return step + LOWEST + octave, beside - 1


def tune_of(told: Mapping[str, Any], words: Iterable[int], *, title: str = "") -> Tune:
    """The tune that words say; `told` gives its key, its metre and what its headers say."""
    key = key_of(told["tonic"], told["mode"])
    base, events, ticks = LETTERS.index(key.tonic[0]), list[Note | Bar](), TICKS[_USUAL]
    for word in words:
        if word == END:
            break
        if word < LENGTH:
            events.append(Bar(SIGNS[word - SIGN]))
        elif word < REST:
            ticks = TICKS[word - LENGTH]
        elif word == REST:
            events.append(Note(None, 0, ticks, ticks in TRIPLETS))
        elif word < TOLD:
            step, beside = _unpitch(word)
            events.append(Note(base + step, key.alteration(base + step) + beside, ticks, ticks in TRIPLETS))
    facts = {"T": title, "R": told.get("rhythm", ""), "O": told.get("region", "")}
    return Tune(key, told["metre"], tuple(events), {letter: (text,) for letter, text in facts.items() if text})


def closed(told: Mapping[str, Any], words: Sequence[int], *, strict: bool = True) -> list[int]:
    """Words that were cut off, up to the last bar line (when `strict`, one with which a tune may end), with an end."""
    grammar, last = Grammar(), -1
    for kind, value in told.items():
        grammar.put(word_of(kind, value))
    for place, word in enumerate(words):
        if SIGN <= word < LENGTH and (grammar.may_end_with_bar or not strict):
            last = place
        grammar.put(word)
    if last < 0:
        return [END]
    return [*words[:last], SIGN + SIGNS.index(":|" if SIGNS[words[last] - SIGN] in (":|", "::") else "||"), END]


def abc_of(tune: Tune, *, number: int = 1, verses: Sequence[Mapping[int, str]] = ()) -> str:
    """The tune as ABC, four bars a line, notes of a beat together; `verses` are words by the place of their note in the
    tune's events, and stand under it."""
    headers = [("T", tune.title or "Untitled"), ("R", _fact(tune, "R")), ("O", _fact(tune, "O")),
               ("N", _fact(tune, "N")), ("M", tune.metre), ("L", "1/8")]  # fmt: skip
    mode = {"major": "", "minor": "m"}.get(tune.key.mode, f" {tune.key.mode[:3]}")
    lines = [f"X:{number}", *(f"{letter}:{text}" for letter, text in headers if text), f"K:{tune.key.tonic}{mode}"]
    return "\n".join([*lines, *_Writer(tune, verses).lines(), ""])


def _fact(tune: Tune, letter: str) -> str:
    return next(iter(tune.facts.get(letter, ())), "")


class _Writer:
    def __init__(self, tune: Tune, verses: Sequence[Mapping[int, str]]):
        self.tune, self.full, self.verses = tune, bar_ticks(tune.metre), verses
        self.beat = beat_ticks(tune.metre)
        self.raised: dict[int, int] = {}

    def lines(self) -> list[str]:
        lines, line, at, bars, three = list[str](), "", 0, 0, 0
        notes = list[int]()  # places of those in this line, for words to stand under
        for place, event in enumerate(self.tune.events):
            if isinstance(event, Bar):
                line, bars = f"{line}{event.sign}", bars + (at >= self.full)
                at = three = 0
                self.raised.clear()
                if bars == 4 or event.sign in (":|", "::", "||"):
                    lines, line, bars = [*lines, line, *self._words(notes)], "", 0
                    notes.clear()
                continue
            if at and at % self.beat == 0 and not three:
                line += " "
            if event.triplet and not three:
                line, three = f"{line}(3", 3
            line += self._note(event)
            notes += [place] if event.step is not None else []
            three, at = max(0, three - 1), at + event.ticks
        return [*lines, line, *self._words(notes)] if line else lines

    def _words(self, notes: Sequence[int]) -> list[str]:
        """Lines of words under a line of notes."""
        found = [[_under(verse[place]) if place in verse else "*" for place in notes] for verse in self.verses]
        while found and set(found[-1]) <= {"*"}:
            found.pop()
        return [f"w: {' '.join(words).rstrip('* ') or '*'}" for words in found]

    def _note(self, note: Note) -> str:
        ticks = note.ticks * 3 // 2 if note.triplet else note.ticks
        length = _said(ticks)
        if note.step is None:
            return f"z{length}"
        octave, letter = divmod(note.step, 7)
        name = LETTERS[letter] if octave < 1 else LETTERS[letter].lower()
        name += "'" * (octave - 1) if octave > 0 else "," * -octave
        sign = ""
        if self.raised.get(note.step, self.tune.key.alteration(note.step)) != note.alteration:
            self.raised[note.step] = note.alteration
            sign = {-2: "__", -1: "_", 0: "=", 1: "^", 2: "^^"}[note.alteration]
        return f"{sign}{name}{length}"


def _under(words: str) -> str:
    """Words as they stand under one note: what has a meaning there is written so that it has none."""
    return words.translate(_NO_MEANING).strip("~") or "*"


_NO_MEANING = str.maketrans({" ": "~", "-": "\\-", "~": "", "_": "~", "*": "", "|": "", "\\": "", "%": "\\%"})


def _said(ticks: int) -> str:
    """A length beside an eighth: "" for 24 ticks, "2", "3/2", "/2"."""
    from math import gcd

    common = gcd(ticks, 24)
    above, below = ticks // common, 24 // common
    return ("" if above == 1 else str(above)) + ("" if below == 1 else f"/{below}")


@dataclass(frozen=True)
class Bars:
    """How many bars a tune has, and how many of them are none."""

    all: int
    wrong: int


def bars_of(tune: Tune) -> Bars:
    """Counted by the grammar: pickups and what they take from the last bar are right."""
    grammar = Grammar()
    grammar.full = grammar.left = bar_ticks(tune.metre)
    count = 0
    for event in tune.events:
        if isinstance(event, Bar):
            if grammar.left == grammar.full:
                continue
            grammar._close({"|:": "||"}.get(event.sign, event.sign))
            count += 1
        else:
            grammar.left -= event.ticks
    return Bars(count, grammar.wrong)
