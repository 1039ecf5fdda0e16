"""Compose a tune of what words describe: as notation (ABC), and as sound where a file is asked for."""

from typing import Any

from pydantic import Field

from genwright import core
from genwright.core import Example, Task, templated


class Settings(core.Settings):
    template: str = Field("{prompt}", description="What the model is told; {prompt} is what was asked")
    options: dict[str, Any] = Field({}, description="Options of requests that name none: {temperature: 0.8}")


def frame(example: Example, settings: Settings) -> Example:
    """The words through the template; the tune stays as it is."""
    return templated(example, settings.template)


task = Task(
    "text",
    "audio",
    engine="abc_lm",
    objective="sft",
    metrics=("tune_bits", "bar_validity", "copied_tunes"),
    frame=frame,
)
