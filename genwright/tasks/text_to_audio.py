"""Make a sound: of what words or notes ask for, going on from a sound, or of nothing at all."""

from typing import Any

from pydantic import Field

from genwright import core
from genwright.core import Example, Task, templated


class Settings(core.Settings):
    template: str = Field("{prompt}", description="What the model is told; {prompt} is what was asked")
    options: dict[str, Any] = Field({}, description="Options of requests that name none: {seconds: 4}")


def frame(example: Example, settings: Settings) -> Example:
    """The words through the template; sounds stay as they are."""
    return templated(example, settings.template)


task = Task("text", "audio", engine="wavenet", objective="sft", metrics=("sound_bits",), frame=frame)
