"""Reciting: a lyric spoken by a packaged voice over a tune, line by line on its phrases (`media/recitation.py`)."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from genwright.core.content import Part
from genwright.core.errors import ModelError, UsageError
from genwright.media.abc import Tune
from genwright.media.mix import MixOptions, Placed, mixed, timeline
from genwright.media.performance import LONGEST, tempo_of
from genwright.media.recitation import Recital, lines_of, set_on, verses_of, word_ticks
from genwright.media.sound import Sound, joined
from genwright.media.spoken_form import spoken_form

from .abc_options import TuneOptions
from .voice_options import SpeechOptions, usual_card
from .voices import RATE, packaged

_LINES = 200
_SEED = 0  # of the breath in the voice: the same words sound the same over every tune


@dataclass(frozen=True)
class Recited:
    """A lyric on a tune that is played `times` times at `tempo`; `verses` are its words under the tune's notes, `words`
    the same by their tick."""

    recital: Recital
    tempo: int
    speaker: str
    duck: float
    verses: Sequence[Mapping[int, str]]
    words: Sequence[tuple[int, str]]

    @property
    def times(self) -> int:
        return self.recital.times

    @property
    def facts(self) -> dict[str, Any]:
        """What is told of it: who speaks, and of each line from when to when (seconds), from which bar and how fast."""
        lines = [{"text": line.text, "start": round(line.start, 3), "end": round(line.end, 3), "bar": line.bar,
                  "speed": line.speed} for line in self.recital.lines]  # fmt: skip
        return {"speaker": self.speaker, "lines": lines, "times": self.times, "phrase_bars": self.recital.bars}

    def over(self, music: Sound) -> Sound:
        """The voice over the music, which goes down under each line."""
        how = MixOptions(duck=self.duck, lead=0, tail=0, fade_in=0, fade_out=0, length="bed")
        placed = [Placed(line.start, line.sound) for line in self.recital.lines]
        return mixed(timeline(placed, rate=RATE), music, how)


class Sayings:
    """The lines of a lyric as a voice says them, each once for each speed.

    Raises UsageError for a lyric without words or of too many lines, and for a voice that is not there; ModelError for
    a card that has not been fetched.
    """

    def __init__(self, how: TuneOptions):
        self.lines = lines_of(how.lyrics or "")
        if not self.lines:
            raise UsageError("The lyrics hold no words.", "Write a line for each phrase of the tune.")
        if len(self.lines) > _LINES:
            raise UsageError(f"The lyrics have {len(self.lines)} lines, more than {_LINES}.", "Make several tunes.")
        self.how, self.card = how, how.speaker or usual_card(how.lyrics or "", how.voice)
        self.speaker = packaged(self.card)
        self.speaker.blend_for(SpeechOptions(voice=how.voice), "en")
        self.said: dict[tuple[str, float], Sound] = {}

    def __call__(self, text: str, speed: float) -> Sound:
        """The line at so many times the speed that is asked for."""
        if (text, speed) not in self.said:
            how = SpeechOptions(voice=self.how.voice, speed=self.how.speed * speed)
            pieces = self.speaker.sounds(spoken_form(text), how, _SEED)
            self.said[text, speed] = joined([sound for _, sound in pieces])
        return self.said[text, speed]


def recite(tune: Tune, say: Sayings) -> Generator[Part, None, Recited]:
    """Set a lyric on a tune; a part that tells how far it is comes after each line that is said.

    Raises UsageError for one that takes more than a quarter of an hour to say, ModelError for a tune without notes.
    """
    if not tune.notes:
        raise ModelError("The tune came out without notes, so nothing can be said over it.", "Try another seed.")
    how, tempo = say.how, say.how.tempo or tempo_of(tune)
    for number, line in enumerate(say.lines, 1):
        say(line.text, 1.0)
        yield Part("audio", meta={"progress": number, "of": len(say.lines)})
    recital = set_on(tune, say.lines, say, tempo=tempo, fastest=how.fastest)
    if (end := recital.lines[-1].end) > LONGEST:
        raise UsageError(f"Over this tune the lyrics take {end:.0f} seconds, more than {LONGEST:.0f}.", "Cut them.")
    words = list(word_ticks(recital, tempo=tempo))
    return Recited(recital, tempo, say.card, how.duck, verses_of(tune, recital, tempo=tempo), words)
