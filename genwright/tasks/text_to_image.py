"""Paint a picture of what words describe."""

from typing import Any

from pydantic import Field

from genwright import core
from genwright.core import Example, Task, templated


class Settings(core.Settings):
    template: str = Field("{prompt}", description="What the model is told; {prompt} is what was asked")
    options: dict[str, Any] = Field({}, description="Options of requests that name none: {steps: 8, style: flat}")


def frame(example: Example, settings: Settings) -> Example:
    """The words through the template; pictures stay as they are."""
    return templated(example, settings.template)


task = Task("text", "image", engine="flow_image", objective="flow", metrics=("denoising",), frame=frame,
            guards=({"name": "keywords", "lists": ["sexual"], "sides": ["request"]},))  # fmt: skip
