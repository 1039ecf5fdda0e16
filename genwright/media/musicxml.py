"""MusicXML (4.0, partwise): a tune as programs that engrave and edit scores read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from .abc import LETTERS, WHOLE, Note, Tune, bar_ticks, beat_ticks
from .performance import GENERATED

_TYPES = {192: ("whole", 0), 144: ("half", 1), 96: ("half", 0), 84: ("quarter", 2), 72: ("quarter", 1),
          48: ("quarter", 0), 42: ("eighth", 2), 36: ("eighth", 1), 24: ("eighth", 0), 18: ("16th", 1),
          12: ("16th", 0), 6: ("32nd", 0), 3: ("64th", 0)}  # fmt: skip
_SIGNS = {-2: "flat-flat", -1: "flat", 0: "natural", 1: "sharp", 2: "double-sharp"}
_ENDS = ("||", ":|", "::", ":|2")  # signs with which a part ends, or its first ending
_FLAGS = {42: 1, 36: 1, 24: 1, 18: 2, 12: 2, 6: 3, 3: 4}
_HEAD = ('<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE score-partwise PUBLIC "-//Recordare//DTD MusicXML 4.0 '
         'Partwise//EN" "http://www.musicxml.org/dtds/partwise.dtd">\n')  # fmt: skip


_Words = Sequence[tuple[int, str]]  # (number of the verse, words) under a note


def musicxml_of(tune: Tune, *, verses: Sequence[Mapping[int, str]] = ()) -> str:
    """The whole file. Repeats are written, not played out; a length that no one sign has is tied together. `verses` are
    words by the place of their note in the tune's events."""
    root = Element("score-partwise", version="4.0")
    SubElement(SubElement(root, "work"), "work-title").text = tune.title or "Untitled"
    SubElement(SubElement(root, "identification"), "rights").text = GENERATED
    listed = SubElement(SubElement(root, "part-list"), "score-part", id="P1")
    SubElement(listed, "part-name", {"print-object": "no"}).text = "Melody"
    part, before, number, ending = SubElement(root, "part", id="P1"), "||", 0, ""
    notes = list[tuple[Note, _Words]]()
    for place, event in enumerate(tune.events):
        if isinstance(event, Note):
            words = [(count, verse[place]) for count, verse in enumerate(verses, 1) if place in verse]
            notes.append((event, words))
            continue
        if notes:
            missing = bar_ticks(tune.metre) - sum(note.ticks for note, _ in notes)
            pickup = missing if missing > 0 and before in ("||", "|:", ":|", "::") else 0
            number += not pickup
            ending = before[-1] if before in ("|1", ":|2") else ending
            _measure(part, tune, notes, before, event.sign, number, pickup, ending)
            ending = "" if event.sign in _ENDS else ending
        notes, before = [], event.sign
    indent(root)
    return _HEAD + tostring(root, encoding="unicode") + "\n"


def _measure(
    part: Element, tune: Tune, notes: Sequence[tuple[Note, _Words]], before: str, after: str, number: int, pickup: int,
    ending: str,
) -> None:  # fmt: skip
    is_first, called = not len(part), {"number": f"X{number}", "implicit": "yes"} if pickup else {"number": str(number)}
    measure = SubElement(part, "measure", called)
    if before in ("|:", "::"):
        _repeat(SubElement(measure, "barline", location="left"), "forward")
    if before in ("|1", ":|2"):
        SubElement(SubElement(measure, "barline", location="left"), "ending", number=before[-1], type="start")
    if is_first:
        _attributes(measure, tune)
    three, beams = 0, _beams([note for note, _ in notes], pickup, beat_ticks(tune.metre))
    raised = dict[int, int]()  # by step, in this bar
    for (note, words), beam in zip(notes, beams, strict=True):
        sign = _sign(note, tune, raised)
        three = 0 if not note.triplet else three % 3 + 1
        for place, ticks in enumerate(pieces := _pieces(note)):
            one = _note(measure, note, ticks, first=place == 0, last=place == len(pieces) - 1, three=three,
                        beams=beam, sign=sign if place == 0 else "")  # fmt: skip
            for count, text in words if place == 0 else ():
                lyric = SubElement(one, "lyric", number=str(count))
                SubElement(lyric, "syllabic").text, SubElement(lyric, "text").text = "single", text
    if after in _ENDS:
        line = SubElement(measure, "barline", location="right")
        if after == "||":
            SubElement(line, "bar-style").text = "light-light"
        if ending:
            SubElement(line, "ending", number=ending, type="stop")
        if after in (":|", "::", ":|2"):
            _repeat(line, "backward")


