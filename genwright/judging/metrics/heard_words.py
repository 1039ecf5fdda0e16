"""Heard words: word errors of what the packaged Whisper hears in spoken answers, against the words that were asked for.

It hears the rows' own recordings beside them: what it mistakes there is its own. Chinese counts by character.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import Field

from genwright.core import Judged, Message, Pairs, Part, Score, UsageError, assistant, find_card
from genwright.core import Settings as Base
from genwright.judging.intervals import RESAMPLES
from genwright.judging.spoken import error_rate
from genwright.judging.words import spelt


class Settings(Base):
    card: str = Field("whisper-base", description="The card of the model that listens")
    language: str = Field("auto", pattern=r"^([a-z]{2,3}|auto)$", description="Of the speech, as two letters")
    most: int = Field(50, ge=1, description="Answers that are heard")


def cards(settings: Settings) -> tuple[str, ...]:
    return (settings.card,)


def score(pairs: Pairs, settings: Settings, *, bootstrap: int = RESAMPLES, seed: int = 0, **context: Any) -> Score:
    """Raises UsageError where no answer is a sound, ModelError when the listener is not here."""
    from genwright.nn.whisper import Listener

    rows = [pair for pair in pairs if _sound_of(pair.answer)][: settings.most]
    if not rows:
        raise UsageError("No answer is a sound.", "Leave `heard_words` out.")
    listener = Listener(find_card(settings.card).folder)

    def heard(message: Message | None) -> Message:
        return assistant(listener.words_of(_sound_of(message) or Part(), language=settings.language, seed=seed))

    def judged(message: Message | None, pair: Judged) -> Judged:
        words = assistant(pair.example.prompt[-1].text if pair.example.prompt else "")
        return Judged(replace(pair.example, messages=(*pair.example.prompt, words)), heard(message))

    true = [judged(pair.example.answer, pair) for pair in rows if _sound_of(pair.example.answer)]
    found = [judged(pair.answer, pair) for pair in rows]
    signature = f"heard_words|{settings.card}|unit:word or han|language:{settings.language}"
    made = error_rate(found, spelt, bootstrap=bootstrap, seed=seed, signature=signature)
    theirs = {"the recordings": error_rate(true, spelt, bootstrap=0).value} if true else {}
    return replace(made, beside=theirs)


def _sound_of(message: Message | None) -> Part | None:
    return next((part for part in message.parts if part.kind == "audio" and part.path), None) if message else None
