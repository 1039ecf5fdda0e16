"""Say words aloud."""

from typing import Any

from pydantic import Field

from genwright import core
from genwright.core import Example, Task, templated


class Settings(core.Settings):
    template: str = Field("{prompt}", description="What is said; {prompt} is what was asked")
    options: dict[str, Any] = Field({}, description="Options of requests that name none: {voice: af_heart, speed: 0.9}")


def frame(example: Example, settings: Settings) -> Example:
    """The words through the template; sounds stay as they are."""
    return templated(example, settings.template)


task = Task("text", "audio", engine="speech", objective="speech", metrics=("mel_distance",), frame=frame, imitates=True)
