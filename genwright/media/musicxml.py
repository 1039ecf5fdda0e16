"""MusicXML (4.0, partwise): a tune as programs that engrave and edit scores read it."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from .abc import LETTERS, WHOLE, Note, Tune
from .performance import GENERATED

_TYPES = {192: ("whole", 0), 144: ("half", 1), 96: ("half", 0), 84: ("quarter", 2), 72: ("quarter", 1),
          48: ("quarter", 0), 42: ("eighth", 2), 36: ("eighth", 1), 24: ("eighth", 0), 18: ("16th", 1),
          12: ("16th", 0), 6: ("32nd", 0), 3: ("64th", 0)}  # fmt: skip
_HEAD = ('<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE score-partwise PUBLIC "-//Recordare//DTD MusicXML 4.0 '
         'Partwise//EN" "http://www.musicxml.org/dtds/partwise.dtd">\n')  # fmt: skip


def musicxml_of(tune: Tune) -> str:
    """The whole file. Repeats are written, not played out; a length that no one sign has is tied together."""
    root = Element("score-partwise", version="4.0")
    SubElement(SubElement(root, "work"), "work-title").text = tune.title or "Untitled"
    SubElement(SubElement(root, "identification"), "rights").text = GENERATED
    listed = SubElement(SubElement(root, "part-list"), "score-part", id="P1")
    SubElement(listed, "part-name").text = "Melody"
    part, notes, before, number = SubElement(root, "part", id="P1"), list[Note](), "||", 0
    for event in tune.events:
        if isinstance(event, Note):
            notes.append(event)
            continue
        if notes:
            number += 1
            _measure(part, tune, notes, before, event.sign, number)
        notes, before = [], event.sign
    indent(root)
    return _HEAD + tostring(root, encoding="unicode") + "\n"


def _measure(part: Element, tune: Tune, notes: Sequence[Note], before: str, after: str, number: int) -> None:
    measure = SubElement(part, "measure", number=str(number))
    if before in ("|:", "::"):
        _repeat(SubElement(measure, "barline", location="left"), "forward")
    if before in ("|1", ":|2"):
        SubElement(SubElement(measure, "barline", location="left"), "ending", number=before[-1], type="start")
    if number == 1:
        _attributes(measure, tune)
    three = 0
    for note in notes:
        three = 0 if not note.triplet else three % 3 + 1
        for place, ticks in enumerate(pieces := _pieces(note)):
            _note(measure, note, ticks, first=place == 0, last=place == len(pieces) - 1, three=three)
    if after in (":|", "::", ":|2"):
        line = SubElement(measure, "barline", location="right")
        if after == ":|2":
            SubElement(line, "ending", number="1", type="stop")
        _repeat(line, "backward")
    elif after == "||":
        SubElement(SubElement(measure, "barline", location="right"), "bar-style").text = "light-light"


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


def _pieces(note: Note) -> list[int]:
    """The lengths that are tied together, longest first."""
    if note.triplet or note.ticks in _TYPES:
        return [note.ticks]
    found, left = list[int](), note.ticks
    while left > 0:
        found.append(next((ticks for ticks in _TYPES if ticks <= left), left))
        left -= found[-1]
    return found


def _note(measure: Element, note: Note, ticks: int, *, first: bool, last: bool, three: int) -> None:
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
    if note.triplet:
        change = SubElement(one, "time-modification")
        SubElement(change, "actual-notes").text, SubElement(change, "normal-notes").text = "3", "2"
    if ties or three in (1, 3):
        marks = SubElement(one, "notations")
        for kind in ties:
            SubElement(marks, "tied", type=kind)
        if three in (1, 3):
            SubElement(marks, "tuplet", type="start" if three == 1 else "stop")
