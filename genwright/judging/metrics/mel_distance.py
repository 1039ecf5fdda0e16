"""Mel distance: how far what was said lies from the recording of the same words, in dB of mel cepstra (MCD).

Thirteen cepstra of each frame, the loudness left out, the two brought into step by dynamic time warping (Kubichek 1993;
as Skerry-Ryan et al. 2018 have it). Two takes of one speaker lie some 5 apart; beside it stands what a recording scores
that says other words in the same voice: whoever is not nearer has learned nothing but the voice.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from genwright.core import Message, Pairs, Score, Settings, UsageError
from genwright.judging.intervals import RESAMPLES, mean_score
from genwright.media.mel import BANDS, mel_of
from genwright.media.sound import open_sound

_CEPSTRA = 13


def score(pairs: Pairs, settings: Settings, *, bootstrap: int = RESAMPLES, seed: int = 0, **context: Any) -> Score:
    """The mean over rows. Raises UsageError where neither answers nor rows are sounds."""
    sounds = [(_sound_of(pair.answer), _sound_of(pair.example.answer)) for pair in pairs]
    rows = [(cepstra(said), cepstra(wanted)) for said, wanted in sounds if said and wanted]
    if not rows:
        raise UsageError("No answer and its row are both sounds.", "Leave `mel_distance` out.")
    each = [distance(said, wanted) for said, wanted in rows]
    others = [distance(rows[at - 1][1], wanted) for at, (_, wanted) in enumerate(rows)] if len(rows) > 1 else []
    return mean_score(
        each, bootstrap=bootstrap, seed=seed, unit="dB", higher_is_better=False,
        signature=f"mel_distance|cepstra:1-{_CEPSTRA}|dtw|16 kHz",
        beside={"recordings of other words": float(np.mean(others))} if others else {},
    )  # fmt: skip


def cepstra(path: Path) -> np.ndarray:
    """(frames, 13) of a sound, from the second on."""
    turns = np.pi / BANDS * (np.arange(BANDS) + 0.5)[:, None] * np.arange(1, _CEPSTRA + 1)
    found: np.ndarray = mel_of(open_sound(path)) @ (np.cos(turns) * math.sqrt(2 / BANDS))
    return found


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """Mean over the best path of 10/ln 10 · √(2 Σ d²), in dB. A path goes on by a frame of either or of both."""
    apart = np.sqrt(np.maximum(0, (one**2).sum(1)[:, None] - 2 * one @ other.T + (other**2).sum(1)[None]))
    n, m = apart.shape
    total, steps = np.full((n + 1, m + 1), np.inf), np.zeros((n + 1, m + 1))
    total[0, 0] = 0
    for diagonal in range(n + m - 1):  # all cells of a diagonal at once
        i = np.arange(max(0, diagonal - m + 1), min(n, diagonal + 1))
        j = diagonal - i
        before = np.stack([total[i, j], total[i, j + 1], total[i + 1, j]])
        best = before.argmin(0)
        total[i + 1, j + 1] = apart[i, j] + before.min(0)
        steps[i + 1, j + 1] = 1 + np.stack([steps[i, j], steps[i, j + 1], steps[i + 1, j]])[best, np.arange(len(i))]
    return float(10 / math.log(10) * math.sqrt(2) * total[n, m] / steps[n, m])


def _sound_of(message: Message | None) -> Path | None:
    return next((part.path for part in message.parts if part.kind == "audio" and part.path), None) if message else None
