"""Speech made by a packaged voice out of phrases: synthetic recordings to try a recipe with, and labelled as such."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from genwright.core import Bad, Card, Chosen, FilePath, Row, UsageError, choose, find_card
from genwright.core import Settings as Base
from genwright.data.files import File, open_file, read_text

_CHOICE = re.compile(r"\{([^{}]*)\}")


class Settings(Base):
    card: str = Field("hibari", description="The card of the voice that speaks")
    voices: tuple[str, ...] = Field(
        (), description="Its voices, by turns (af_heart, or a blend); empty is its usual one"
    )
    phrases: tuple[str, ...] = Field((), description="What is said; {on|off} is one of them: turn the light {on|off}")
    texts: FilePath | None = Field(None, description="A text file of what is said, a line each, instead of phrases")
    count: int | None = Field(
        None, ge=1, description="Sentences said, drawn from the phrases; null is each of them once"
    )
    takes: int = Field(
        1, ge=1, description="How often each is said, one after the other: by the next voice, at another speed"
    )
    slow: float = Field(1.0, ge=0.25, le=4, description="Slowest speed that is drawn")
    fast: float = Field(1.0, ge=0.25, le=4, description="Fastest speed that is drawn")
    rate: int | None = Field(None, ge=4_000, description="Samples a second of the sounds; 8000 is a telephone's")
    noise: float = Field(0.0, ge=0, le=0.2, description="Most noise that is added, as a share of full scale")
    seed: int = Field(0, ge=0, description="Of what is drawn: other seeds say other sentences")
    path: FilePath | None = Field(None, description="Folder of the voice; null is that of its card")

    @model_validator(mode="after")
    def _says_something(self) -> Settings:
        if bool(self.phrases) == (self.texts is not None):
            raise ValueError("needs `phrases` or a file of `texts`, one of them")
        if self.slow > self.fast:
            raise ValueError("`slow` is faster than `fast`")
        return self


def resolve(settings: Settings, fetch: Callable[[Card], Path]) -> Chosen:
    """The same with the voice fetched. Raises UsageError for a card that is no voice."""
    card = find_card(settings.card)
    if card.engine != "speech":
        raise UsageError(f"The card {card.name!r} is no voice.", "Name hibari or kokoro-82m.")
    return choose("sources", {"source": "spoken", **settings.model_dump(mode="json"), "path": str(fetch(card))},
                  key="source")  # fmt: skip


def consent(settings: Settings) -> str:
    """Why the voice may be imitated, as its card says it."""
    return find_card(settings.card).consent


def read(settings: Settings) -> Iterator[Row | Bad]:
    """Rows of `audio` (FLAC) and `text`, each with who says it as its style; the same seed gives the same rows. No
    sentence is drawn twice, and its takes share a group, so that they lie on one side of a split. Raises UsageError for
    a voice that is not there."""
    from genwright.media.sound import encoded, joined, sound_of
    from genwright.media.spoken_form import spoken_form
    from genwright.nn.voice_options import SpeechOptions
    from genwright.nn.voices import RATE, open_speaker

    card = find_card(settings.card)
    speaker = open_speaker(settings.path or card.folder, threads=1)
    draw = random.Random(f"spoken {settings.seed}")
    takes = (text for text in _sentences(settings, draw) for _ in range(settings.takes))
    for number, text in enumerate(takes):
        name = settings.voices[number % len(settings.voices)] if settings.voices else None
        how, speed = SpeechOptions(voice=name), draw.uniform(settings.slow, settings.fast)
        said = [
            sound_of(speaker.network.say(one.phonemes, speaker.blend_for(how, one.language), speed, number), RATE)
            for one in speaker.spoken(spoken_form(text), "auto")
        ]
        sound = joined(said, pause=0.15).at(settings.rate or RATE)
        audio = encoded(_noisy(sound, draw, settings.noise), ".flac")
        meta = {"licence": f"synthetic speech ({card.licence})", "attribution": card.title}
        meta |= {"style": name or card.name} | ({"group": f"said {text}"} if settings.takes > 1 else {})
        yield Row(f"spoken:{number}", {"audio": audio, "text": text, "meta": meta})


def _sentences(settings: Settings, draw: random.Random) -> Iterator[str]:
    lines: list[str] = list(settings.phrases)
    if settings.texts is not None:
        path = settings.texts
        text = read_text(File(path.name, lambda: open_file(path)))
        if isinstance(text, Bad):
            raise UsageError(f"{path} {text.reason}.")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
    if settings.count is None:
        yield from (_CHOICE.sub(lambda found: draw.choice(found[1].split("|")), line) for line in lines)
        return
    seen = set[str]()
    for _ in range(20 * settings.count):
        said = " ".join(_CHOICE.sub(lambda found: draw.choice(found[1].split("|")), draw.choice(lines)).split())
        if said not in seen and len(seen) < settings.count:
            seen.add(said)
            yield said


def _noisy(sound: Any, draw: random.Random, most: float) -> Any:
    import numpy as np

    from genwright.media.sound import Sound

    if not most:
        return sound
    noise = np.random.default_rng(draw.randrange(1 << 31)).standard_normal(sound.samples.shape)
    return Sound((sound.samples + draw.uniform(0, most) * noise).astype(np.float32), sound.rate)
