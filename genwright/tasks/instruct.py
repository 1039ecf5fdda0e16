"""Carry out one instruction, optionally put through a template."""

from pydantic import Field

from genwright.core import Example, Message, Part, Task, TaskSettings


class Settings(TaskSettings):
    template: str = Field("{prompt}", description="What the model is asked; {prompt} is the row's last user message")


def frame(example: Example, settings: Settings) -> Example:
    """Put the last user message through the template; the answer stays as it is.

    >>> from genwright.core import assistant, user
    >>> row = Example((user("the sea"), assistant("La mer")))
    >>> frame(row, Settings(template="Translate: {prompt}")).prompt[0].text
    'Translate: the sea'
    """
    if settings.template == "{prompt}" or len(example.messages) < 2:
        return example
    asked = example.messages[-2]
    words = settings.template.replace("{prompt}", asked.text)
    parts = (Part(text=words), *(part for part in asked.parts if part.kind != "text"))
    return Example((*example.messages[:-2], Message(asked.role, parts), example.answer), example.meta)


task = Task("text", "text", engine="causal_lm", objective="sft", metrics=("perplexity", "chrf", "rouge"), frame=frame)
