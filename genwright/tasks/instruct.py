"""Carry out one instruction, optionally put through a template."""

from pydantic import Field

from genwright.core import Example, Task, TaskSettings, templated


class Settings(TaskSettings):
    template: str = Field("{prompt}", description="What the model is asked; {prompt} is the row's last user message")


def frame(example: Example, settings: Settings) -> Example:
    """Put the last user message through the template; the answer stays as it is.

    >>> from genwright.core import assistant, user
    >>> row = Example((user("the sea"), assistant("La mer")))
    >>> frame(row, Settings(template="Translate: {prompt}")).prompt[0].text
    'Translate: the sea'
    """
    return templated(example, settings.template)


task = Task("text", "text", engine="causal_lm", objective="sft", metrics=("perplexity", "chrf", "rouge"), frame=frame)