def _repeat(line: Element, direction: str) -> None:
    SubElement(line, "repeat", direction=direction)


def _attributes(measure: Element, tune: Tune) -> None:
    facts = SubElement(measure, "attributes")
    SubElement(facts, "divisions").text = str(WHOLE // 4)
    SubElement(SubElement(facts, "key"), "fifths").text = str(tune.key.fifths)
    time, (above, below) = SubElement(facts, "time"), tune.metre.split("/")
    SubElement(time, "beats").text, SubElement(time, "beat-type").text = above, below
    clef = SubElement(facts, "clef")
    SubElement(clef, "sign").text, SubElement(clef, "line").text = "G", "2"


def _sign(note: Note, tune: Tune, raised: dict[int, int]) -> str:
    """The accidental before a note, where neither the key nor the bar has it already."""
    if note.step is None or raised.get(note.step, tune.key.alteration(note.step)) == note.alteration:
        return ""
    raised[note.step] = note.alteration
    return _SIGNS[note.alteration]


def _beams(notes: Sequence[Note], at: int, beat: int) -> list[list[str]]:
    """Of each note what its beams do, the outermost first: those of a beat hang together. `at` is where the first
    stands in its bar."""
    found: list[list[str]] = [[] for _ in notes]
    flags, beats = list[int](), list[int]()
    for note in notes:
        flags.append(_FLAGS.get(note.ticks * 3 // 2 if note.triplet else note.ticks, 0) if note.step is not None else 0)
        beats.append(at // beat)
        at += note.ticks
    for place, count in enumerate(flags):
        for level in range(1, count + 1):
            left, right = (
                0 <= other < len(flags) and beats[other] == beats[place] and flags[other] >= level
                for other in (place - 1, place + 1)
            )
            if level > 1 and not found[place]:
                continue  # a note that stands alone has flags
            if left or right:
                found[place].append("continue" if left and right else "end" if left else "begin")
            elif found[place]:
                found[place].append("forward hook" if found[place][0] == "begin" else "backward hook")
    return found


def _pieces(note: Note) -> list[int]:
    """The lengths that are tied together, longest first."""
    if note.triplet or note.ticks in _TYPES:
        return [note.ticks]
    found, left = list[int](), note.ticks
    while left > 0:
        found.append(next((ticks for ticks in _TYPES if ticks <= left), left))
        left -= found[-1]
    return found


def _note(
    measure: Element, note: Note, ticks: int, *, first: bool, last: bool, three: int, beams: Sequence[str], sign: str
) -> Element:
    one = SubElement(measure, "note")
    if note.step is None:
        SubElement(one, "rest")
    else:
        pitch = SubElement(one, "pitch")
        SubElement(pitch, "step").text = LETTERS[note.step % 7]
        if note.alteration:
            SubElement(pitch, "alter").text = str(note.alteration)
        SubElement(pitch, "octave").text = str(4 + note.step // 7)
    SubElement(one, "duration").text = str(ticks)
    tied = note.step is not None and not (first and last)
    ties = [kind for kind, there in (("stop", not first), ("start", not last)) if tied and there]
    for kind in ties:
        SubElement(one, "tie", type=kind)
    SubElement(one, "voice").text = "1"
    kind, dots = _TYPES.get(ticks * 3 // 2 if note.triplet else ticks, ("64th", 0))
    SubElement(one, "type").text = kind
    for _ in range(dots):
        SubElement(one, "dot")
    if sign:
        SubElement(one, "accidental").text = sign
    if note.triplet:
        change = SubElement(one, "time-modification")
        SubElement(change, "actual-notes").text, SubElement(change, "normal-notes").text = "3", "2"
    for level, kind in enumerate(beams, 1):
        SubElement(one, "beam", number=str(level)).text = kind
    if ties or three in (1, 3):
        marks = SubElement(one, "notations")
        for kind in ties:
            SubElement(marks, "tied", type=kind)
        if three in (1, 3):
            SubElement(marks, "tuplet", type="start" if three == 1 else "stop")
    return one
