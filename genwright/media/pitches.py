"""Pitches: notes as words, `60:0.5 64+67:0.25 -:0.5`, and as frames in time.

A note is MIDI numbers that sound together, and seconds; `-` is a rest. It is what steers a model of raw sound.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from genwright.core.errors import UsageError

PITCHES = 128
WIDTH = PITCHES + 1  # of a frame: what sounds, and whether a note begins
_NOTE = re.compile(r"(-|\d{1,3}(?:\+\d{1,3}){0,9}):(\d{1,3}(?:\.\d{1,6})?)")

Note = tuple[tuple[int, ...], float]  # what sounds together, and for how many seconds


def notes_of(words: str) -> list[Note]:
    """
    >>> notes_of("60:0.5 64+67:1 -:.25")
    Traceback (most recent call last):
    ...
    genwright.core.errors.UsageError: '-:.25' is no note.
    >>> notes_of("60:0.5 64+67:1 -:0.25")
    [((60,), 0.5), ((64, 67), 1.0), ((), 0.25)]

    Raises UsageError for another spelling, or for none.
    """
    found = []
    for word in words.split():
        note = _NOTE.fullmatch(word)
        pitches = tuple(int(one) for one in note[1].split("+")) if note and note[1] != "-" else ()
        if note is None or any(pitch >= PITCHES for pitch in pitches):
            raise UsageError(f"{word[:40]!r} is no note.", "Write MIDI numbers and seconds: 60:0.5 64+67:0.25 -:0.5")
        found.append((pitches, float(note[2])))
    if not sum(seconds for _, seconds in found):
        raise UsageError("There are no notes.", "Write MIDI numbers and seconds: 60:0.5 64+67:0.25 -:0.5")
    return found


def spelled(notes: Sequence[Note]) -> str:
    """The words of notes: what `notes_of` undoes.

    >>> spelled([((60,), 0.5), ((), 0.25)])
    '60:0.5 -:0.25'
    """
    return " ".join(f"{'+'.join(map(str, pitches)) or '-'}:{round(seconds, 6):g}" for pitches, seconds in notes)


def frames_of(notes: Sequence[Note], rate: float) -> Any:
    """float16 (1 + seconds · rate, WIDTH): 1 where a pitch sounds, and in the last place where a note begins."""
    import numpy as np

    ends = np.cumsum([seconds for _, seconds in notes]) * rate
    frames = np.zeros((1 + int(ends[-1]), WIDTH), np.float16)
    start = 0
    for (pitches, _), end in zip(notes, ends, strict=True):
        stop = max(start, round(float(end)))
        frames[start:stop, list(pitches)] = 1
        if pitches:
            frames[start : start + 1, PITCHES] = 1
        start = stop
    return frames
