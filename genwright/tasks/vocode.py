"""Make a sound again from its mel bands: a vocoder, judged on the sounds themselves."""

from typing import Any

from pydantic import Field

from genwright import core
from genwright.core import Example, Message, Task


class Settings(core.Settings):
    options: dict[str, Any] = Field({}, description="Options of requests that name none: {temperature: 0.8}")


def frame(example: Example, settings: Settings) -> Example:
    """A row's sound is question and answer; its words stay beside, for whoever listens whether they are still heard."""
    sounds = tuple(part for part in example.answer.parts if part.kind == "audio")
    asked = any(part.kind == "audio" for message in example.prompt for part in message.parts)
    if asked or not sounds:
        return example
    words = tuple(part for message in example.prompt[-1:] for part in message.parts if part.kind == "text")
    return Example((Message("user", (*words, *sounds)), example.answer), example.meta)


task = Task("audio", "audio", engine="wavenet", objective="sft", metrics=("sound_bits", "mel_error"), frame=frame)
