"""Write an icon as a drawing of lines (SVG) of what words describe."""

from typing import Any

from pydantic import Field

from genwright import core
from genwright.core import Example, Task, templated


class Settings(core.Settings):
    template: str = Field("{prompt}", description="What the model is told; {prompt} is what was asked")
    options: dict[str, Any] = Field({}, description="Options of requests that name none: {temperature: 0.5}")


def frame(example: Example, settings: Settings) -> Example:
    """The words through the template; the drawing stays as it is."""
    return templated(example, settings.template)


task = Task("text", "image", engine="svg_lm", objective="sft", metrics=("drawing_bits", "drawn"), frame=frame,
            guards=({"name": "keywords", "lists": ["sexual"], "sides": ["request"]},))  # fmt: skip
