"""Melody: what stays of a tune in every key: steps from note to note, and lengths beside each other."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from .abc import Tune, bar_ticks

Run = tuple[tuple[int, int], ...]


def notes_of(tune: Tune) -> list[tuple[int, int]]:
    """(key on the piano, ticks) of each note; rests lengthen the note before."""
    found: list[tuple[int, int]] = []
    for note in tune.notes:
        if note.midi is not None:
            found.append((note.midi, note.ticks))
        elif found:
            found[-1] = (found[-1][0], found[-1][1] + note.ticks)
    return found


def runs(tune: Tune, n: int) -> Iterator[Run]:
    """All runs of n notes: (semitones from the note before, ticks) of each; the first step is 0. A shorter tune is one
    run."""
    notes = notes_of(tune)
    for start in range(max(1, len(notes) - n + 1)):
        some = notes[start : start + n]
        steps = [0, *(some[i][0] - some[i - 1][0] for i in range(1, len(some)))]
        yield tuple(zip(steps, (ticks for _, ticks in some), strict=True))


def intervals(tune: Tune) -> list[int]:
    """Semitones from note to note, an octave at most."""
    notes = notes_of(tune)
    return [max(-12, min(12, b - a)) for (a, _), (b, _) in itertools.pairwise(notes)]


def degrees(tune: Tune) -> list[int]:
    """Each note's place above the tonic, 0 to 11."""
    from .score import tonic_of

    tonic = tonic_of(tune.key)
    return [(key - tonic) % 12 for key, _ in notes_of(tune)]


def onsets(tune: Tune) -> list[int]:
    """Where in its bar each note begins, in sixteenths of the bar."""
    from .abc import Bar

    full, at, found = bar_ticks(tune.metre), 0, list[int]()
    for event in tune.events:
        if isinstance(event, Bar):
            at = 0
            continue
        if event.step is not None:
            found.append(min(15, at * 16 // full))
        at += event.ticks
    return found
