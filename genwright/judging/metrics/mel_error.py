"""Mel error: how far the mel bands of a sound lie from those of the true one, in decibels, moment by moment.

The spectrogram is that of media/mel.py; what is longer than the other counts against silence. Where a sound was given
to be made again (a vocoder), what Griffin and Lim's way makes of the same mel bands stands beside it.
"""

from typing import Any

import numpy as np
from pydantic import Field

from genwright.core import Judged, Message, Pairs, Score, UsageError
from genwright.core import Settings as Base
from genwright.judging.intervals import RESAMPLES, mean_score
from genwright.media.mel import FLOOR, mel_of, vocode
from genwright.media.sound import Sound, open_sound

_DECIBELS = 20 / np.log(10)  # of a step in the natural logarithm of amplitude


class Settings(Base):
    griffin_lim: bool = Field(True, description="Tell beside it how far Griffin-Lim comes from the same mel bands")


def score(pairs: Pairs, settings: Settings, *, bootstrap: int = RESAMPLES, seed: int = 0, **context: Any) -> Score:
    """Mean absolute difference over moments and bands. Raises UsageError when no row has a sound on both sides."""
    there = [
        (pair, true, made) for pair in pairs if (true := _sound(pair.example.answer)) and (made := _sound(pair.answer))
    ]
    if not there:
        raise UsageError("No answer is a sound beside a true one.", "Leave `mel_error` out.")
    bands = [mel_of(true) for _, true, _ in there]
    again = [
        distance(true, mel_of(vocode(true, seed=seed)))
        for (pair, _, _), true in zip(there, bands, strict=True)
        if settings.griffin_lim and _is_vocoding(pair)
    ]
    return mean_score(
        [distance(true, mel_of(made)) for (_, _, made), true in zip(there, bands, strict=True)],
        bootstrap=bootstrap, seed=seed, unit="dB", higher_is_better=False, signature="mel_error|L1|80 bands|16 kHz",
        beside={"Griffin-Lim": float(np.mean(again))} if again else {}, details={"rows": len(there)},
    )  # fmt: skip


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """Decibels between two mel spectrograms (frames, bands) as `mel_of` makes them.

    >>> round(distance(np.zeros((3, 80)), np.ones((3, 80))), 3)
    8.686
    """
    longest = max(len(one), len(other))
    both = [np.pad(mel, ((0, longest - len(mel)), (0, 0)), constant_values=FLOOR) for mel in (one, other)]
    return float(np.abs(both[0] - both[1]).mean() * _DECIBELS)


def _sound(message: Message | None) -> Sound | None:
    parts = message.parts if message else ()
    path = next((part.path for part in parts if part.kind == "audio" and part.path), None)
    return open_sound(path) if path else None


def _is_vocoding(pair: Judged) -> bool:
    """Whether the true sound itself was handed in."""
    given = {part.path for message in pair.example.prompt for part in message.parts if part.path}
    return any(part.path in given for part in pair.example.answer.parts)
