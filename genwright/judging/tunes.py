"""Tunes: how judging reads them, and what it compares them by, in every key alike."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from genwright.core import Example, GenwrightError, Message
from genwright.media.abc import Tune, read_tune
from genwright.media.melody import degrees, intervals, notes_of, onsets
from genwright.media.score import METRES, RHYTHMS, words_of_tune
from genwright.media.tune_words import facts_of

LOOKS = {"degrees": 12, "intervals": 25, "onsets": 16, "lengths": 32}  # histograms, with their sizes


def tune_in(message: Message | None) -> Tune | None:
    """The tune that a message holds as ABC; None when it holds none."""
    try:
        return read_tune(message.text) if message else None
    except GenwrightError:
        return None


def words_in(example: Example) -> list[int]:
    """The words of a row's tune (media/score.py); none when there are none for it."""
    try:
        return words_of_tune(read_tune(example.answer.text))
    except GenwrightError:
        return []


def looks(tune: Tune) -> Any:
    """Four histograms of a tune's notes, one after the other as in `LOOKS`: place in the scale, step from the note
    before, place in the bar, length. The same in every key."""
    lengths = [min(31, ticks // 6) for _, ticks in notes_of(tune)]
    seen = (degrees(tune), [step + 12 for step in intervals(tune)], onsets(tune), lengths)
    counts = [np.bincount(values, minlength=size) for values, size in zip(seen, LOOKS.values(), strict=True)]
    return np.concatenate(counts).astype(np.float64)


def apart(one: Any, other: Any) -> dict[str, Any]:
    """Jensen–Shannon divergence (bits: 0 the same, 1 nothing in common) of each histogram. `one` and `other` are sums
    of `looks`, (…, all sizes), to which half a note of each kind is added."""
    found, start = {}, 0
    for name, size in LOOKS.items():
        pair = [some[..., start : start + size] + 0.5 for some in (one, other)]
        p, q = (some / some.sum(-1, keepdims=True) for some in pair)
        middle = (p + q) / 2
        found[name] = ((p * np.log2(p / middle)).sum(-1) + (q * np.log2(q / middle)).sum(-1)) / 2
        start += size
    return found


class Rhythms:
    """What dance a tune is by its metre, its lengths and where its notes fall: the nearest mean of training tunes."""

    def __init__(self, tunes: Iterable[Tune]):
        sums: dict[str, list[Any]] = {}
        for tune in tunes:
            if rhythm := facts_of(tune).get("rhythm"):
                sums.setdefault(rhythm, []).append(_features(tune))
        self.means = {name: np.mean(some, 0) for name, some in sums.items() if len(some) >= 5}

    def of(self, tune: Tune) -> str:
        """One of the rhythms that were seen five times; "" where there is none."""
        features = _features(tune)
        return min(self.means, key=lambda name: float(np.square(self.means[name] - features).sum()), default=RHYTHMS[0])


def _features(tune: Tune) -> Any:
    """Roots of the shares of onsets and lengths (Hellinger's distance), and the metre."""
    found = looks(tune)[-LOOKS["onsets"] - LOOKS["lengths"] :]
    onset, length = found[: LOOKS["onsets"]], found[LOOKS["onsets"] :]
    metre = np.array([one == tune.metre for one in METRES], np.float64)
    return np.concatenate([np.sqrt(one / max(1.0, one.sum())) for one in (onset, length)] + [metre])


# Krumhansl & Kessler 1982: how well each degree fits a major and a minor key.
_PROFILES = {
    "major": (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88),
    "minor": (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17),
}
_MINOR = ("minor", "dorian", "phrygian", "locrian")


def heard_tonic(tune: Tune) -> int:
    """The tonic that the notes suggest, semitones above C (Krumhansl's profile of the tune's kind of mode)."""
    weight = np.zeros(12)
    for key, ticks in notes_of(tune):
        weight[key % 12] += ticks
    profile = np.array(_PROFILES["minor" if tune.key.mode in _MINOR else "major"])
    fits = [np.corrcoef(np.roll(profile, tonic), weight)[0, 1] if weight.std() else 0.0 for tonic in range(12)]
    return int(np.argmax(fits))


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0
