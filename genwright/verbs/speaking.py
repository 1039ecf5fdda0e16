"""Speaking: lines said by one voice or several, each an answer of its own that passes guards, marks and the ledger.

Lines lie in a folder under a hash of what they say and how, so that a killed call goes on with those that are missing.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pydantic import Field

from genwright.core import Settings, fingerprint, user
from genwright.trust.sidecar import sidecar

from .mix import Source, source_beside

if TYPE_CHECKING:
    from genwright.media.sound import Sound


class VoiceChoice(Settings):
    """Who says something, and how."""

    model: str | None = Field(
        None, description="A card, run or folder that speaks; null is chosen by voice and language"
    )
    voice: str | None = Field(None, description="A voice of it, or a blend: af_heart:0.7+af_bella:0.3")
    speed: float = Field(1.0, ge=0.25, le=4, description="How fast: 2 is twice as fast")


def model_for(text: str, model: str | None, voice: str | None) -> str:
    """The model named, or the one that has the voice, or the usual one of the text's language."""
    from genwright.nn.voice_options import usual_card

    return model or usual_card(text, voice)


@dataclass(frozen=True)
class Spoken:
    """A line as it was said."""

    sound: Sound
    source: Source

    @property
    def seconds(self) -> float:
        return self.sound.seconds


@dataclass
class Speakers:
    """Models that speak, opened when they are first needed and closed at the end; lines go into `folder`."""

    folder: Path
    seed: int = 0
    _open: dict[str, Any] = field(default_factory=dict)

    def __enter__(self) -> Speakers:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for answerer in self._open.values():
            answerer.close()

    def say(self, text: str, who: VoiceChoice, *, speed: float | None = None) -> Spoken:
        """The line, said now or by a call before that was killed. Raises what the model and its guards raise."""
        from genwright.media.sound import open_sound

        model = model_for(text, who.model, who.voice)
        options = {"speed": who.speed if speed is None else speed} | ({"voice": who.voice} if who.voice else {})
        path = self.folder / f"{fingerprint(text, model, options, self.seed)[:32]}.wav"
        if not _is_whole(path):
            for _ in self._model(model).ask([user(text)], options=options, seed=self.seed, out=path):
                pass
        return Spoken(open_sound(path), source_beside(path))

    def _model(self, name: str) -> Any:
        from .ask import open_answerer

        if name not in self._open:
            self._open[name] = open_answerer(name, task="text_to_speech")
        return self._open[name]


def _is_whole(path: Path) -> bool:
    """Whether the line was written and labelled: its sidecar comes last and holds its hash."""
    with suppress(OSError, ValueError):
        facts = json.loads(sidecar(path).read_text(encoding="utf-8"))
        return bool(facts["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest())
    return False
