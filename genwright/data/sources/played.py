"""Tunes played by a SoundFont: sounds beside the notes that they are, for models of raw sound to learn from."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import Field

from genwright.core import Bad, Card, Chosen, FilePath, Row, choose, find_card
from genwright.core import Settings as Base

SPARE = 0.25  # seconds in which the last note dies away


class Settings(Base):
    card: str = Field("tunes-oneill-aird-ryan", description="The card of the tunes")
    path: FilePath | None = Field(None, description="A file, folder or archive of ABC that is played instead")
    instruments: tuple[int, ...] = Field(
        (73,), min_length=1, description="General MIDI's numbers, by turns: 0 piano, 40 violin, 73 flute"
    )
    seconds: float = Field(6.0, ge=1, le=60, description="Most of a tune that is played, in whole notes from its start")
    count: int | None = Field(None, ge=1, description="Tunes played, drawn at random; null is all of them")
    rate: int = Field(16_000, ge=4_000, le=48_000, description="Samples a second of the sounds")
    seed: int = Field(0, ge=0, description="Of what is drawn")


def resolve(settings: Settings, fetch: Callable[[Card], Path]) -> Chosen:
    """The same with tunes and SoundFont fetched. Raises UsageError for a card that holds no tunes."""
    from genwright.media.performance import SOUNDFONT

    fetch(find_card(SOUNDFONT))
    _tunes(settings, fetch)
    return choose("sources", {"source": "played", **settings.model_dump(mode="json")}, key="source")


def read(settings: Settings) -> Iterator[Row | Bad]:
    """Rows of `audio` (FLAC, one channel) and `text` (`69:0.5 71:0.25`, see media/pitches.py), with the instrument as
    style; tunes of one title share a group. Raises ModelError when the SoundFont has not been fetched."""
    tunes = list(_tunes(settings, lambda card: card.folder)())
    order = random.Random(f"played {settings.seed}").sample(range(len(tunes)), len(tunes))
    for number, place in enumerate(order[: settings.count]):
        row = tunes[place]
        instrument = settings.instruments[number % len(settings.instruments)]
        yield row if isinstance(row, Bad) else _played(row, settings, instrument)


def _tunes(settings: Settings, fetch: Callable[[Card], Path]) -> Any:
    """The source of the tunes."""
    if settings.path is not None:
        return choose("sources", {"source": "abc_tunes", "path": str(settings.path)}, key="source")
    card = choose("sources", {"source": "card", "card": settings.card}, key="source")
    return card.module.resolve(card.settings, fetch)


def _played(row: Row, settings: Settings, instrument: int) -> Row | Bad:
    from genwright.core import DataError
    from genwright.media.abc import read_tune
    from genwright.media.performance import midi_of, sound_of_midi
    from genwright.media.pitches import spelled
    from genwright.media.sound import Sound, encoded

    try:
        tune, notes = _beginning(read_tune(str(row.fields["completion"])), settings.seconds)
        sound = sound_of_midi(midi_of(tune, instrument=instrument)).mono().at(settings.rate)
    except DataError as error:
        return Bad(row.where, error.message)
    end = round((sum(seconds for _, seconds in notes) + SPARE) * settings.rate)
    audio = encoded(Sound(sound.samples[:end], sound.rate), ".flac")
    meta = {**row.fields["meta"], "style": f"instrument {instrument}"}
    return Row(row.where, {"audio": audio, "text": spelled(notes), "meta": meta})


def _beginning(tune: Any, most: float) -> tuple[Any, list[tuple[tuple[int, ...], float]]]:
    """The tune as far as it takes `most` seconds, without repeats; and its notes."""
    from genwright.media.abc import WHOLE, Bar
    from genwright.media.performance import tempo_of, unfolded

    tick = 4 / WHOLE * 60 / tempo_of(tune)  # seconds
    events, notes, at = list[Any](), list[tuple[tuple[int, ...], float]](), 0.0
    for event in unfolded(tune):
        if isinstance(event, Bar):
            events.append(Bar("|"))
            continue
        at += event.ticks * tick
        if at > most and notes:
            break
        events.append(event)
        notes.append((() if event.midi is None else (event.midi,), event.ticks * tick))
    return replace(tune, events=tuple(events)), notes
