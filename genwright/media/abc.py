"""ABC: tunes of one voice, read from text (the standard 2.1) into notes whose lengths can be counted.

A quarter note is 48 ticks, so triplets and notes down to 1/64 are whole numbers. Accidentals are resolved: each note
has its letter's step and its alteration, whatever key and bar say. Left out: grace notes, ornaments, chord names,
slurs, words, and all but the highest note of a chord. A tie within a bar makes one note, over a bar line the note is
struck again. What this cannot hold (several voices, a change of key or metre, tuplets besides triplets) is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from genwright.core.errors import DataError

WHOLE = 192  # ticks
LETTERS = "CDEFGAB"
SEMITONES = (0, 2, 4, 5, 7, 9, 11)
MODES = ("major", "minor", "dorian", "mixolydian", "phrygian", "lydian", "locrian")
_FIFTHS_DOWN = {"major": 0, "lydian": -1, "mixolydian": 1, "dorian": 2, "minor": 3, "phrygian": 4, "locrian": 5}
_MODE_WORDS = {"": "major", "maj": "major", "ion": "major", "min": "minor", "m": "minor", "aeo": "minor",
               "dor": "dorian", "mix": "mixolydian", "phr": "phrygian", "lyd": "lydian", "loc": "locrian"}  # fmt: skip
_FIFTHS = "FCGDAEB"
_LONGEST = 40_000  # characters of a tune


@dataclass(frozen=True)
class Key:
    """A tonic as it is spelt (C, F#, Bb) and a mode of `MODES`.

    >>> Key("E", "dorian").fifths
    2
    """

    tonic: str
    mode: str

    @property
    def fifths(self) -> int:
        """Sharps of the signature; flats are negative."""
        sharp = self.tonic.count("#") - self.tonic.count("b")
        return _FIFTHS.index(self.tonic[0]) - 1 + 7 * sharp - _FIFTHS_DOWN[self.mode]

    def alteration(self, step: int) -> int:
        """How many semitones the signature raises a letter: 0 is C, of any octave."""
        place = _FIFTHS.index(LETTERS[step % 7])
        return (self.fifths - place + 6) // 7

    def __str__(self) -> str:
        return f"{self.tonic} {self.mode}"


@dataclass(frozen=True)
class Note:
    """`step` counts letters from middle C, `alteration` semitones beside the letter; `step` None is a rest."""

    step: int | None
    alteration: int
    ticks: int
    triplet: bool = False

    @property
    def midi(self) -> int | None:
        """The number of the piano's key, 60 is middle C; None for a rest."""
        return None if self.step is None else 60 + 12 * (self.step // 7) + SEMITONES[self.step % 7] + self.alteration


@dataclass(frozen=True)
class Bar:
    """What stands between bars: "|", "||", "|:", ":|", "::", "|1", ":|2"; "|]" ends a tune."""

    sign: str


@dataclass(frozen=True)
class Tune:
    """`metre` is ("6/8"), `facts` are the other headers by their letter (T, R, O, Z …)."""

    key: Key
    metre: str
    events: tuple[Note | Bar, ...]
    facts: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return next(iter(self.facts.get("T", ())), "")

    @property
    def notes(self) -> list[Note]:
        return [event for event in self.events if isinstance(event, Note)]


def bar_ticks(metre: str) -> int:
    """Ticks of a whole bar.

    >>> bar_ticks("6/8")
    144
    """
    above, _, below = metre.partition("/")
    return int(above) * WHOLE // int(below)


def beat_ticks(metre: str) -> int:
    """Ticks of a beat: three eighths where they go by threes.

    >>> [beat_ticks(metre) for metre in ("6/8", "4/4", "2/2")]
    [72, 48, 96]
    """
    above, _, below = metre.partition("/")
    return 3 * WHOLE // 8 if below == "8" and int(above) % 3 == 0 else WHOLE // int(below)


def tunes_of(text: str) -> Iterator[tuple[int, str]]:
    """(line number, text) of each tune of a file: from `X:` to an empty line or the next."""
    begin, lines = 0, list[str]()
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("X:") or (lines and not line.strip()):
            if lines:
                yield begin, "\n".join(lines)
            begin, lines = number, []
        if lines or line.startswith("X:"):
            lines.append(line)
    if lines:
        yield begin, "\n".join(lines)


def read_tune(text: str) -> Tune:
    """One tune. Raises DataError for what is no ABC, and for music that a single voice of one metre cannot hold."""
    if len(text) > _LONGEST:
        raise DataError(f"The tune has {len(text):,} characters, more than {_LONGEST:,}.", "Cut it.")
    facts, body = _headers(text)
    for needed, name in (("K", "key"), ("M", "metre")):
        if needed not in facts:
            raise DataError(f"The tune has no {name} ({needed}:).", f"Add a line {needed}: before its notes.")
    key, metre = read_key(facts["K"][0]), read_metre(facts["M"][0])
    above, _, below = metre.partition("/")
    unit = (1, 16) if 4 * int(above) < 3 * int(below) else (1, 8)
    reader = _Reader(key, metre, _length(facts["L"][0]) if "L" in facts else unit)
    for line in body:
        reader.line(line)
    events = reader.finish()
    if not any(isinstance(event, Note) and event.step is not None for event in events):
        raise DataError("The tune has no notes.", "Write them below its K: line.")
    return Tune(key, metre, events, facts)


def read_key(text: str) -> Key:
    """`Gm`, `D dor`, `F#mix`, `Bb major`. Raises DataError for another."""
    found = _KEY.match(text.strip())
    mode = _MODE_WORDS.get(found["mode"].lower()[:3] if found["mode"] != "M" else "maj") if found else None
    if not found or mode is None:
        if text.strip()[:2].lower() == "hp":
            return Key("A", "mixolydian")  # Highland pipes
        raise DataError(f"The key {text[:40]!r} is none.", "Write it as in K:Gm, K:D dor, K:Bb.")
    key = Key(found["tonic"].upper() + found["sharp"], mode)
    if abs(key.fifths) > 7:
        raise DataError(f"The key {key} has more than seven sharps or flats.", "Spell it in another way.")
    return key


def read_metre(text: str) -> str:
    """`6/8`, `C`, `C|`. Raises DataError for free metre and for what is none."""
    plain = {"C": "4/4", "C|": "2/2", "c": "4/4", "c|": "2/2"}.get(text.strip(), text.replace(" ", ""))
    found = _METRE.fullmatch(plain)
    if not found or not 0 < int(found[1]) <= 24 or int(found[2]) not in (1, 2, 4, 8, 16):
        raise DataError(f"The metre {text[:40]!r} cannot be counted.", "Write it as in M:6/8.")
    return plain


_KEY = re.compile(r"(?P<tonic>[A-Ga-g])(?P<sharp>[#b]?)[ ]?(?P<mode>[A-Za-z]*)")
_METRE = re.compile(r"(\d{1,2})/(\d{1,2})")


def _headers(text: str) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """Headers by letter, and the lines after K:."""
    facts: dict[str, tuple[str, ...]] = {}
    lines = text.splitlines()
    for number, line in enumerate(lines):
        line = line.partition("%")[0].strip()
        if len(line) > 1 and line[1] == ":" and line[0].isalpha():
            value = line[2:].strip()
            if value:
                facts[line[0]] = (*facts.get(line[0], ()), value)
            if line[0] == "K":
                return facts, lines[number + 1 :]
    return facts, []


def _length(text: str) -> tuple[int, int]:
    found = _METRE.fullmatch(text.replace(" ", ""))
    if not found or not int(found[2]):
        raise DataError(f"The unit length {text[:40]!r} is none.", "Write it as in L:1/8.")
    return int(found[1]), int(found[2])


# -- the notes of a line -----------------------------------------------------------------------------------------------

_SKIP = re.compile(r'"[^"]*"|![^!]*!|\+[^+]*\+|\{[^}]*\}|[\s`.~HIJKLMNOPQRSTUVWhijklmnopqrstuvw*$()\\!;?@#]|y\d{0,3}')
_TUPLET = re.compile(r"\((\d)(?::(\d?))?(?::(\d?))?")
_FIELD = re.compile(r"\[([A-Za-z]):([^\]]*)\]")
_NOTE = re.compile(r"(\^\^|\^|__|_|=)?([A-Ga-g])([,']{0,6})")
_REST = re.compile(r"[zx]")
_TIMES = re.compile(r"(\d{0,3})(/{0,4})(\d{0,3})")
_BROKEN = re.compile(r"[<>]{1,3}")
_BAR = re.compile(r":{1,3}\|\]?|\[\||\|\]|\|{1,2}:{1,2}|\|\||::|\||:")
_ENDING = re.compile(r" ?\[?([1-9])(?:[,-][1-9]){0,3}")


class _Reader:
    def __init__(self, key: Key, metre: str, unit: tuple[int, int]):
        self.key, self.metre, self.unit = key, metre, unit
        self.events: list[Note | Bar] = []
        self.raised: dict[int, int] = {}  # alterations of this bar by step
        self.tuplet = 0  # notes of a triplet still to come
        self.lean = (1, 1)  # what a broken rhythm leaves for the next note
        self.tied = False

    def line(self, line: str) -> None:
        line = line.partition("%")[0].rstrip()
        if len(line) > 1 and line[1] == ":" and line[0].isalpha() and line[0] not in "|":
            self._field(line[0], line[2:].strip())
            return
        at = 0
        while at < len(line):
            at = self._one(line, at)

    def _one(self, line: str, at: int) -> int:
        """Read what stands at a place; where the next begins."""
        if found := _FIELD.match(line, at):
            self._field(found[1], found[2].strip())
        elif found := _TUPLET.match(line, at):
            self._begin_tuplet(found)
        elif line[at] == "[" and (at + 1 < len(line) and line[at + 1] not in "|123456789"):
            return self._chord(line, at + 1)
        elif found := _NOTE.match(line, at):
            step, alteration = self._pitch(found)
            times, end = self._times(line, found.end())
            self._put(step, alteration, times)
            return end
        elif found := _REST.match(line, at):
            times, end = self._times(line, found.end())
            self._put(None, 0, times)
            return end
        elif found := _BROKEN.match(line, at):
            self._break(found[0])
        elif line[at] == "-":
            self.tied = True
            return at + 1
        elif line[at] == "[" or (found := _BAR.match(line, at)):
            return self._bar(line, at, found[0] if found else "")  # a bracket opens an ending, or begins "[|"
        elif not (found := _SKIP.match(line, at)):
            raise DataError(f"The tune holds {line[at : at + 12]!r}, which is not read.", "One voice is read.")
        return found.end()

    def _field(self, letter: str, value: str) -> None:
        if letter == "L":
            self.unit = _length(value)
        elif letter == "M" and read_metre(value) != self.metre:
            raise DataError(f"The tune changes its metre to {value[:20]}.", "Make two tunes of it.")
        elif letter == "K" and read_key(value) != self.key:
            raise DataError(f"The tune changes its key to {value[:20]}.", "Make two tunes of it.")
        elif letter == "V" and not value.startswith("1"):
            raise DataError("The tune has several voices.", "Keep the one with the melody.")

    def _begin_tuplet(self, found: re.Match[str]) -> None:
        count = int(found[1])
        if count != 3 or (found[2] or "2") != "2" or (found[3] or "3") != "3":
            raise DataError(f"The tune holds a group of {count} in the time of others.", "Triplets alone are read.")
        self.tuplet = 3

    def _chord(self, line: str, at: int) -> int:
        """The highest note counts. Its length is the first note's, times what stands behind the chord."""
        pitches, times = list[tuple[int, int]](), (0, 1)
        while at < len(line) and line[at] != "]":
            if found := _NOTE.match(line, at):
                pitches.append(self._pitch(found))
                own, at = self._times(line, found.end())
                times = times if times[0] else own
            elif found := _SKIP.match(line, at):
                at = found.end()
            else:
                at += 1
        more, at = self._times(line, at + 1)
        if not pitches:
            raise DataError("The tune holds a chord without notes.", "Close its bracket.")
        self._put(*max(pitches), (times[0] * more[0], times[1] * more[1]))
        return at

    def _pitch(self, found: re.Match[str]) -> tuple[int, int]:
        sign, letter, marks = found.groups()
        step = LETTERS.index(letter.upper()) + 7 * (letter.islower() + marks.count("'") - marks.count(","))
        if sign:
            self.raised[step] = {"^": 1, "^^": 2, "_": -1, "__": -2, "=": 0}[sign]
        return step, self.raised.get(step, self.key.alteration(step))

    def _times(self, line: str, at: int) -> tuple[tuple[int, int], int]:
        """A length as a fraction of the unit, and where it ends."""
        found = _TIMES.match(line, at)
        assert found
        above, slashes, below = found.groups()
        under = int(below) if below and slashes else 2 ** len(slashes)
        if not under or (below and not slashes):
            raise DataError("The tune holds a length that is none.", "Write lengths as in A2, A/2, A3/2.")
        return (int(above or 1), under), found.end()

    def _put(self, step: int | None, alteration: int, times: tuple[int, int]) -> None:
        above = WHOLE * self.unit[0] * times[0] * self.lean[0] * (2 if self.tuplet else 1)
        length, rest = divmod(above, self.unit[1] * times[1] * self.lean[1] * (3 if self.tuplet else 1))
        self.lean = (1, 1)
        if rest or not 0 < length <= 4 * WHOLE:
            raise DataError("The tune holds a note that is too short or too long.", "From 1/64 to four whole notes.")
        last = self.events[-1] if self.events else None
        one = Note(step, alteration, length, bool(self.tuplet))
        self.tuplet = max(0, self.tuplet - 1)
        if self.tied and isinstance(last, Note) and not last.triplet and not one.triplet and last.midi == one.midi:
            self.events[-1] = Note(step, alteration, last.ticks + one.ticks)
        else:
            self.events.append(one)
        self.tied = False

    def _break(self, signs: str) -> None:
        last = self.events[-1] if self.events else None
        if not isinstance(last, Note):
            raise DataError(f"The tune holds {signs} without a note before it.", "Remove it.")
        parts = 2 ** len(signs)  # of which the shorter has one
        own, rest = (2 * parts - 1, 1) if signs[0] == ">" else (1, 2 * parts - 1)
        ticks, left = divmod(last.ticks * own, parts)
        if left:
            raise DataError("The tune holds a note that is too short or too long.", "From 1/64 to four whole notes.")
        self.lean = (rest, parts)
        self.events[-1] = Note(last.step, last.alteration, ticks, last.triplet)

    def _bar(self, line: str, at: int, sign: str) -> int:
        at += len(sign)
        closes, opens = sign.startswith(":"), sign.endswith(":") and sign != ":"
        plain = "::" if sign == "::" or (closes and opens) else ":|" if closes else "|:" if opens else sign
        plain = {"[|": "||", "|]": "||", "": "|"}.get(plain, plain)
        if (found := _ENDING.match(line, at)) and (line[at] in "[123456789" or line[at : at + 2] == " ["):
            plain = ":|2" if plain == ":|" or found[1] != "1" else "|1"
            at = found.end()
        elif not sign:
            at += 1
        self.raised.clear()
        if self.events and isinstance(self.events[-1], Bar):
            plain = _both(self.events[-1].sign, plain)
            self.events.pop()
        if self.events or plain == "|:":
            self.events.append(Bar(plain))
        return at

    def finish(self) -> tuple[Note | Bar, ...]:
        """The events, with a bar line at the end."""
        if self.events and isinstance(self.events[-1], Note):
            self.events.append(Bar("||"))
        return tuple(self.events)


def _both(first: str, second: str) -> str:
    """Two signs with nothing between them, as at the end of a line, are one."""
    if first in (":|", "::") and second in ("|:", "::"):
        return "::"
    order = ("|", "||", "|:", ":|", "::", "|1", ":|2")
    return max(first, second, key=order.index)
