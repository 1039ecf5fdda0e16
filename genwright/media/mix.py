"""Mix: sounds on one timeline; music under a voice that goes down while it speaks, with fades, at a known loudness."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from genwright.core.plugin import Settings

from .loudness import amplified, levelled, loudness, spread
from .sound import Sound

_SLICE = 0.01  # seconds of the side chain
_SPEAKS = -25.0  # LU: a slice that is not further below the voice's loudness is speech


class MixOptions(Settings):
    """How a voice and its bed are put together."""

    bed: float = Field(
        -6.0, ge=-60, le=20, description="The bed's loudness beside the voice's, in LU, while nobody speaks"
    )
    duck: float = Field(12.0, ge=0, le=60, description="Decibels by which the bed goes down while somebody speaks")
    attack: float = Field(0.15, gt=0, le=5, description="Seconds in which it goes down, before the first word")
    release: float = Field(0.8, gt=0, le=10, description="Seconds in which it comes up again after the last word")
    lead: float = Field(1.5, ge=0, le=60, description="Seconds of the bed before the voice")
    tail: float = Field(3.0, ge=0, le=120, description="Seconds of the bed after the voice")
    fade_in: float = Field(0.5, ge=0, le=60, description="Seconds in which the bed begins")
    fade_out: float = Field(2.0, ge=0, le=60, description="Seconds in which the bed ends")
    length: Literal["voice", "bed"] = Field(
        "voice", description="voice: the bed is repeated or cut to fit; bed: it plays once, to its end"
    )
    loudness: float | None = Field(
        -16.0, ge=-70, le=-5, description="LUFS of the whole (podcasts -16, European broadcasts -23); null leaves it"
    )
    peak: float = Field(-1.0, ge=-20, le=0, description="dBTP that no peak goes above, where loudness is given")


@dataclass(frozen=True)
class Placed:
    """A sound that begins at `start` (seconds)."""

    start: float
    sound: Sound


def mixed(voice: Sound, bed: Sound | None, how: MixOptions) -> Sound:
    """The voice over its bed (or alone) at the loudness that is asked for; at the higher rate and the more channels."""
    if bed is None:
        return _finished(voice, how)
    rate, channels = max(voice.rate, bed.rate), max(voice.channels, bed.channels)
    voice, bed = voice.at(rate), bed.at(rate)
    whole = max(how.lead + voice.seconds + how.tail, bed.seconds if how.length == "bed" else 0.0)
    if how.length == "voice":
        bed = looped(bed, whole)
    bed = amplified(bed, _steps_up(bed, loudness(voice) + how.bed))
    bed = ducked(faded(bed, how.fade_in, how.fade_out), voice, start=how.lead, depth=how.duck, attack=how.attack,
                 release=how.release)  # fmt: skip
    both = timeline([Placed(0, bed), Placed(how.lead, voice)], rate=rate, channels=channels, seconds=whole)
    return _finished(both, how)


def timeline(pieces: Sequence[Placed], *, rate: int, channels: int = 1, seconds: float = 0.0) -> Sound:
    """All pieces added up where they stand; as long as the last of them, and at least `seconds`."""
    import numpy as np

    fitted = [(round(piece.start * rate), with_channels(piece.sound.at(rate), channels).samples) for piece in pieces]
    made = np.zeros((max([round(seconds * rate), *(at + len(wave) for at, wave in fitted)]), channels), np.float32)
    for at, wave in fitted:
        made[at : at + len(wave)] += wave
    return Sound(made, rate)


def with_channels(sound: Sound, channels: int) -> Sound:
    """As many channels: one is the mean of all, several from one are the same; else what is asked for goes over one."""
    if sound.channels == channels:
        return sound
    return Sound(sound.mono().samples.repeat(channels, axis=1), sound.rate)


def faded(sound: Sound, begin: float, end: float) -> Sound:
    """Louder from nothing in `begin` seconds, and gone in the last `end`; each along half a wave (raised cosine)."""
    import numpy as np

    gains = np.ones(len(sound.samples), np.float32)
    for seconds, reverse in ((begin, False), (end, True)):
        count = min(len(gains), round(seconds * sound.rate))
        rise = 0.5 - 0.5 * np.cos(np.pi * (np.arange(count) + 0.5) / max(1, count))
        if reverse:
            gains[len(gains) - count :] *= rise[::-1]
        else:
            gains[:count] *= rise
    return Sound(sound.samples * gains[:, None], sound.rate)


def looped(sound: Sound, seconds: float, *, overlap: float = 1.0) -> Sound:
    """As long as asked for: cut, or played again and again, each time faded over into the next."""
    frames = round(seconds * sound.rate)
    if len(sound.samples) >= frames:
        return Sound(sound.samples[:frames], sound.rate)
    overlap = min(overlap, sound.seconds / 4)
    step, count = sound.seconds - overlap, math.ceil(seconds / (sound.seconds - overlap))
    pieces = [Placed(n * step, faded(sound, overlap if n else 0.0, overlap)) for n in range(count)]
    made = timeline(pieces, rate=sound.rate, channels=sound.channels)
    return Sound(made.samples[:frames], sound.rate)


def ducked(
    bed: Sound, voice: Sound, *, start: float = 0.0, depth: float, attack: float = 0.15, release: float = 0.8
) -> Sound:
    """The bed turned down by `depth` decibels while the voice, which begins at `start` seconds of it, speaks.

    Pauses shorter than `release` stay turned down to their middle, so that the bed does not pump between words.
    """
    hop = max(1, round(bed.rate * _SLICE))
    slices = -(-len(bed.samples) // hop)
    gains = _side_chain(_speaks(voice, start, slices), depth, attack / _SLICE, release / _SLICE)
    return Sound(bed.samples * (10 ** (spread(gains, hop, len(bed.samples)) / 20))[:, None], bed.rate)


def _speaks(voice: Sound, start: float, slices: int) -> Any:
    """(slices,) whether the voice speaks in each hundredth of a second."""
    import numpy as np

    hop = max(1, round(voice.rate * _SLICE))
    wave = voice.mono().samples[:, 0]
    power = np.pad(wave, (0, -len(wave) % hop)).reshape(-1, hop).astype(np.float64)
    level = 10 * np.log10(np.maximum((power**2).mean(1), 1e-12))
    usual = (
        10 * np.log10(max(1e-12, float((10 ** (np.sort(level)[len(level) // 2 :] / 10)).mean()))) if len(level) else 0
    )
    found = np.zeros(slices, bool)
    at = round(start / _SLICE)
    loud = (level > max(usual + _SPEAKS, -60.0))[: max(0, slices - at)]
    found[at : at + len(loud)] = loud
    return found


def _side_chain(speaks: Any, depth: float, attack: float, release: float) -> Any:
    """(slices,) decibels: straight down over `attack` slices before speech, straight up over `release` after it."""
    import numpy as np

    places = np.flatnonzero(speaks)
    if not len(places):
        return np.zeros(len(speaks))
    at = np.arange(len(speaks))
    following = np.searchsorted(places, at)
    ahead = np.where(following < len(places), places[np.minimum(following, len(places) - 1)] - at, np.inf)
    past = np.searchsorted(places, at, side="right") - 1
    behind = np.where(past >= 0, at - places[np.maximum(past, 0)], np.inf)
    away = np.minimum(np.minimum(ahead / attack, 1), np.minimum(np.maximum(behind - release / 2, 0) / release, 1))
    return -depth * (1 - away)


def _steps_up(sound: Sound, target: float) -> float:
    """Decibels that bring a sound to `target` LUFS; none where either is silent."""
    found = loudness(sound)
    return 0.0 if math.inf in (abs(found), abs(target)) else target - found


def _finished(sound: Sound, how: MixOptions) -> Sound:
    return sound if how.loudness is None else levelled(sound, how.loudness, ceiling=how.peak)
