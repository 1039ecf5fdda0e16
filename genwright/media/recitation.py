"""Recitation: the lines of a lyric set on the phrases of a tune, each to be spoken (not sung) from a bar line on.

A phrase is two, four or eight whole bars, as long as the lines need; pickups belong to the phrase before. A line that
is longer than its phrase takes several, or is said somewhat faster where that saves one. A stanza begins with a part of
the tune where one is near. The tune is played again until the last line is said. Words are noted under the notes during
which they are said, as near as can be told from how many letters stand before them.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from .abc import Bar, Note, Tune, bar_ticks
from .performance import QUARTER, played_order, unfolded
from .sound import Sound
from .tune_words import one_line

SIZES = (2, 4, 8)  # bars of a phrase
BREATH = 0.15  # seconds of a phrase that stay free after its line
_NEAR = 8  # bars for which a stanza waits for a part of the tune
_ENDS = (":|", "::", "||", "|:", ":|2")  # signs after which a part is played
_HEADING = re.compile(r"\[[^\]]{0,200}\]")  # [Chorus]
_SAID = re.compile(r"[^\W_]")
_HAN = "\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_HAN}][^\w\s]*|[^\s{_HAN}]+")

Verses = Sequence[Mapping[int, str]]  # words by the place of their note in a tune's events; one entry a time it sounds


class Lasting(Protocol):
    """What takes a time: a sound, or a line as it was said."""

    @property
    def seconds(self) -> float: ...


L = TypeVar("L", bound=Lasting)


@dataclass(frozen=True)
class Line:
    """Words that are said together; a stanza begins with a line that `opens`."""

    text: str
    opens: bool = False


@dataclass(frozen=True)
class Said:
    """A line and its sound from `start` (seconds of the music) on; `bar` counts those played, 1 is the first whole."""

    text: str
    start: float
    bar: int
    speed: float
    sound: Sound

    @property
    def end(self) -> float:
        return self.start + self.sound.seconds


@dataclass(frozen=True)
class Recital:
    """Lines set on a tune that is played `times` times, in phrases of `bars`."""

    lines: Sequence[Said]
    bars: int
    times: int


def lines_of(lyrics: str) -> list[Line]:
    """The lines that hold words; an empty one, or a heading in brackets, begins a stanza.

    >>> [(line.text, line.opens) for line in lines_of("[Verse]\\nOne,\\ntwo.\\n\\n- - -\\nThree.")]
    [('One,', True), ('two.', False), ('Three.', True)]
    """
    found, opens = list[Line](), True
    for text in lyrics.splitlines():
        text = one_line(_HEADING.sub("", text))
        if _SAID.search(text):
            found.append(Line(text, opens))
        opens = not _SAID.search(text)
    return found


def hurried(say: Callable[[float], L], room: float, *, speed: float = 1.0, most: float) -> tuple[L, float]:
    """What is said in `room` seconds or, where that cannot be, at the speed `most`; and how fast."""
    made = say(speed)
    for _ in range(2):  # a voice's pauses do not shrink as its words do: the second try knows by how much
        if made.seconds <= room or speed >= most:
            break
        speed = min(most, round(speed * made.seconds / max(room, 0.01) + 0.02, 2))
        made = say(speed)
    return made, speed


def set_on(
    tune: Tune, lines: Sequence[Line], say: Callable[[str, float], Sound], *, tempo: int, fastest: float = 1.25
) -> Recital:
    """Each line on the next phrase of the tune, played at `tempo` quarters a minute. `say(text, speed)` gives a line's
    sound, at speed 1 as fast as is asked for; none is hurried to more than `fastest`. The tune has notes."""
    bar = bar_ticks(tune.metre) / QUARTER * 60 / tempo
    usual = sorted(say(line.text, 1.0).seconds for line in lines)[(len(lines) - 1) // 2]
    size = next((size for size in SIZES if size * bar >= usual + BREATH), SIZES[-1])
    phrases, at, said = _Phrases(tune, size, tempo), 0, list[Said]()
    for line in lines:
        at = phrases.part_from(at) if line.opens and said else at
        sound, speed, count = _phrased(partial(say, line.text), phrases, at, fastest)
        said.append(Said(line.text, phrases.start(at), phrases.bar(at), speed, sound))
        at += count
    return Recital(said, size, phrases.times(said[-1].end))


def _phrased(say: Callable[[float], Sound], phrases: _Phrases, at: int, fastest: float) -> tuple[Sound, float, int]:
    """A line as it is said from the phrase `at` on, how fast, and how many phrases it takes."""

    def room(count: int) -> float:
        return phrases.start(at + count) - phrases.start(at) - BREATH

    sound, count = say(1.0), 1
    while room(count) < sound.seconds:
        count += 1
    if count > 1 and sound.seconds / fastest <= room(count - 1):
        quick, speed = hurried(say, room(count - 1), most=fastest)
        if quick.seconds <= room(count - 1):
            return quick, speed, count - 1
    return sound, 1.0, count


class _Phrases:
    """The phrases of a tune that is played again and again: the first begins with its first whole bar."""

    def __init__(self, tune: Tune, size: int, tempo: int):
        self.size, self.second = size, QUARTER * tempo / 60  # ticks of a second
        self.whole = sum(event.ticks for event in unfolded(tune) if isinstance(event, Note))
        self.found = list[tuple[int, int, bool]]()  # (tick, number of its bar, whether a part begins)
        within = 0
        for number, (tick, opens) in enumerate(_downbeats(tune), 1):
            within = 0 if opens else within + 1
            if within % size == 0:
                self.found.append((tick, number, opens))
        self.bars = number

    def start(self, place: int) -> float:
        """Seconds from the beginning of the music."""
        again, place = divmod(place, len(self.found))
        return (again * self.whole + self.found[place][0]) / self.second

    def bar(self, place: int) -> int:
        again, place = divmod(place, len(self.found))
        return again * self.bars + self.found[place][1]

    def part_from(self, place: int) -> int:
        """The phrase with which the next part begins, where it is not far; else that very phrase."""
        for later in range(place, place + max(1, _NEAR // self.size) + 1):
            if self.found[later % len(self.found)][2]:
                return later
        return place

    def times(self, seconds: float) -> int:
        """How often the tune is played until then."""
        return max(1, -int(-seconds * self.second // self.whole))


def _downbeats(tune: Tune) -> Iterator[tuple[int, bool]]:
    """(tick, whether it is a part's first) of each bar that is played; a pickup is none of them."""
    full, at, ticks, opens = bar_ticks(tune.metre), 0, 0, True
    is_first, some = True, False  # of its part
    for place in played_order(tune):
        event = tune.events[place]
        if isinstance(event, Note):
            ticks += event.ticks
            continue
        if ticks and not (is_first and ticks < full):
            yield at, opens
            opens, some = False, True
        is_first = event.sign in _ENDS or (is_first and not ticks)
        at, ticks, opens = at + ticks, 0, opens or event.sign in _ENDS
    if not some:
        yield 0, True


# -- words under notes -------------------------------------------------------------------------------------------------


def verses_of(tune: Tune, recital: Recital, *, tempo: int) -> list[dict[int, str]]:
    """The words under the notes as they are written: first those of the first time that a note is played, and so on."""
    ticks, notes = list[int](), list[tuple[int, int]]()  # of those that sound; (place, which time)
    at, heard = 0, dict[int, int]()
    for place in played_order(tune) * recital.times:
        event = tune.events[place]
        if isinstance(event, Bar):
            continue
        if event.step is not None:
            ticks.append(at)
            notes.append((place, heard.get(place, 0)))
            heard[place] = heard.get(place, 0) + 1
        at += event.ticks
    found: list[dict[int, str]] = [{} for _ in range(max(heard.values(), default=0))]
    for tick, word in word_ticks(recital, tempo=tempo) if notes else ():
        place, time = notes[max(0, bisect_right(ticks, tick) - 1)]
        before = found[time].get(place, "")
        found[time][place] = f"{before}{'' if not before or _is_han(word) else ' '}{word}"
    while found and not found[-1]:
        found.pop()
    return found


def word_ticks(recital: Recital, *, tempo: int) -> Iterator[tuple[int, str]]:
    """(tick, word) of all that is said: each word as far in its line's time as it is in the line's letters. A Chinese
    character is a word."""
    for line in recital.lines:
        words = [(found.start(), found[0]) for found in _WORD.finditer(line.text)]
        for start, word in words:
            seconds = line.start + line.sound.seconds * start / len(line.text)
            yield round(seconds * QUARTER * tempo / 60), word


def _is_han(word: str) -> bool:
    return bool(re.match(rf"[{_HAN}]", word))
